"""Anybody's network as a `Segmenter`: images in, `Prediction` at native resolution out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.kernels import at_least_float32
from doubtmap.models.backend import Backend, Source, Tap, first_line
from doubtmap.models.module import check_layer, output_of
from doubtmap.models.outputs import (
    Classifier,
    Form,
    Output,
    as_logits,
    find_classifier,
    fit_of,
    form_of,
    last_calls,
    unwrap,
)
from doubtmap.models.preprocessing import checked_images, padded_to
from doubtmap.prediction import Prediction

DIVISORS = (8, 16, 32, 64, 128)
"""Sides are padded to multiples of these, in turn, when a network refuses a size."""


@dataclass(frozen=True)
class Reading:
    """How to read a prediction from the network's output, learnt on the first telling image.

    Args:
        form: what the output is.
        channels: number of classes.
        classifier: the layer that reproduces the output, where there is one.
        features_missing: half a sentence that says why there is none.
        notes: what a reader of the results should know.
    """

    form: Form
    channels: int
    classifier: Classifier | None
    features_missing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether no later image could tell more."""
        return self.classifier is None or self.classifier.decided


@dataclass(frozen=True)
class Shape:
    """Sizes of the last run, for the description.

    Args:
        stride: rows of the network's input for each row of the native grid.
        features: number of feature channels, or None.
        align_corners: how the native grid is brought to the image.
    """

    stride: int
    features: int | None
    align_corners: bool


class NetworkSegmenter:
    """A network behind one call: `prediction = segmenter(images)`.

    On the first image the network's classifier is searched for; when a 1x1 convolution
    reproduces the output, predictions carry its input as features and its output as logits, at
    its own resolution. Otherwise they carry the output itself. As long as images are too tiny or
    even to tell how the output is resized, the search is done again on the next.

    Args:
        source: the opened network; `doubtmap.models.load` makes it.
        classifier: name of the last 1x1 convolution, in place of the search.
        layers: names of inner layers whose outputs predictions shall carry too.

    Raises:
        UsageError: where the network has no such 1x1 convolution or layer.
    """

    def __init__(
        self, source: Source, classifier: str | None = None, layers: Sequence[str] = ()
    ) -> None:
        self.source = source
        self.layers = tuple(layers)
        for layer in self.layers:
            check_layer(source.backend, layer)
        self._wanted = classifier
        self._divisor = source.preprocessing.divisor
        self._reading: Reading | None = None
        self._shape: Shape | None = None
        if classifier is not None and classifier not in source.backend.convolutions:
            raise UsageError(_unknown_classifier(classifier, list(source.backend.convolutions)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, or empty where the network does not know them."""
        return self.source.class_names

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self.source.backend.device

    @property
    def description(self) -> dict[str, object]:
        """What a results file should say; what the first image tells is None before it."""
        reading, shape, how = self._reading, self._shape, self.source.preprocessing
        found = reading.classifier if reading else None
        return {
            "source": self.source.name,
            "kind": self.source.kind,
            "classes": reading.channels if reading else len(self.class_names) or None,
            "classifier": found.name if found else None,
            "features": shape.features if shape else None,
            "features_missing": (reading.features_missing or None) if reading else None,
            "stride": shape.stride if shape else None,
            "align_corners": shape.align_corners if shape else None,
            "input_size": how.size.describe(),
            "divisor": self._divisor,
            "mean": list(how.mean),
            "std": list(how.std),
            "channels": "bgr" if how.bgr else "rgb",
            "notes": [*self.source.notes, *(reading.notes if reading else ())],
            "sha256": self.source.sha256,
        }

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch of images of one size.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.

        Returns:
            The prediction, on the network's device.

        Raises:
            UsageError: for images of another type, shape or range, or given class names that are
                not as many as the network's channels.
            ModelError: for a network that cannot be run on them, or whose output is not understood.
            DataError: for logits that are not finite.
        """
        backend = self.source.backend
        images = checked_images(images).to(backend.device)
        size = (images.shape[-2], images.shape[-1])
        with torch.no_grad():
            x = self.source.preprocessing(images, backend.dtype)
            reading = self._reading
            if reading is None or not reading.decided:
                reading = self._study(x[:1])
            names = (reading.classifier.name,) if reading.classifier else ()
            padded, output, taps = self._run(x, {*names, *self.layers})
            inner = {layer: output_of(layer, taps, len(x)) for layer in self.layers}
            taps = [tap for tap in taps if tap.name in names]
            prediction = self._prediction(reading, output, taps, size, x, padded)
            return replace(prediction, layers=inner) if inner else prediction

    def listening(self, layers: Sequence[str]) -> NetworkSegmenter:
        """The same network, whose predictions also carry the outputs of inner layers.

        Raises:
            UsageError: for a layer that the network has not.
        """
        added = dict.fromkeys((*self.layers, *layers))
        return self._copy(NetworkSegmenter(self.source, self._wanted, tuple(added)))

    def calls(self, images: Tensor, names: Collection[str]) -> list[Tap]:
        """Run the network on images, and return the calls of the named layers in order."""
        backend = self.source.backend
        with torch.no_grad():
            x = self.source.preprocessing(checked_images(images).to(backend.device), backend.dtype)
            return self._run(x, names)[2]

    def with_backend(self, backend: Backend) -> NetworkSegmenter:
        """The same network run in another way; what was learnt of its output is kept."""
        source = replace(self.source, backend=backend)
        return self._copy(NetworkSegmenter(source, self._wanted, self.layers))

    def _copy(self, other: NetworkSegmenter) -> NetworkSegmenter:
        other._divisor, other._reading, other._shape = self._divisor, self._reading, self._shape
        return other

    def _study(self, x: Tensor) -> Reading:
        """Learn from one image what the output is and which layer is the classifier."""
        padded, output, _ = self._run(x)
        channels, form = output.scores.shape[1], form_of(output)
        if self.class_names and len(self.class_names) != channels:
            mistake = UsageError if self.source.names_given else ModelError
            raise mistake(
                f"network: expected {len(self.class_names)} channels, one for each class name, "
                f"got {channels}. Pass classes= with {channels} names."
            )
        if not bool(torch.isfinite(output.scores).all()):
            raise DataError(
                "network: expected finite logits, got NaN or infinity. Check the network's "
                "weights, or run it in float32."
            )
        self._reading = self._read(padded, output, channels, form)
        return self._reading

    def _read(self, padded: Tensor, output: Output, channels: int, form: Form) -> Reading:
        notes = _NOTES.get(form, ())
        if form == "queries":
            missing = "a network that predicts by queries has no per-pixel classifier"
            if self._wanted is not None:
                raise ModelError(f"classifier={self._wanted!r}: {missing}. Leave it out.")
            return Reading(form, channels, None, missing, notes)
        if self._wanted is not None:
            taps = self._run(padded, (self._wanted,))[2]
            return Reading(form, channels, self._verified(taps, output.scores, form), "", notes)
        convolutions = self.source.backend.convolutions
        names = [name for name, outputs in convolutions.items() if outputs == channels]
        taps = self._run(padded, names)[2] if names else []
        found = find_classifier(taps, output.scores, form)
        missing = "" if found else "no 1x1 convolution of this network reproduces its output"
        return Reading(form, channels, found, missing, notes)

    def _verified(self, taps: list[Tap], scores: Tensor, form: Form) -> Classifier:
        """The classifier that the user named, once it has been seen to reproduce the output."""
        start = f"classifier={self._wanted!r}: expected the layer to reproduce the network's output"
        advice = "Name the last 1x1 convolution, or leave it out and let it be searched for."
        if not taps:
            raise ModelError(f"{start}, but the network never called it. {advice}")
        fit = fit_of(last_calls(taps)[0], scores, form)
        if fit is None:
            shapes = f"{tuple(taps[-1].output.shape)} against {tuple(scores.shape)}"
            raise ModelError(f"{start}, got shapes {shapes}. {advice}")
        if not fit.good:
            raise ModelError(
                f"{start}, got a largest difference of {fit.difference:.4g} where "
                f"{fit.allowed:.4g} is allowed. {advice}"
            )
        return fit.classifier

    def _run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[Tensor, Output, list[Tap]]:
        """Run the network, padding where it refuses the size; also return what it was given."""
        if self.source.preprocessing.divisor is not None:
            tried = [self.source.preprocessing.divisor]
        else:
            tried = [self._divisor or 1, *(d for d in DIVISORS if d > (self._divisor or 1))]
        refusal: Exception | None = None
        shapes: set[torch.Size] = set()
        for divisor in tried:
            padded = padded_to(x, divisor)
            if padded.shape in shapes:
                continue
            shapes.add(padded.shape)
            try:
                raw, calls = self._in_batches(padded, taps)
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, AssertionError) as error:
                refusal = refusal or error
                continue
            self._divisor = divisor if divisor > 1 else self._divisor
            return padded, raw, calls
        raise ModelError(_refused(x, tried, refusal)) from refusal

    def _in_batches(self, x: Tensor, names: Collection[str]) -> tuple[Output, list[Tap]]:
        """Run as many images at once as the network takes."""
        backend, at_once = self.source.backend, self.source.backend.fixed_batch or len(x)
        if at_once == len(x):
            output, taps = backend.run(x, names)
            return unwrap(output), taps
        parts = []
        for chunk in torch.split(x, at_once):
            filler = chunk[-1:].expand(at_once - len(chunk), -1, -1, -1)
            output, taps = backend.run(torch.cat([chunk, filler]), names)
            parts.append((unwrap(output), taps))
        scores = torch.cat([output.scores for output, _ in parts])[: len(x)]
        joined = [
            Tap(
                calls[0].name,
                torch.cat([call.input for call in calls])[: len(x)],
                torch.cat([call.output for call in calls])[: len(x)],
            )
            for calls in zip(*(taps for _, taps in parts))
        ]
        return replace(parts[0][0], scores=scores), joined

    def _prediction(
        self,
        reading: Reading,
        output: Output,
        taps: list[Tap],
        size: tuple[int, int],
        x: Tensor,
        padded: Tensor,
    ) -> Prediction:
        if len(output.scores) != len(x):
            raise ModelError(
                f"network: expected one output for each of {len(x)} images, got "
                f"{len(output.scores)}. Pass images one at a time, or fix the network's batch axis."
            )
        logits, features, align_corners = _native(reading, output.scores, taps, padded)
        self._shape = Shape(
            max(1, round(padded.shape[-2] / logits.shape[-2])),
            None if features is None else features.shape[1],
            align_corners,
        )
        covered = tuple(p * full / s for p, full, s in zip(padded.shape[-2:], size, x.shape[-2:]))
        return Prediction(
            native_logits=logits,
            size=size,
            covered=(covered[0], covered[1]),
            align_corners=align_corners,
            features=features,
            features_missing=reading.features_missing,
            class_names=self.class_names,
        )


_NOTES: dict[Form, tuple[str, ...]] = {
    "logits": (),
    "softmax": ("The network returns probabilities; their logarithm is used as logits.",),
    "log_softmax": ("The network returns log-probabilities.",),
    "queries": ("Logits are the logarithm of per-pixel scores put together from the queries.",),
}


def _native(
    reading: Reading, scores: Tensor, taps: list[Tap], padded: Tensor
) -> tuple[Tensor, Tensor | None, bool]:
    """Native logits, features on the same grid, and how both are brought to the image."""
    own = as_logits(scores, reading.form)
    if reading.classifier is None:
        return own, None, False
    if not taps:
        raise ModelError(
            f"network: expected {reading.classifier.name!r} to be called as on the first image, "
            f"but it was not. Make the network do the same for every image."
        )
    tap, align_corners = taps[-1], reading.classifier.align_corners
    grid, native_grid = own.shape[-2:], tap.output.shape[-2:]
    if grid == native_grid:
        return tap.output, tap.input, False
    if grid == padded.shape[-2:]:
        return tap.output, tap.input, align_corners
    # The output lies on a grid between the classifier's and the image's. A 1x1 convolution and
    # a bilinear resize commute, so features resized alike still belong to the logits.
    features = F.interpolate(
        at_least_float32(tap.input), grid, mode="bilinear", align_corners=align_corners
    )
    return own, features, False


def _unknown_classifier(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
    names = f"Near names: {', '.join(near)}" if near else "This network has none; leave it out"
    return f"classifier: expected the name of a 1x1 convolution, got {name!r}. {names}."


def _refused(x: Tensor, tried: list[int], refusal: Exception | None) -> str:
    padding = [str(divisor) for divisor in tried if divisor > 1]
    also = f", also with sides padded to multiples of {', '.join(padding)}" if padding else ""
    cause = first_line(refusal) if refusal else "no reason given"
    if re.search(r"expected input\[.*\] to have \d+ channels", cause):
        return (
            f"network: expected a network that takes RGB images, but a layer of it was given "
            f"another number of channels ({cause}). Wrap it in a module that takes "
            f"(B, 3, H, W), or fix the layer."
        )
    return (
        f"network: it refused an image of {x.shape[-2]}x{x.shape[-1]} pixels{also} ({cause}). "
        f"Pass input_size=(H, W), a size it was made for."
    )
