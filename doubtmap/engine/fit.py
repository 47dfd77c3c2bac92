"""Fitting a score to a network and a data set, and holding scores to the network they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from doubtmap.atomic import check_place
from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.pairs import Pairs
from doubtmap.engine.run import Progress
from doubtmap.engine.settings import model_settings
from doubtmap.engine.splitting import split_images
from doubtmap.errors import ModelError, UsageError
from doubtmap.models.layers import before_activation
from doubtmap.models.network import NetworkSegmenter
from doubtmap.prediction import Prediction, Score, Segmenter, listening_to
from doubtmap.scores.density import Density
from doubtmap.scores.parsing import parse_fit, split_names
from doubtmap.scores.wrong import Wrong, open_scores

PROBE = (96, 128)
"""Height and width of the image by whose features a network is recognised."""


def fit_score(
    score: str,
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    scores: str = "",
    unknown: Sequence[str] = (),
    seed: int = 0,
    out: str | Path | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Density | Wrong:
    """Fit a score that learns from data, and write its file.

    Args:
        score: `wrong`, or as in `"density(certainty=0,covariance=tied)"`; `layer=auto` is the
            layer before the last activation where there is one, else what the classifier saw.
        segmenter: the network.
        dataset: labelled images; for `density` best those that it was trained on, for `wrong`
            those that it was not trained on.
        scores: what `wrong` is made of, as in `"entropy,margin,density:FILE"`.
        unknown: label classes that are unknown objects, of which `wrong` learns nothing.
        seed: of the sample of `wrong`.
        out: the file.
        command: what to write into the file as its origin.
        progress: told after each image.

    Returns:
        The fitted score.

    Raises:
        UsageError, DataError, ModelError: as the score's `fit`.
    """
    name, options = parse_fit(score)
    if name == "wrong":
        options |= {"scores": scores, "unknown": tuple(unknown), "seed": seed}
    elif scores or unknown:
        raise UsageError(
            f"fit: expected --scores and --unknown with wrong or segments only, got one with "
            f"{name}. Leave it out."
        )
    if out is not None:
        check_place(out)
    fitted = FITS[name](segmenter, dataset, options, progress)
    about = {
        **fitted.about,
        **model_settings(segmenter),
        "data": dataset.name,
        "command": command,
    }
    fitted = replace(fitted, about=about)
    if out is not None:
        fitted.save(out)
    return fitted


def _fit_density(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Density:
    layer = options.pop("layer", "auto")
    if layer == "auto":
        layer = before_last_activation(segmenter) or "classifier"
    wanted = () if layer == "classifier" else tuple(layer.split("+"))
    listening = listening_to(segmenter, wanted)
    fitted = Density.fit(Pairs(listening, dataset, progress=progress), layer=layer, **options)
    about = {**fitted.about, "seen": fingerprints(dataset)}
    return replace(fitted, fingerprint=_fingerprint(listening, fitted), about=about)


def _fit_wrong(
    segmenter: Segmenter, dataset: Dataset, options: dict[str, Any], progress: Progress | None
) -> Wrong:
    """Curves on one part of the images, calibration on the other, sequences undivided."""
    texts = split_names(options["scores"])
    if not texts:
        raise UsageError("wrong: expected scores to fuse. Give --scores entropy,margin, say.")
    listening = prepared(segmenter, dict(zip(texts, open_scores(texts))))
    if len(dataset) < 2:
        raise UsageError(
            f"wrong: expected at least 2 images, some for the curves and others for their "
            f"calibration, got {len(dataset)}. Fit on more."
        )
    parts = split_images([dataset.sample_name(index) for index in range(len(dataset))])
    pairs, others = (
        Pairs(listening, dataset, options["unknown"], part, stage, progress)
        for part, stage in zip(parts, ("curves", "calibrate"))
    )
    fitted = Wrong.fit(pairs, others, texts, seed=options["seed"])
    return replace(
        fitted,
        fingerprint=fingerprint_of(listening),
        about={
            **fitted.about,
            "unknown": list(options["unknown"]),
            "seen": list(dict.fromkeys([*fingerprints(dataset), *seen_by(fitted.scores)])),
        },
    )


Fit = Callable[[Segmenter, Dataset, dict[str, Any], Progress | None], Density | Wrong]
FITS: dict[str, Fit] = {"density": _fit_density, "wrong": _fit_wrong}
"""How each score that learns from data is fitted, by name."""


def prepared(segmenter: Segmenter, scores: Mapping[str, Score]) -> Segmenter:
    """The network with all that fitted scores need of it, once it is seen to be theirs.

    Raises:
        UsageError: for a network that cannot be listened to.
        ModelError: for a network whose features are not those that a score was fitted to.
    """
    layers = [layer for score in scores.values() for layer in getattr(score, "layers", ())]
    listening = listening_to(segmenter, tuple(dict.fromkeys(layers)))
    for name, score in scores.items():
        expected = getattr(score, "fingerprint", None)
        if expected is None or not expected.numel():
            continue
        hold_to_network(
            name,
            "wrong" if isinstance(score, Wrong) else "density",
            _fingerprint(listening, score),
            expected,
        )
    return listening


def seen_by(scores: Iterable[Score]) -> list[str]:
    """Fingerprints of the images that scores have learnt from."""
    return [image for score in scores for image in getattr(score, "about", {}).get("seen", ())]


def hold_to_network(name: str, fit: str, found: Tensor, expected: Tensor) -> None:
    """Refuse a network whose fingerprint is not the one that something was fitted to.

    Args:
        name: of what was fitted.
        fit: what `doubtmap fit` calls it.
        found: `(D,)` of this network.
        expected: `(D,)` of that one.

    Raises:
        ModelError: where they differ.
    """
    slack = 1e-2 * float(expected.abs().max())
    if found.shape != expected.shape or not torch.allclose(found, expected, 1e-2, slack):
        raise ModelError(
            f"{name}: expected the network that it was fitted to, at the same --input-size, but "
            f"this one's features differ. Fit it again with: doubtmap fit {fit} MODEL DATA --out "
            f"FILE."
        )


def before_last_activation(segmenter: Segmenter) -> str | None:
    """The layer whose output becomes the classifier's features by an activation, if there is."""
    if not isinstance(segmenter, NetworkSegmenter):
        return None
    return before_activation(segmenter, probe_image())


def probe_image() -> Tensor:
    """`(1, 3, H, W)` in [0, 1], the same on every machine: smooth shapes and some noise."""
    rows = torch.linspace(0, 1, PROBE[0])[:, None]
    columns = torch.linspace(0, 1, PROBE[1])[None]
    waves = [torch.sin(20 * (k + 1) * rows * columns) for k in range(3)]
    discs = [((rows - 0.5) ** 2 + (columns - 0.25 * k) ** 2 < 0.03).float() for k in range(1, 4)]
    image = torch.stack([(1 + wave) / 4 + disc / 2 for wave, disc in zip(waves, discs)])
    return image[None].clamp(0, 1)


def fingerprint_of(segmenter: Segmenter) -> Tensor:
    """`(C,)`, the mean native logits of the probe image."""
    return segmenter(probe_image()).native_logits.mean((0, 2, 3)).cpu()


def _fingerprint(segmenter: Segmenter, score: Any) -> Tensor:
    """`(D,)`, the mean features of the probe image."""
    prediction: Prediction = segmenter(probe_image())
    features: Tensor = score.features(prediction)
    return features.mean((0, 2, 3)).cpu()
