"""What a run was asked to do, and hashes of what its figures depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from doubtmap.datasets import Pasted, fingerprints
from doubtmap.datasets.dataset import Dataset, with_bands
from doubtmap.datasets.fingerprints import beneath, file_marks, labels_meant
from doubtmap.datasets.pasting import Part
from doubtmap.files import Origin
from doubtmap.files.python import code_of
from doubtmap.prediction import Score, Segmenter, digest_of
from doubtmap.version import __version__

MODEL_KEYS = (
    *("source", "sha256", "input_size", "mean", "std", "channels", "bands", "asked"),
    *("calibrator", "dropout", "views", "windows"),
)
"""Of a segmenter's description: what is known before the first image and changes what it says."""


def model_settings(segmenter: Segmenter) -> dict[str, Any]:
    """What a network's predictions depend on, as far as can be told."""
    known = _known(segmenter.description) | dict(getattr(segmenter, "content", None) or {})
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
    digests = {name: digest_of(score) or code_of_function(score) for name, score in scores.items()}
    return {"scores": list(scores), "fitted": {n: d for n, d in digests.items() if d}}


def data_settings(dataset: Dataset) -> dict[str, Any]:
    """Which images a data set has, in which order."""
    names = "\n".join(dataset.sample_name(index) for index in range(len(dataset)))
    whole = dataset.dataset if isinstance(dataset, Part) else dataset
    drawn = {"pasted": _pasted(whole)} if isinstance(whole, Pasted) else {}
    below = beneath(dataset)
    files = getattr(below, "files", None)
    first = files[0][0] if files and isinstance(files[0], tuple) else files and files[0]
    return {
        "data": dataset.name,
        "drawn": getattr(below, "settings", None),
        "folder": str(Path(first).resolve().parent) if first else None,
        "images": hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest(),
        "labels": list(dataset.class_names),
        "label values": labels_meant(dataset),
    } | drawn


def _pasted(dataset: Pasted) -> dict[str, object]:
    """What the draws depend on, with the photographs that objects are cut from."""
    files = dict.fromkeys(outline.image for outline in dataset.outlines.outlines)
    text = json.dumps(list(file_marks(files).values()))
    return dataset.settings | {"photographs": hashlib.sha256(text.encode()).hexdigest()}


def code_of_function(score: Score) -> str:
    """A hash of the file that a score of the user's own is written in; of doubtmap's own, none."""
    while isinstance(score, functools.partial):
        score = score.func
    made = score if hasattr(score, "__code__") else type(score)
    file = getattr(sys.modules.get(made.__module__), "__file__", None)
    if made.__module__.partition(".")[0] == "doubtmap" or not file or not Path(file).is_file():
        return ""
    return code_of(Path(file))
