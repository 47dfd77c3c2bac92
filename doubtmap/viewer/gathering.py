"""Several runs as one index: whose images are whose, what the table says, what can be shown."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doubtmap.engine.splitting import named_sequences
from doubtmap.errors import UsageError
from doubtmap.reports.colours import CODE_COLOURS, CODE_NAMES, class_colours, ramp
from doubtmap.version import __version__
from doubtmap.viewer.run import Run, Value
from doubtmap.viewer.runs import open_run

LETTERS = "ABCDEFGH"
"""What the runs are called, of which so many are shown at most."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Runs, and the images of all of them.

    Args:
        runs: as they were given.
        names: of the images, unique.
        places: for each run, the place of every image in it, or -1.
    """

    runs: list[Run]
    names: list[str]
    places: list[list[int]]

    def found(self, image: int) -> tuple[Run, int]:
        """The first run that has an image, and its place there."""
        return next((r, p[image]) for r, p in zip(self.runs, self.places) if p[image] >= 0)

    def file(self, image: int) -> str:
        """Where an image lies; empty where it lies in no file."""
        run, place = self.found(image)
        return str(run.files[place] or "")

    def index(self, kept: str) -> dict[str, Any]:
        """What the page reads first.

        Args:
            kept: where verdicts are kept, `server` or `browser`.
        """
        return {
            "doubtmap": __version__,
            "kept": kept,
            "names": self.names,
            "columns": self._columns(),
            "runs": [self._run(run, places) for run, places in zip(self.runs, self.places)],
            "ramp": ["#" + bytes(colour).hex() for colour in ramp()],
            "codes": {
                str(code): [name, "#" + bytes(CODE_COLOURS[code]).hex()]
                for code, name in CODE_NAMES.items()
            },
        }

    def _run(self, run: Run, places: list[int]) -> dict[str, Any]:
        colours = class_colours(len(run.class_names), run.class_names)
        return {
            "title": run.title,
            "folder": run.folder.resolve().name,
            "kind": run.kind,
            "notes": list(run.notes),
            "classes": list(run.class_names),
            "colours": ["#" + bytes(colour).hex() for colour in colours],
            "layers": [
                {"key": layer.key, "scale": layer.scale, "thresholds": dict(layer.thresholds)}
                for layer in run.layers
            ],
            "objects": bool(run.objects),
            "places": None if places == list(range(len(places))) else places,
        }

    def _columns(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        sequences = self._sequences()
        if sequences is not None:
            found.append({"title": "sequence", "values": sequences})
        shared = _shared(self.runs)
        for letter, run, places in zip(LETTERS, self.runs, self.places):
            for title, values in run.table.items():
                own = [_short(values[place]) if place >= 0 else None for place in places]
                name = f"{title} ({letter})" if title in shared else title
                found.append({"title": name, "values": own})
        by_title = {column["title"]: column["values"] for column in found}
        for title in shared if len(self.runs) == 2 else ():
            change = [*map(_minus, by_title[f"{title} (A)"], by_title[f"{title} (B)"])]
            if any(value is not None for value in change):
                found.append({"title": f"{title}: B - A", "values": change})
        return found

    def _sequences(self) -> list[str] | None:
        """Of each image, what its sequence is called; None where that tells nothing."""
        called = [""] * len(self.names)
        for name, images in named_sequences(self.names).items():
            for image in images:
                called[image] = name
        return called if any(called) else None


def gather(folders: Sequence[str | Path]) -> Gathered:
    """Open runs and find the images that they have in common: of one file, else of one name.

    Args:
        folders: of the runs.

    Raises:
        UsageError: for no run, or more than the page can show.
        DataError: for a run that cannot be shown.
    """
    if not 1 <= len(folders) <= len(LETTERS):
        raise UsageError(f"view: expected 1 to {len(LETTERS)} runs, got {len(folders)}.")
    runs = [open_run(folder) for folder in folders]
    resolved = functools.cache(os.path.realpath)
    where: dict[str, int] = {}
    names: list[str] = []
    places: list[list[int]] = [[] for _ in runs]
    for run, own in zip(runs, places):
        for place, (name, file) in enumerate(zip(run.names, run.files)):
            # the folder alone is resolved: of 100,000 files each would take its time
            key = name if file is None else f"{resolved(file.parent)}/{file.name}"
            if key not in where:
                where[key] = len(names)
                names.append(_shown(name, file, run))
                for each in places:
                    each.append(-1)
            own[where[key]] = place
    return Gathered(runs, _unique(names), places)


def _shown(name: str, file: Path | None, run: Run) -> str:
    """What an image is called: of runs of objects, which say paths, the end of it."""
    return file.stem if run.kind == "objects" and file is not None else name


def _unique(names: list[str]) -> list[str]:
    taken: set[str] = set()
    found = []
    for name in names:
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name} ({number})", number + 1
        taken.add(unique)
        found.append(unique)
    return found


def _shared(runs: Sequence[Run]) -> list[str]:
    """Titles of columns that several runs have."""
    titles = [title for run in runs for title in run.table]
    return [title for title in dict.fromkeys(titles) if titles.count(title) > 1]


def _short(value: Value) -> Value:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _minus(first: Value, second: Value) -> Value:
    if isinstance(first, str) or isinstance(second, str) or first is None or second is None:
        return None
    return _short(second - first)
