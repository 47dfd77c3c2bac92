"""What can be written down as a graph, and what to do about the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from torch import Tensor

from doubtmap.deploy.any_size import of_any_size
from doubtmap.errors import ModelError, UsageError
from doubtmap.models import Ensemble, MonteCarloDropout, NetworkSegmenter, Views
from doubtmap.models.module import ModuleBackend
from doubtmap.models.preprocessing import EdgeSize, ImageSize
from doubtmap.prediction import Prediction, Score, Segmenter
from doubtmap.scores.default import Doubt, doubt
from doubtmap.scores.islands import island
from doubtmap.scores.sums import Sum
from doubtmap.scores.wrong import Wrong


def network_of(segmenter: Segmenter) -> NetworkSegmenter:
    """The one PyTorch network behind a segmenter.

    Raises:
        UsageError: for anything else, with what to do.
    """
    if isinstance(segmenter, Views):
        raise UsageError(
            "export: expected one network that looks once, got several views, which do not fit "
            "into one graph. Leave --views out."
        )
    if isinstance(segmenter, Ensemble | MonteCarloDropout):
        several = "an ensemble" if isinstance(segmenter, Ensemble) else "passes with dropout"
        raise UsageError(
            f"export: expected one network, got {several}, whose runs do not fit into one graph. "
            f"Export one of them, or a student of them all (docs/dudes.md)."
        )
    if not isinstance(segmenter, NetworkSegmenter):
        raise UsageError(
            f"export: expected one network that sees its images whole, got "
            f"{type(segmenter).__name__}. Leave out --tile, or name the network itself."
        )
    source = segmenter.source
    if not isinstance(source.backend, ModuleBackend):
        raise UsageError(
            f"export: expected a PyTorch network, got {source.name}, which is exported already. "
            f"Export from the network that the file was made of."
        )
    if source.preprocessing.window is not None:
        raise UsageError(
            f"export: expected a network that sees its images whole, but this one sees squares of "
            f"{source.preprocessing.window} pixels. Give --input-size HxW."
        )
    return segmenter


def check_sizes(network: NetworkSegmenter, scores: Mapping[str, Score], traced: bool) -> None:
    """Refuse what is another computation for each size, where sizes are to be free.

    Args:
        network: that is exported.
        scores: by name.
        traced: whether `of_any_size` stands for scores.

    Raises:
        UsageError: that asks for a size.
    """
    for name, score in scores.items():
        if _follows_width(of_any_size(score) if traced else score):
            plain = not traced and not _follows_width(of_any_size(score))
            other = ", take --format onnx" if plain else ""
            raise UsageError(
                f"{name}: its squares follow the images' width, so the file can take one size "
                f"only. Give --size HxW{other}, or leave {name} out."
            )
    if isinstance(network.source.preprocessing.size, EdgeSize):
        raise UsageError(
            "export: this network's images are resized by a rule over both sides, so the file can "
            "take one size only. Give --size HxW of your images, or --input-size HxW or image."
        )


def _follows_width(score: Score) -> bool:
    """Whether it, or a part of it, has squares or a blur that follow the image's width."""
    if isinstance(score, functools.partial):
        return _follows_width(score.func)
    inner = score.scores if isinstance(score, Sum | Wrong) else ()
    return score in (doubt, island) or isinstance(score, Doubt) or any(map(_follows_width, inner))


def scored(prediction: Prediction, scores: Mapping[str, Score]) -> dict[str, Tensor]:
    """Each score of a prediction.

    Raises:
        UsageError: where the network has not what a score needs, with what to do.
    """
    found = {}
    for name, score in scores.items():
        try:
            found[name] = score(prediction)
        except ModelError as error:
            raise UsageError(f"export: {error}") from error
    return found


def placement(network: NetworkSegmenter, prediction: Prediction) -> dict[str, object]:
    """Where native logits lie on images of any size, as `doubtmap.runtime` reads it.

    Args:
        network: that is exported.
        prediction: of its, of any image.
    """
    how, told = network.source.preprocessing.size, network.description
    inner = None if isinstance(how, ImageSize) else list(how(prediction.size))
    divisor = told["divisor"]
    if told["form"] == "queries":  # brought to the image's size by the network itself
        inner, divisor = None, None
    corners = bool(prediction.align_corners)
    return {"input": inner, "divisor": divisor, "align_corners": corners}
