"""The viewer in a browser: first paint with 10,000 and 100,000 images, and the threshold slider.

Writes `benchmarks/results/viewer.json`. The runs are drawn: hard links to a few pictures stand for
the images. Needs Playwright for Python and a Chromium (`--browser`); without a GPU, Chromium paints
in software, so that a reader's machine is hardly slower.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from stages import Row, Stage, Topic, run

from doubtmap.reports.maps import write_classes, write_map
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.version import __version__
from doubtmap.viewer import gather
from doubtmap.viewer.server import make_server

TOPIC = Topic(
    "viewer",
    "python benchmarks/viewer.py",
    ("stage", "set"),
    {"browser": "Chromium, headless, no GPU", "window": [1280, 800], "repeats": 5},
)
CLASSES = ("road", "sky", "vehicle")
PICTURES = 40
WATCH = """() => {
  window.marks = {};
  const watch = () => {
    const tiles = [...document.querySelectorAll(".tile img")];
    if (tiles.length && !marks.grid) marks.grid = performance.now();
    if (tiles.length && tiles.every((tile) => tile.complete)) marks.pictures = performance.now();
    else requestAnimationFrame(watch);
  };
  requestAnimationFrame(watch);
}"""
SLIDE = """async () => {
  const slider = document.getElementById("threshold"), count = 120;
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  const start = performance.now();
  for (let at = 0; at < count; at++) {
    slider.value = 100 + 6 * at;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await frame();
  }
  await frame();
  return (count + 1) / (performance.now() - start) * 1000;
}"""
SORT = """async () => {
  const start = performance.now(), box = document.getElementById("sort");
  box.value = "mean entropy";
  box.dispatchEvent(new Event("change", { bubbles: true }));
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
SCROLL = """async () => {
  const box = document.getElementById("grid"), count = 60;
  const start = performance.now();
  for (let at = 0; at < count; at++) {
    box.scrollTop = (box.scrollHeight / count) * at;
    await new Promise(requestAnimationFrame);
  }
  return count / (performance.now() - start) * 1000;
}"""


def drawn_run(folder: Path, images: int, size: tuple[int, int]) -> Path:
    """A run of `score` over so many images, the first of which has maps of a size."""
    pictures = folder / "pictures"
    pictures.mkdir()
    streets = SyntheticStreets(PICTURES, size=(360, 480))
    for at in range(PICTURES):
        Image.fromarray(streets[at].image.permute(1, 2, 0).numpy()).save(pictures / f"{at}.jpg")
    names = [f"street_{at:06}" for at in range(images)]
    for at, name in enumerate(names):
        os.link(pictures / f"{at % PICTURES}.jpg", folder / f"{name}.jpg")
    rng = np.random.default_rng(0)
    run = folder / "run"
    for part in ("classes", "entropy"):
        (run / part).mkdir(parents=True)
    smooth = Image.fromarray(rng.random((32, 64), np.float32)).resize(size[::-1])
    doubt = np.clip(np.asarray(smooth) + 0.1 * rng.random(size, np.float32), 0, 1.0986)
    write_map(run / "entropy" / f"{names[0]}.png", doubt, "png", "entropy", scale=(0, 1.0986))
    classes = (3 * np.clip(np.asarray(smooth), 0, 0.99)).astype(np.int64)
    write_classes(run / "classes" / f"{names[0]}.png", classes, CLASSES)
    about = {
        "doubtmap": __version__,
        "directory": str(folder),
        "model": {"name": "drawn"},
        "class_names": CLASSES,
        "folders": {"entropy": "entropy"},
        "scales": {"entropy": [0, 1.0986]},
        "images": {name: f"{name}.jpg" for name in names},
    }
    (run / "score.json").write_text(json.dumps(about))
    columns = ["mean entropy", "highest entropy", *(f"share {name}" for name in CLASSES)]
    figures = rng.random((images, len(columns)))
    lines = [",".join(["image", *columns])]
    lines += [f"{name}.jpg," + ",".join(f"{v:.6g}" for v in f) for name, f in zip(names, figures)]
    (run / "images.csv").write_text("\n".join(lines) + "\n")
    return run


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of the page over a run."""
    server, address = make_server(gather([run]))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


@contextmanager
def page_of(given: Namespace) -> Iterator[Any]:
    """What opens new pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=given.browser, args=["--no-sandbox", "--disable-gpu"]
        )
        yield lambda: browser.new_page(viewport={"width": 1280, "height": 800}, bypass_csp=True)
        browser.close()


def paint(given: Namespace) -> Iterator[Row]:
    """Milliseconds until the grid stands, and until all pictures in sight are there."""
    for images in given.images:
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            drawn = drawn_run(Path(folder), images, (64, 128))
            start = time.perf_counter()
            gather([drawn])
            opened = time.perf_counter() - start
            with served(drawn) as address, page_of(given) as new_page:
                marks = []
                for _ in range(TOPIC.conditions["repeats"]):
                    page = new_page()
                    page.add_init_script(f"({WATCH})()")
                    page.goto(address)
                    page.wait_for_function("window.marks.pictures")
                    marks.append(page.evaluate("marks"))
                    sort, frames = page.evaluate(SORT), page.evaluate(SCROLL)
                    heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
                    page.close()
            middle = {key: float(np.median([m[key] for m in marks])) for key in marks[0]}
            yield {
                **{"name": "first paint", "set": f"{images} images", "stage": "paint"},
                "open_ms": 1000 * opened,
                **{f"{key}_ms": value for key, value in middle.items()},
                "cold_pictures_ms": marks[0]["pictures"],
                "sort_ms": sort,
                "scroll_frames_per_second": frames,
                "browser_megabytes": heap,
                "server_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }


def slider(given: Namespace) -> Iterator[Row]:
    """Frames a second while the threshold is moved over a doubt map."""
    for size in ((1024, 2048), (2160, 3840)):
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            drawn = drawn_run(Path(folder), PICTURES, size)
            with served(drawn) as address, page_of(given) as new_page:
                page = new_page()
                page.goto(f"{address}#image=street_000000&layer=doubt:entropy")
                page.wait_for_selector("body[data-shown]")
                frames = [page.evaluate(SLIDE) for _ in range(TOPIC.conditions["repeats"])]
        yield {
            **{"name": "threshold slider", "set": f"{size[0]} x {size[1]}", "stage": "slider"},
            "frames_per_second": float(np.median(frames)),
            "frames_per_second_lowest": min(frames),
        }


STAGES = {"paint": Stage(TOPIC, paint), "slider": Stage(TOPIC, slider)}


OPTIONS = {
    "--browser": {"default": "/usr/bin/chromium", "help": "its program"},
    "--images": {"type": int, "nargs": "+", "default": [10_000, 100_000], "help": "of `paint`"},
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
