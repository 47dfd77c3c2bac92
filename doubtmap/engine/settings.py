"""What a run was asked to do; only a run of the same settings goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from doubtmap.datasets import Pasted, fingerprints
from doubtmap.datasets.dataset import Dataset, with_bands
from doubtmap.datasets.fingerprints import beneath
from doubtmap.datasets.pasting import Part
from doubtmap.errors import DataError, UsageError
from doubtmap.files import Origin
from doubtmap.prediction import Score, Segmenter, digest_of
from doubtmap.version import __version__

MODEL_KEYS = (
    *("source", "sha256", "input_size", "mean", "std", "channels", "bands", "asked"),
    *("calibrator", "dropout", "windows"),
)
"""Of a segmenter's description: what is known before the first image and changes what it says."""


def model_settings(segmenter: Segmenter) -> dict[str, Any]:
    """What a network's predictions depend on, as far as can be told."""
    known = _known(segmenter.description)
    return {"doubtmap": __version__, "model": known, "class_names": list(segmenter.class_names)}


def bands_needed(segmenter: Segmenter) -> int:
    """How many bands a network's images must have; 0 for one that takes RGB or grey."""
    about = segmenter.description
    members = about.get("members")
    return max(map(_bands, members if isinstance(members, list) else [about]))


def _bands(about: Mapping[str, object]) -> int:
    bands, mean = about.get("bands"), about.get("mean")
    if isinstance(bands, list) and bands:
        return int(max(bands))
    return len(mean) if isinstance(mean, list) and len(mean) not in (1, 3) else 0


def with_bands_of(segmenter: Segmenter, dataset: Dataset) -> Dataset:
    """The data set with all the bands that a network takes."""
    return with_bands(dataset, bands_needed(segmenter))


def _known(about: Mapping[str, object]) -> dict[str, Any]:
    known: dict[str, Any] = {key: about.get(key) for key in MODEL_KEYS}
    members = about.get("members")
    if isinstance(members, list):
        known["members"] = [_known(member) for member in members]
    return known


def origin_of(
    segmenter: Segmenter,
    dataset: Dataset,
    fingerprint: Tensor,
    command: str = "",
    indices: Iterable[int] | None = None,
    **facts: Any,
) -> Origin:
    """Where something comes from that was fitted to a network's predictions of a data set.

    Args:
        segmenter: the network.
        dataset: whose images it has seen.
        fingerprint: `(D,)`, see `Origin`.
        command: how it was made.
        indices: which of the images; default: all.
        facts: what else a reader should know; JSON values.
    """
    return Origin(
        data=dataset.name,
        images=fingerprints(dataset, indices),
        class_names=segmenter.class_names,
        facts=facts,
        command=command,
        network=_known(segmenter.description),
        fingerprint=tuple(fingerprint.tolist()),
    )


def score_settings(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Which scores were asked for; those that learnt from data by what they learnt."""
    digests = {name: digest_of(score) for name, score in scores.items()}
    return {"scores": list(scores), "fitted": {n: d for n, d in digests.items() if d}}


def data_settings(dataset: Dataset) -> dict[str, Any]:
    """Which images a data set has, in which order."""
    names = "\n".join(dataset.sample_name(index) for index in range(len(dataset)))
    whole = dataset.dataset if isinstance(dataset, Part) else dataset
    drawn = {"pasted": whole.settings} if isinstance(whole, Pasted) else {}
    files = getattr(beneath(dataset), "files", None)
    return {
        "data": dataset.name,
        "folder": str(Path(files[0][0]).resolve().parent) if files else None,
        "images": hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest(),
        "labels": list(dataset.class_names),
    } | drawn


def hold_to(path: Path, settings: dict[str, Any]) -> None:
    """Write settings, or compare them with those that were written.

    Raises:
        UsageError: for other settings than those of the run that is there.
        DataError: for a file that cannot be read or written.
    """
    text = json.dumps(settings, sort_keys=True, indent=1, default=str)
    try:
        if not path.exists():
            path.write_text(text)
            return
        before, after = json.loads(path.read_text()), json.loads(text)
        if not isinstance(before, dict):
            raise TypeError("it is no table")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be used ({error}). Remove it to start anew.") from error
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    if changed:
        raise UsageError(
            f"resume: expected the settings of the run in {path.parent}, but "
            f"{', '.join(changed)} differ. Use the same settings, or another --out."
        )
