"""What lies at each address of the page, for the server and for a folder of files alike.

Addresses hold numbers alone, never names or paths: nothing can be asked for that a run lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from doubtmap.errors import DoubtmapError
from doubtmap.files import utf8
from doubtmap.objects import outlines
from doubtmap.viewer.gathering import Gathered
from doubtmap.viewer.pixels import map_bytes, photograph_bytes, thumbnail_bytes

POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
)
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "bin": "application/octet-stream",
}
"""Of contents, by the suffix of their addresses."""
SCRIPTS = (
    *("main.js", "state.js", "columns.js", "grid.js", "panes.js", "pixels.js", "side.js"),
    *("verdicts.js", "elements.js"),
)
_ADDRESS = re.compile(r"(thumbs|images|maps|objects)((?:/\d{1,9}){1,3})\.(jpg|bin|json)")


def page_files() -> dict[str, bytes]:
    """The page itself, its style and its scripts, by their addresses."""
    own = resources.files("doubtmap.viewer").joinpath("page")
    colours = resources.files("doubtmap.reports").joinpath("chart.css").read_bytes()
    return {
        "index.html": own.joinpath("index.html").read_bytes(),
        "icon.svg": own.joinpath("icon.svg").read_bytes(),
        "view.css": colours + own.joinpath("view.css").read_bytes(),
        **{name: own.joinpath(name).read_bytes() for name in SCRIPTS},
    }


def image_content(gathered: Gathered, address: str) -> bytes | None:
    """What lies at an address below `thumbs`, `images`, `maps` and `objects`; None for nothing.

    Args:
        gathered: the runs.
        address: such as `thumbs/12.jpg`, or `maps/RUN/LAYER/IMAGE.bin`.

    Raises:
        DataError: for a file that cannot be read.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    kind, numbers = match[1], [int(part) for part in match[2][1:].split("/")]
    image = numbers[-1]
    if image >= len(gathered.names):
        return None
    if kind in ("thumbs", "images") and len(numbers) == 1:
        run, place = gathered.found(image)
        return thumbnail_bytes(run, place) if kind == "thumbs" else photograph_bytes(run, place)
    if numbers[0] >= len(gathered.runs):
        return None
    run, place = gathered.runs[numbers[0]], gathered.places[numbers[0]][image]
    if place < 0:
        return None
    if kind == "maps" and len(numbers) == 3 and numbers[1] < len(run.layers):
        return map_bytes(run, run.layers[numbers[1]].key, place)
    if kind == "objects" and len(numbers) == 2:
        drawn = [_drawn(each) for each in run.objects.get(place, [])]
        return utf8(json.dumps({"size": run.sizes.get(place), "objects": drawn}))
    return None


def _drawn(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """An object as the page draws it: lines along its edges, those of holes too."""
    shape, (left, top, width, height) = annotation["segmentation"], annotation["bbox"]
    lines = shape
    if isinstance(shape, dict):
        rows = shape["size"][0]
        ends = np.cumsum(np.array(shape["counts"], np.int64))  # down the columns, one by one
        inside = np.clip(ends, left * rows, (left + width) * rows) - left * rows
        on = np.repeat(np.arange(len(ends)) % 2 == 1, np.diff(inside, prepend=0))
        columns = np.zeros(width * rows, bool)
        columns[: len(on)] = on
        mask = columns.reshape(width, rows).T[top : top + height]
        found = outlines(mask, (left, top))
        lines = [line[:-1].reshape(-1).tolist() for p in found for line in (p.outer, *p.holes)]
    told = {word: annotation.get(word) for word in ("predicted_class", "area", "score")}
    labelled = annotation.get("labelled_class")  # of wrong labels
    return {"lines": lines, **told} | ({"labelled_class": labelled} if labelled else {})


def addresses(gathered: Gathered, image: int) -> list[str]:
    """All that there is of one image; whether it can be read is not looked at."""
    found = [f"thumbs/{image}.jpg", f"images/{image}.jpg"]
    for at, (run, places) in enumerate(zip(gathered.runs, gathered.places)):
        if places[image] >= 0:
            found += [f"maps/{at}/{layer}/{image}.bin" for layer in range(len(run.layers))]
            found += [f"objects/{at}/{image}.json"] if run.objects else []
    return found


def index_content(gathered: Gathered, kept: str) -> bytes:
    """The index as JSON."""
    text = json.dumps(gathered.index(kept), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def readable(gathered: Gathered, address: str) -> bytes | str:
    """What lies at an address, or the sentence why it cannot be had, such as what to install."""
    try:
        content = image_content(gathered, address)
    except DoubtmapError as error:
        return str(error)
    return f"{address}: there is nothing of that name." if content is None else content
