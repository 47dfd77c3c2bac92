"""Damaged files and odd texts for every reader: read, or refused in one sentence.

    python tests/campaign/fuzz.py --count 100000 [--seed 0] [--only images]

Each reader gets whole files of its kind, damaged as hypothesis draws it: bytes flipped, cut out,
put in twice, overwritten by extreme numbers. What it reads must keep the reader's promise; what it
refuses it refuses with an error of doubtmap's, in one line; it takes no longer than `LIMIT`.
Anything else fails: hypothesis shrinks it and shows it.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import numpy as np
import safetensors.numpy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import record  # noqa: E402
import test_damaged_files as fitted  # noqa: E402

import doubtmap as dm  # noqa: E402
from doubtmap.datasets.description import LABEL_MAP, parsed_description, read_description  # noqa: E402
from doubtmap.datasets.reading import read_image, read_label, read_size  # noqa: E402
from doubtmap.engine.journal import Journal  # noqa: E402
from doubtmap.errors import DoubtmapError  # noqa: E402
from doubtmap.evaluation.results import read_results  # noqa: E402
from doubtmap.models.folders import read_description as read_network  # noqa: E402
from doubtmap.models.saved import SavedPredictions  # noqa: E402
from doubtmap.objects.georeference import read_georeference  # noqa: E402
from doubtmap.prediction import showing  # noqa: E402
from doubtmap.reports.maps import read_map, read_scale, write_classes, write_map  # noqa: E402
from doubtmap.scores.parsing import parse_scores  # noqa: E402

LIMIT = 20
"""Seconds that one input may take; the machine may be busy."""
EXTREMES = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"NaN")
WORDS = (b"nan", b"inf", b"-1", b"1e999", b"\n", b"\0", b"[", b"{", b'"', b"null", b"9" * 30)

KEPT = Path(tempfile.gettempdir(), "doubtmap-fuzz")
"""Where inputs stay at which something failed."""

Damage = tuple[str, float, int]
damages = st.lists(
    st.tuples(
        st.sampled_from(("flip", "set", "cut", "drop", "twice", "extreme", "word")),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, done: list[Damage]) -> bytes:
    """The content with each damage done to it in turn."""
    data = bytearray(content)
    for how, where, what in done:
        at = int(where * max(1, len(data)))
        if how == "flip" and data:
            data[at] ^= 1 << what % 8
        elif how == "set" and data:
            data[at] = what
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + what]
        elif how == "twice":
            data[at:at] = data[at : at + what]
        elif how == "extreme":
            data[at : at + 4] = EXTREMES[what % len(EXTREMES)]
        elif how == "word":
            data[at:at] = WORDS[what % len(WORDS)]
    return bytes(data)


@dataclass(frozen=True)
class Reader:
    """What is fed.

    Args:
        use: reads a file and checks what it promises.
        seeds: whole contents.
        file: the name that the file must have.
    """

    use: Callable[[Path], object]
    seeds: list[bytes]
    file: str = "input"


@dataclass
class Tried:
    """What came of one reader's inputs."""

    name: str
    counts: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def row(self) -> dict:
        """For the results."""
        keys = ("tried", "read", "refused")
        return {"name": self.name, **{key: self.counts[key] for key in keys}} | {
            "failed": len(self.failures)
        }


@contextmanager
def in_time() -> Iterator[None]:
    """Raise where the block takes longer than it may."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took longer than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(reader: Reader, path: Path, counts: Counter) -> None:
    """Feed one file; anything but reading or refusing it raises."""
    counts["tried"] += 1
    try:
        with warnings.catch_warnings(), in_time():
            warnings.simplefilter("ignore")
            reader.use(path)
    except DoubtmapError as error:
        assert "\n" not in str(error).strip(), f"more than a line: {error}"
        assert len(str(error)) < 2000, f"no sentence: {str(error)[:200]}"
        counts["refused"] += 1
    else:
        counts["read"] += 1


def feed(name: str, reader: Reader, count: int, seed: int, folder: Path) -> Tried:
    """Damage the seeds of a reader `count` times."""
    tried, path = Tried(name), folder / reader.file
    for content in reader.seeds:
        path.write_bytes(content)
        attempt(reader, path, tried.counts)
    assert tried.counts["read"], f"{name}: no whole file is read"

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(st.integers(0, len(reader.seeds) - 1), damages)
    def run(which: int, done: list[Damage]) -> None:
        path.write_bytes(damaged(reader.seeds[which], done))
        attempt(reader, path, tried.counts)

    try:
        run()
    except Exception as error:
        kept = KEPT / name.replace(" ", "-")
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(path.read_bytes())
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        tried.failures.append(f"{type(error).__name__} at {where}: {str(error)[:300]} ({kept})")
    return tried


def encoded(image: Image.Image, kind: str, **more: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def pictures() -> list[bytes]:
    """Images of every kind that is read."""
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    grey = Image.fromarray(random.integers(0, 4, (12, 16), np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (12, 16)).astype(np.uint16))
    real = Image.fromarray(random.random((12, 16), np.float32))
    turned = Image.Exif()
    turned[274] = 6
    return [
        *(encoded(each, "PNG") for each in (rgb, grey, deep, grey.convert("1"), grey.convert("P"))),
        *(encoded(each, "PNG") for each in (rgb.convert("RGBA"), grey.convert("LA"))),
        encoded(rgb, "JPEG", exif=turned),
        encoded(rgb, "JPEG", progressive=True),
        encoded(rgb.convert("CMYK"), "JPEG"),
        *(encoded(each, "TIFF") for each in (rgb, grey, deep, real)),
        *(encoded(rgb, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_deflate", "jpeg")),
        encoded(rgb, "WEBP"),
        encoded(rgb, "BMP"),
        encoded(rgb, "GIF"),
        encoded(rgb, "PPM"),
    ]


def see_image(path: Path) -> None:
    """An image is whole, and has the size that its header says."""
    image = read_image(path)
    assert image.dtype.itemsize == 1 and image.ndim == 3 and image.shape[0] == 3, image.shape
    assert image.numel() and tuple(image.shape[1:]) == read_size(path)


def see_label(path: Path) -> None:
    assert read_label(path).size


def see_map(path: Path) -> None:
    values = read_map(path)
    assert values.ndim == 2 and values.size and np.isfinite(values).all()
    if path.read_bytes().startswith(b"\x89PNG"):
        read_scale(path)


def maps(folder: Path) -> list[bytes]:
    """A doubt map in each format."""
    values, contents = np.random.default_rng(0).random((9, 11), np.float32), []
    for kind in ("png", "npy", "tiff", "safetensors"):
        write_map(folder / "map", values, kind, "entropy")
        contents.append((folder / "map").read_bytes())
    return contents


def see_saved(path: Path) -> None:
    """A saved prediction becomes finite logits, or is refused."""
    import torch

    segmenter = SavedPredictions(path.parent, ("a", "b", "c"))
    with showing("input.png"):
        assert torch.isfinite(segmenter(torch.zeros(1, 3, 6, 8)).logits).all()


def saved(kind: str) -> list[bytes]:
    values, stream = (
        np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32),
        io.BytesIO(),
    )
    if kind == "safetensors":
        return [safetensors.numpy.save({"logits": values})]
    if kind == "npy":
        np.save(stream, values)
    else:
        np.savez(stream, logits=values)
    return [stream.getvalue()]


def see_journal(path: Path) -> None:
    """A journal gives whole records, the first of those that were written."""
    work = path.parent / "run"
    work.mkdir(exist_ok=True)
    (work / "settings.json").write_text("{}")
    (work / "journal").write_bytes(path.read_bytes())
    journal = Journal(work, {}, resume=True)
    try:
        found = list(journal.records())
    finally:
        journal.close()
    assert all(each in RECORDS for each in found), "a record that nobody wrote"


RECORDS = [bytes([at]) * (30 + at) for at in range(5)]


def journal(folder: Path) -> list[bytes]:
    made = Journal(folder / "made", {}, resume=False)
    for each in RECORDS:
        made.append(each)
    made.close()
    return [(folder / "made" / "journal").read_bytes()]


TOML = b"""images = "images/{split}/{frame}.png"
labels = ["labels/{split}/{frame}.png", "labels/{stem}.png"]
name = "yard"
void = [255, 7]
other = "void"
range = [0, 4095]
split = "train"
[classes]
grass = 0
stone = [1, 2]
water = "#0a0b0c"
[splits.train]
frame = ["a*", "b*"]
"""


def text_of(use: Callable[[str], object]) -> Callable[[Path], object]:
    return lambda path: use(path.read_bytes().decode("utf-8", "replace"))


def typed(use: Callable[[str], object]) -> Callable[[Path], object]:
    """What is typed is one line; a sentence that names it is then one, too."""
    return text_of(lambda text: use(" ".join(text.split())))


def readers(folder: Path) -> dict[str, Reader]:
    """All that is fed, by name."""
    classes = np.arange(12).reshape(3, 4) % 3
    write_classes(folder / "classes", classes, ("a", "b", "c"))
    found = {
        "images": Reader(see_image, pictures()),
        "labels": Reader(see_label, [*pictures(), (folder / "classes").read_bytes()]),
        "maps": Reader(see_map, maps(folder)),
        "georeferences": Reader(read_georeference, pictures()[10:14]),
        "world files": Reader(
            lambda path: read_georeference(path.with_suffix(".png")),
            [b"0.5\n0\n0\n-0.5\n100\n200\n"],
            "world.pgw",
        ),
        "doubtmap.toml": Reader(
            text_of(lambda text: parsed_description(text, folder)),
            [TOML],
        ),
        "label maps": Reader(
            lambda path: read_description(path.parent),
            [b"# label:color_rgb:parts:actions\nsky:1,2,3::\nroad:4,5,6::\n"],
            LABEL_MAP,
        ),
        "doubtmap.json": Reader(
            lambda path: read_network(path.parent),
            [
                b'{"network": "demo", "class_names": ["a", "b"], "mean": [0, 0, 0], '
                b'"std": [1, 1, 1], "recipe": "plain", "doubtmap": "0.1.0"}'
            ],
            "doubtmap.json",
        ),
        "results.json": Reader(read_results, [json.dumps({"seed": 0, "scores": {}}).encode()]),
        "journals": Reader(see_journal, journal(folder)),
        "scores, as typed": Reader(
            typed(parse_scores),
            [b"entropy,gradient(p=1,label=uniform),margin", b"energy,max_logit,divergence"],
        ),
        "data, as typed": Reader(typed(dm.open_dataset), [b"synthetic:3"]),
    }
    for kind in ("npy", "npz", "safetensors"):
        found[f"saved predictions, {kind}"] = Reader(see_saved, saved(kind), f"input.{kind}")
    for form in fitted.FORMS:
        place = folder / "fitted" / form
        place.mkdir(parents=True)
        path, load = fitted.written(form, place)
        found[f"fitted: {form}"] = Reader(
            see_fitted(load, path.read_bytes()), [path.read_bytes()], path.name
        )
    return found


def see_fitted(load: Callable[[Path], object], whole: bytes) -> Callable[[Path], object]:
    """What was fitted is read as it was written, or not at all."""

    def see(path: Path) -> None:
        load(path)
        # A threshold is JSON, made to be read and changed by hand; all others hold a digest.
        assert whole.startswith(b"{") or path.read_bytes() == whole, "a damaged file is read"

    return see


def campaign(count: int, seed: int, only: str = "") -> list[Tried]:
    """Feed every reader its share of inputs."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        folder = Path(place)
        chosen = {name: reader for name, reader in readers(folder).items() if name.startswith(only)}
        found = []
        for name, reader in chosen.items():
            inside = Path(tempfile.mkdtemp(dir=folder))
            if name == "world files":
                (inside / "world.png").write_bytes(pictures()[0])
            found.append(feed(name, reader, max(1, count // len(chosen)), seed, inside))
            yield found[-1]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--count", type=int, default=100_000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--only", default="")
    given_ = asked.parse_args()
    rows, bad, start = [], 0, time.monotonic()
    for tried in campaign(given_.count, given_.seed, given_.only):
        rows.append(tried.row())
        bad += len(tried.failures)
        print(tried.row(), *tried.failures, sep="\n  ", flush=True)
    if not given_.only:
        command = f"python tests/campaign/fuzz.py --count {given_.count} --seed {given_.seed}"
        record.write("fuzz", command, rows)
    print(
        f"{sum(row['tried'] for row in rows)} inputs, {bad} failures, "
        f"{time.monotonic() - start:.0f} s"
    )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
