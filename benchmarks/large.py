"""Images that are too large for one pass: megapixels a second, and the memory that they take.

    python benchmarks/large.py                      # all of it
    python benchmarks/large.py --stages memory --side 32768

`mosaic` lays the tiles of `dubai_aerial` side by side into one georeferenced raster of more than
100 megapixels and scores it with `camvid9` (which learnt streets: what counts here is time, not
what it says). In turns, a process each: the network alone over the same windows, `doubtmap score`
without and with what looks about, and MONAI's `sliding_window_inference` where it is installed.
`memory` scores a raster that is made on the fly with a network of two small convolutions, so that
reading, blending and writing are what is measured.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from stages import Row, Stage, Topic, run
from torch import nn

import doubtmap as dm
from doubtmap.scenes import write_scenes
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows import OVERLAP, TILE, Windows

LARGE = Topic(
    "large",
    "python benchmarks/large.py",
    conditions={"tile": TILE, "overlap": OVERLAP, "place": "EPSG:32640, half a metre a pixel"},
)
ROWS, COLUMNS = 8192, 12800


def profile(height: int, width: int) -> dict[str, object]:
    """Of a raster of colours."""
    import rasterio

    return {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32640",
        "transform": rasterio.Affine(0.5, 0, 320000, 0, -0.5, 2790000),
        "tiled": True,
        "compress": "deflate",
        "photometric": "RGB",
    }


def mosaic(tiles: Path, to: Path) -> Path:
    """The tiles of a folder side by side, again from the first when all are laid."""
    import rasterio

    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(tiles.iterdir())]
    height, width = min(i.shape[0] for i in images), min(i.shape[1] for i in images)
    count = 0
    with rasterio.open(to, "w", **profile(ROWS, COLUMNS)) as target:
        for top in range(0, ROWS, height):
            for left in range(0, COLUMNS, width):
                tile = images[count % len(images)][: ROWS - top, : COLUMNS - left]
                tile = tile[:height, :width]
                place = (top, top + tile.shape[0]), (left, left + tile.shape[1])
                target.write(tile.transpose(2, 0, 1), window=place)
                count += 1
    return to


def drawn(side: int, to: Path) -> Path:
    """Squares of colour, made row by row."""
    import rasterio

    chance = np.random.default_rng(0)
    with rasterio.open(to, "w", **profile(side, side), bigtiff="yes") as target:
        for top in range(0, side, 512):
            height = min(512, side - top)
            coarse = chance.integers(0, 255, (3, -(-height // 64), -(-side // 64)), dtype=np.uint8)
            pixels = coarse.repeat(64, 1).repeat(64, 2)[:, :height, :side]
            target.write(pixels, window=((top, top + height), (0, side)))
    return to


class Small(nn.Module):
    """Stride 4, so light that everything else counts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 4, stride=4)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, 4, H, W)`."""
        y = self.head(self.body(x).relu())
        return nn.functional.interpolate(y, x.shape[-2:], mode="bilinear")


def opened(model: str) -> dm.Segmenter:
    """A folder, or `small`."""
    if model != "small":
        return dm.load(model)
    torch.manual_seed(0)
    return dm.load(Small(), classes=["a", "b", "c", "d"], mean=[0, 0, 0], std=[1, 1, 1])


def network_alone(model: str, image: Path, out: Path) -> None:
    """Every window through the network, and nothing kept."""
    import rasterio

    windows = Windows(opened(model))
    with rasterio.open(image) as source:
        for rows, columns in windows.places(source.height, source.width):
            place = (rows.start, rows.stop), (columns.start, columns.stop)
            windows.segmenter(torch.from_numpy(source.read(window=place))[None])


def scored(scores: str) -> Callable[[str, Path, Path], None]:
    """`doubtmap score` with these scores."""

    def work(model: str, image: Path, out: Path) -> None:
        write_scenes(Windows(opened(model)), [image], parse_scores(scores), out)

    return work


def monai(model: str, image: Path, out: Path) -> None:
    """Blended logits of the whole image, and their largest."""
    import rasterio
    from monai.inferers import sliding_window_inference

    segmenter = opened(model)
    with rasterio.open(image) as source:
        pixels = torch.from_numpy(source.read())[None] / 255
    logits = sliding_window_inference(
        pixels,
        (TILE, TILE),
        1,
        lambda x: segmenter(x).logits,
        overlap=OVERLAP / TILE,
        mode="gaussian",
    )
    np.save(out / "classes.npy", logits.argmax(1).numpy().astype(np.uint8))


WAYS: dict[str, Callable[[str, Path, Path], None]] = {
    "network alone": network_alone,
    "score entropy": scored("entropy"),
    "score entropy,max_softmax,energy": scored("entropy,max_softmax,energy"),
    "score doubt": scored("doubt"),
    "MONAI sliding_window_inference": monai,
}


def in_a_process(way: str, model: str, image: Path, given: Namespace) -> Row:
    """Seconds and peak memory of one way, by itself."""
    words = [sys.executable, __file__, "--way", way, "--model", model, "--image", str(image)]
    done = subprocess.run(
        [*words, "--work", str(given.work)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        return {"name": way, "not run": reason}
    wall, processor, memory = map(float, done.stdout.split()[-3:])
    return {
        "name": way,
        "seconds": wall,
        "processor seconds": processor,
        "peak GB": memory,
    }


def rated(rows: list[Row], pixels: int) -> list[Row]:
    """With megapixels a second, and times the network alone."""
    base = rows[0]
    for row in rows:
        if "seconds" in row:
            row["megapixels"] = pixels / 1e6
            row["megapixels a second"] = pixels / 1e6 / row["seconds"]
            row["x network"] = row["seconds"] / base["seconds"]
            row["x network, processor"] = row["processor seconds"] / base["processor seconds"]
    return rows


def of_mosaic(given: Namespace) -> list[Row]:
    """A city from the air."""
    image = mosaic(given.shared / "data/dubai_aerial/images", given.work / "mosaic.tif")
    model = str(given.shared / "models/camvid9")
    given.conditions["mosaic"] = f"{ROWS} x {COLUMNS} pixels, camvid9, one run each"
    rows = [in_a_process(way, model, image, given) for way in WAYS]
    return [{"set": "mosaic"} | row for row in rated(rows, ROWS * COLUMNS)]


def of_memory(given: Namespace) -> list[Row]:
    """Everything but the network."""
    image = drawn(given.side, given.work / "drawn.tif")
    rows = [in_a_process(way, "small", image, given) for way in list(WAYS)[:2]]
    return [{"set": f"{given.side} squared"} | row for row in rated(rows, given.side**2)]


def one(given: Namespace) -> list[Row]:
    """What a process of its own does."""
    out = given.work / "out"
    out.mkdir(parents=True, exist_ok=True)
    wall, processor = time.perf_counter(), time.process_time()
    WAYS[given.way](given.model, Path(given.image), out)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(wall, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
    return []


STAGES = {
    "mosaic": Stage(LARGE, of_mosaic, threads=None),
    "memory": Stage(LARGE, of_memory, threads=None),
    "one": Stage(LARGE, one, threads=None),
}
OPTIONS = {
    "--side": {"type": int, "default": 32768, "help": "pixels, of the raster made on the fly"},
    "--way": {"default": "", "help": "of the stage `one`"},
    "--model": {"default": "", "help": "of the stage `one`"},
    "--image": {"default": "", "help": "of the stage `one`"},
}

if __name__ == "__main__":
    if "--way" in sys.argv:
        sys.argv += ["--stages", "one"]
    run(__doc__, STAGES, OPTIONS, "mosaic,memory")
