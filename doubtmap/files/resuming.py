"""The settings of a run on disk; only a run of the same settings goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from doubtmap.errors import DataError, UsageError
from doubtmap.files.writing import write_atomically

SAMPLES = "samples"
"""Of the settings on disk: what each image and its labels were when the run began."""


def hold_to(path: Path, settings: dict[str, Any]) -> None:
    """Write settings, or compare them with those that were written.

    Raises:
        UsageError: for other settings than those of the run that is there; what differs is named.
        DataError: for a file that cannot be read or written.
    """
    after = json.loads(json.dumps(settings, default=str))
    if not path.exists():
        _write(path, after)
        return
    changed = differing(_read(path), after)
    if changed:
        raise UsageError(
            f"resume: expected the settings of the run in {path.parent}, but "
            f"{', '.join(changed)} differ. Use the same settings, or another --out."
        )


def hold_samples(path: Path, marks: Mapping[str, str], done: Iterable[str]) -> None:
    """Compare the samples that are done with what they were, and note what all are now.

    Args:
        path: of the settings.
        marks: what each sample is made of now, see `sample_marks`.
        done: names of the samples that a run before has done.

    Raises:
        UsageError: for a sample whose image or labels have changed since.
        DataError: for a file that cannot be read or written.
    """
    settings = _read(path)
    before = settings.get(SAMPLES) or {}
    changed = [name for name in done if before.get(name) != marks.get(name)]
    if changed:
        raise UsageError(
            f"resume: expected the images and labels that the run in {path.parent} has seen, but "
            f"those of {listed(changed)} are others now. Put them back, or choose another --out."
        )
    _write(path, settings | {SAMPLES: before | dict(marks)})


TYPED = {
    "doubtmap": "version of doubtmap",
    "threads": "threads of PyTorch",
    "class_names": "--classes",
    **{f"model.{name}": f"--{name}" for name in ("mean", "std", "channels", "bands", "calibrator")},
    "model.input_size": "--input-size",
    "model.dropout": "--dropout-passes or --dropout-rate",
    **{f"model.dropout.{name}": f"--dropout-{name}" for name in ("passes", "rate")},
    "model.dropout.seed": "--seed",
    **dict.fromkeys(("model.views", "model.views.sides", "model.views.mirror"), "--views"),
    "model.windows": "--tile or --overlap",
    **{f"model.windows.{name}": f"--{name}" for name in ("tile", "overlap")},
    **{
        f"model.asked.{name}": f"--{name}"
        for name in ("classifier", "output", "activation", "resize", "divisor")
    },
    **{
        name: f"--{name}"
        for name in (
            *("scores", "unknown", "seed", "replicates", "bins", "maps", "format", "range"),
            *("probability", "simplify", "encoding", "crs", "to", "by", "diverse"),
        )
    },
    "cloud": "--format",
    "component_sizes": "--component-sizes",
    "thresholds": "--threshold",
    "open_set": "--open-set",
    "pasted": "--paste",
    "meta model": "--segments",
    "count": "--first or --budget",
    "rendering.range": "--range",
    **{f"rule.{name}": f"--{name}" for name in ("threshold", "smallest", "on")},
    "rule.smallest_share": "--smallest-share",
    "rule.fill_holes": "--fill-holes",
    "rule.on_share": "--on-share",
}
"""Settings by what a user typed of them, or would call them; those inside others after a point."""


def differing(before: Mapping[str, Any], after: Mapping[str, Any], within: str = "") -> list[str]:
    """Which settings differ, as the user typed them; of mappings, which of their entries.

    Args:
        before: settings.
        after: others.
        within: name of the setting that these are inside of.

    Example:
        >>> differing({"of": {"a": 1, "b": 2}, "seed": 0}, {"of": {"a": 2, "b": 2}, "seed": 9})
        ['of (a)', '--seed']
    """
    found: list[str] = []
    for key in sorted((before.keys() | after.keys()) - {SAMPLES}):
        old, new, path = before.get(key), after.get(key), f"{within}.{key}".lstrip(".")
        if old == new:
            continue
        name = TYPED.get(path, key)
        if isinstance(old, dict) and isinstance(new, dict):
            inner = differing(old, new, path)
            found += dict.fromkeys(each for each in inner if each.startswith("--"))
            inner = [each for each in inner if not each.startswith("--")]
            found += [f"{name} ({listed(inner)})"] if inner else []
        else:
            found.append(name)
    return found


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names, the first of many.

    Example:
        >>> listed(["a", "b", "c", "d"], 2)
        'a, b and 2 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be used ({error}). Remove it to start anew.") from error
    return found


def _write(path: Path, settings: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(settings, sort_keys=True, indent=1).encode())


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_files(paths: Iterable[Path]) -> str:
    """A short hash of the names and the bytes of files, in order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{path.name} {sha256_of(path)} ".encode(errors="surrogateescape"))
    return digest.hexdigest()
