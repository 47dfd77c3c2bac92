"""Small runs from and to stores of several kinds, of which stand-ins are on this machine.

    python tests/campaign/stores.py [hf gs az]

`hf` needs huggingface_hub, `gs` gcsfs and gcp-storage-emulator, `az` adlfs. Of each kind a table of
images is evaluated and scored, with its results sent to the store; these must be, but for times
and names, those of a folder. The stores themselves, with their accounts, limits and faults, were
not tried.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from stand_ins import Blobs, Hub, serving

from doubtmap.cli import main as doubtmap
from doubtmap.streets.synthetic import SyntheticStreets

IMAGES = 3
ADDRESSES = {"hf": "hf://datasets/owner/set", "gs": "gs://bucket", "az": "az://container"}
KEY = "a2V5" * 16


@contextmanager
def of_hf() -> Iterator[None]:
    """Hugging Face's hub."""
    with serving(Hub) as address:
        os.environ |= {"HF_ENDPOINT": address, "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
        yield


@contextmanager
def of_gs() -> Iterator[None]:
    """Google's cloud storage."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 9099, in_memory=True, default_bucket="bucket")
    server.start()
    os.environ["STORAGE_EMULATOR_HOST"] = "http://127.0.0.1:9099"
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    try:
        yield
    finally:
        server.stop()


@contextmanager
def of_az() -> Iterator[None]:
    """Azure's blobs."""
    with serving(Blobs) as address:
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = (
            f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={KEY};"
            f"BlobEndpoint={address}/account;"
        )
        yield


KINDS = {"hf": of_hf, "gs": of_gs, "az": of_az}


def contents() -> dict[str, bytes]:
    """A table of images and labels, by the names of its files."""
    streets, found = SyntheticStreets(IMAGES, size=(64, 96)), {}
    for at in range(IMAGES):
        sample = streets[at]
        label = sample.label.numpy()
        pictures = {
            "image": sample.image.permute(1, 2, 0).numpy(),
            "label": np.where(label < 0, 255, label).astype(np.uint8),
        }
        for name, pixels in pictures.items():
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            found[f"{name}{at}.png"] = stream.getvalue()
    rows = "".join(f"image{at}.png,label{at}.png\n" for at in range(IMAGES))
    found["list.csv"] = f"image,label\n{rows}".encode()
    found["classes.txt"] = "\n".join(streets.class_names).encode()
    return found


def run(*words: str) -> None:
    """Run a command.

    Raises:
        SystemExit: where it fails.
    """
    sys.argv = ["doubtmap", *words]
    try:
        doubtmap()
    except SystemExit as end:
        if end.code:
            raise


def both(place: str, out: str) -> None:
    """Evaluate and score what lies at a place, by one process and by a part."""
    usual = ("--scores", "entropy,energy")
    evaluate = ("evaluate", "demo", f"table:{place}/list.csv", *usual, "--replicates", "20")
    run(*evaluate, "--out", f"{out}/run")
    images = (f"{place}/image{at}.png" for at in range(IMAGES))
    run("score", "demo", *images, *usual, "--out", f"{out}/maps")
    run(*evaluate, "--part", "1/1", "--out", f"{out}/part")
    run("merge", f"{out}/merged", f"{out}/part")


def told(results: bytes) -> dict[str, Any]:
    """Results without times and what they are called."""
    found = json.loads(results)
    for key in ("seconds", "command", "data", "directory"):
        found.pop(key, None)
    for row in found["images"]:
        row.pop("file", None)
    return found


def tried(kind: str, folder: Path) -> str:
    """Hold runs at a store to those in a folder."""
    import fsspec

    with KINDS[kind]():
        address = ADDRESSES[kind]
        system, root = fsspec.core.url_to_fs(address)
        for name, content in contents().items():
            system.pipe_file(f"{root}/in/{name}", content)
        both(f"{address}/in", f"{address}/out")
        system.invalidate_cache()
        there = {n.split("/out/", 1)[1]: n for n in system.find(f"{root}/out")}
        for run in ("run", "merged"):
            one = (folder / "out" / run / "results.json").read_bytes()
            assert told(system.cat_file(there[f"{run}/results.json"])) == told(one), run
        maps = [*folder.glob("out/maps/*/*.*")]
        for file in maps:
            name = str(file.relative_to(folder / "out"))
            assert system.cat_file(there[name]) == file.read_bytes(), name
    return f"{kind}: two evaluations and {len(maps)} maps and pictures as in a folder"


def main() -> None:
    """Try each kind that was asked for."""
    kinds = sys.argv[1:] or [*KINDS]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["DOUBTMAP_CACHE"] = str(folder / "cache")
        (folder / "in").mkdir()
        for name, content in contents().items():
            (folder / "in" / name).write_bytes(content)
        both(str(folder / "in"), str(folder / "out"))
        found = [tried(kind, folder) for kind in kinds]
    print("\n".join(found))


if __name__ == "__main__":
    main()
