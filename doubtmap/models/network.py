"""Anybody's network as a `Segmenter`: images in, `Prediction` at native resolution out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import ModelError, NotFinite, UsageError
from doubtmap.kernels import at_least_float32, recording
from doubtmap.models.backend import Answer, Backend, LastLayer, Runner, Source, Tap, weights_of
from doubtmap.models.classifiers import best_fit, reproducing
from doubtmap.models.forms import logarithm
from doubtmap.models.module import check_layer, output_of
from doubtmap.models.outputs import of_two, queries_of, query_scores
from doubtmap.models.preprocessing import ImageSize, Resize, ScaledSize, checked_images, sent
from doubtmap.models.studying import (
    NOT_FINITE,
    Asked,
    Reading,
    answered,
    study,
    unknown_classifier,
)
from doubtmap.prediction import PIXEL, Prediction, Queries, Window
from doubtmap.shown import ShownSegmenter

LEVEL_LOST = "the network returns probabilities, whose free energy is 0 everywhere"


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


@dataclass(frozen=True, eq=False)
class Native:
    """What a prediction is made of, on the network's own grid.

    Args:
        logits: `(B, C, h, w)`, C >= 2.
        features: `(B, D, h, w)`, or None.
        align_corners: how both are brought to the image.
        window: what of the features the last layer sees for one pixel.
        missing: why there are no features.
        energy_missing: why the level of the logits says nothing.
    """

    logits: Tensor
    features: Tensor | None = None
    align_corners: bool = False
    window: Window = PIXEL
    missing: str = ""
    energy_missing: str = ""


class NetworkSegmenter(ShownSegmenter):
    """A network behind one call: `prediction = segmenter(images)`.

    On the first image the network's classifier is searched for; when a last layer reproduces the
    output, predictions carry its input as features and its output as logits, at its own
    resolution. On every later image this is checked again at a few hundred positions; where it
    does not hold, predictions carry the output itself. As long as images are too tiny or even to
    tell how the output is resized, the next is asked again.

    Args:
        source: the opened network; `doubtmap.models.load` makes it.
        classifier: name of the last layer, in place of the search.
        layers: names of inner layers whose outputs predictions shall carry too.
        asked: what the user says of the output; its classifier is that above.

    Raises:
        UsageError: where the network has no such layer.
    """

    def __init__(
        self,
        source: Source,
        classifier: str | None = None,
        layers: Sequence[str] = (),
        asked: Asked | None = None,
    ) -> None:
        self.source = source
        self.layers = tuple(layers)
        for layer in self.layers:
            check_layer(source.backend, layer)
        self._asked = replace(asked or Asked(), classifier=classifier)
        self._runner = Runner(source.backend, source.preprocessing.divisor)
        self._reading: Reading | None = None
        self._shape: Shape | None = None
        self._late: dict[str, None] = {}
        self._known: dict[str, LastLayer] = {}
        if classifier is not None and classifier not in source.backend.last_layers:
            raise UsageError(unknown_classifier(classifier, list(source.backend.last_layers)))

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
            "output": (reading.output or None) if reading else None,
            "form": reading.form.kind if reading else None,
            "classifier": found.name if found else None,
            "features": shape.features if shape else None,
            "features_missing": (reading.features_missing or None) if reading else None,
            "stride": shape.stride if shape else None,
            "align_corners": shape.align_corners if shape else None,
            "input_size": how.size.describe(),
            "divisor": self._runner.divisor,
            "mean": list(how.mean),
            "std": list(how.std),
            "normalisation": how.origin,
            "channels": "bgr" if how.bgr else "rgb",
            "bands": list(how.bands) or None,
            "asked": self._asked.described() | {"divisor": how.divisor},
            "notes": [*self.source.notes, *(reading.notes if reading else ()), *self._late],
            "sha256": self.source.sha256,
        }

    @property
    def content(self) -> dict[str, str | None]:
        """Hashes of what the network is now: its weights, and what makes it of them."""
        weights = self.source.sha256 or weights_of(self.source.backend)
        return {"weights": weights, "code": self.source.code}

    def __call__(self, images: Tensor) -> Prediction:
        """Predict a batch of images of one size.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8; other bands where the network
                takes others.

        Returns:
            The prediction, on the network's device.

        Raises:
            UsageError: for images of another type, shape or range, or given class names that are
                not as many as the network's channels.
            ModelError: for a network that cannot be run on them, or whose output is not understood.
            DataError: for logits that are not finite.
        """
        with torch.no_grad():
            return self._predicted(self._prepared(images), (images.shape[-2], images.shape[-1]))

    def _predicted(self, x: Tensor, size: tuple[int, int]) -> Prediction:
        reading = self._reading or self._studied(x)
        if self.source.preprocessing.window is not None:
            return self._of_windows(reading, x, size)
        if reading.form.kind == "queries":
            answer, prediction = self._of_queries(reading, x, size)
        else:
            answer, prediction = self._of_scores(reading, x, size)
        if not self.layers:
            return prediction
        taps = [tap for name in self.layers if (tap := answer.call(name)) is not None]
        inner = {layer: output_of(layer, taps, len(x)) for layer in self.layers}
        return replace(prediction, layers=inner)

    def seen_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """In which size an image of this one is seen, as far as known; see `seen_alike`."""
        how, reading = self.source.preprocessing, self._reading
        known = reading is not None and reading.form.kind != "queries" and how.window is None
        return how.size(size) if known else size

    def seen_alike(self, images: Sequence[Tensor]) -> Prediction:
        """Predict images `(3, H, W)` of several sizes that are seen in one, as of the first's."""
        with torch.no_grad():
            x = torch.cat([self._prepared(image[None]) for image in images])
            return self._predicted(x, (images[0].shape[-2], images[0].shape[-1]))

    def listening(self, layers: Sequence[str]) -> NetworkSegmenter:
        """The same network, whose predictions also carry the outputs of inner layers.

        Raises:
            UsageError: for a layer that the network has not.
        """
        return self._copy(self.source, tuple(dict.fromkeys((*self.layers, *layers))))

    def resizing(self, how: Resize) -> NetworkSegmenter:
        """The same network, whose images are resized in another way, where they are at all.

        Args:
            how: `pil` rounds to whole bytes after each axis, as pipelines do that resize with
                Pillow; `float` does not.

        Raises:
            UsageError: for another way.
        """
        if how not in get_args(Resize):
            ways = " or ".join(get_args(Resize))
            raise UsageError(f"resize: expected {ways}, got {how!r}. Choose one of these.")
        preprocessing = replace(self.source.preprocessing, levels=how == "pil")
        other = self._copy(replace(self.source, preprocessing=preprocessing), self.layers)
        other._asked = replace(other._asked, resize=how)
        return other

    def scaled(self, factor: float) -> NetworkSegmenter:
        """The same network, for which images have sides so many times as long.

        Raises:
            UsageError: for a file that was exported for one size.
        """
        how, only = self.source.preprocessing, self.source.backend.fixed_size
        if only is not None:
            raise UsageError(
                f"views: {self.source.name} was exported for {only} alone. Take --views mirror."
            )
        how = replace(how, size=ScaledSize(how.size, factor))
        return self._copy(replace(self.source, preprocessing=how), self.layers)

    def calls(self, images: Tensor, names: Collection[str]) -> list[Tap]:
        """Run the network on images, and return the calls of the named layers in order."""
        with torch.no_grad():
            answer = self._runner(self._prepared(images), names)
            return [call for run in answer.calls for call in run]

    def with_backend(self, backend: Backend) -> NetworkSegmenter:
        """The same network run in another way; what was learnt of its output is kept."""
        return self._copy(replace(self.source, backend=backend), self.layers)

    def _copy(self, source: Source, layers: tuple[str, ...]) -> NetworkSegmenter:
        other = NetworkSegmenter(source, self._asked.classifier, layers, self._asked)
        other._runner = self._runner.copy(source.backend)
        other._reading, other._shape, other._late = self._reading, self._shape, dict(self._late)
        return other

    def _studied(self, x: Tensor) -> Reading:
        """What the first image of a batch tells, kept for the next."""
        window = self.source.preprocessing.window
        seen = x[:1, :, :window, :window]
        self._reading = study(self.source, self._runner, seen, self._asked)
        return self._reading

    def _taps(self, reading: Reading) -> set[str]:
        """Names of the layers that a call listens to."""
        return {*((reading.classifier.name,) if reading.classifier else ()), *self.layers}

    def _last_layer(self, name: str) -> LastLayer:
        """Looked up once: a network may have thousands of layers."""
        if name not in self._known:
            self._known[name] = self.source.backend.last_layers[name]
        return self._known[name]

    def _settled(self, reading: Reading, answer: Answer, scores: Tensor, x: Tensor) -> Reading:
        """See whether this image tells how the output is resized, where no image before did."""
        found = reading.classifier
        assert found is not None
        layer, call = self._last_layer(found.name), answer.call(found.name)
        fit = call and best_fit(call, layer, scores, reading.form, answer.sides)
        if not fit or not fit.good:
            return self._studied(x)
        self._reading = replace(reading, classifier=fit.classifier)
        return self._reading

    def _prepared(self, images: Tensor) -> Tensor:
        """Checked, normalised, on the network's device."""
        backend, how = self.source.backend, self.source.preprocessing
        plain = 3 if len(how.mean) == 3 and not how.bands else 0
        return how(sent(checked_images(images, plain), backend.device), backend.dtype)

    def _of_queries(
        self, reading: Reading, x: Tensor, size: tuple[int, int]
    ) -> tuple[Answer, Prediction]:
        """Class scores put together where the network sees, resized, and their logarithm.

        In this order the papers' own inference does it, too.
        """
        answer = self._runner(x, self.layers)
        classes, masks = queries_in(answer)
        scores, accepted = query_scores(classes, masks, answer.sides)
        if not recording(x):
            stride = max(1, round(answer.sides[0] / masks.shape[-2]))
            self._shape = Shape(stride, None, False)
        seen = (x.shape[-2], x.shape[-1])  # without the padding
        return answer, Prediction(
            logarithm(_resized(scores[..., : seen[0], : seen[1]], size)),
            size,
            features_missing=reading.features_missing,
            class_names=self.class_names,
            queries=Queries(_resized(accepted[:, None, : seen[0], : seen[1]], size)[:, 0]),
        )

    def _of_windows(self, reading: Reading, x: Tensor, size: tuple[int, int]) -> Prediction:
        """Class scores of squares along the longer side; where they overlap, their mean."""
        how = self.source.preprocessing
        if self.layers or how.window is None:
            raise ModelError(
                f"layer: expected a network that sees each image at once, but this one sees it in "
                f"squares of {how.window} pixels. Use a score that needs no inner layers."
            )
        side = (how.window, how.window)
        height, width = how.size(size)
        total, count = x.new_zeros(()), x.new_zeros((x.shape[-2], x.shape[-1]))
        for top, left in how.windows((height, width)):
            place = (..., slice(top, top + side[0]), slice(left, left + side[1]))
            answer = self._runner(x[place])
            classes, masks = queries_in(answer)
            scores, accepted = query_scores(classes, masks, side)
            values = torch.cat([scores, accepted[:, None]], 1)
            if not total.ndim:
                total = values.new_zeros((*values.shape[:2], *count.shape))
            total[place] += values
            count[place] += 1
        mean = (total / count)[..., :height, :width]
        whole = F.interpolate(mean, size, mode="bilinear")
        self._shape = Shape(max(1, round(side[0] / masks.shape[-2])), None, False)
        return Prediction(
            logarithm(whole[:, :-1]),
            size,
            features_missing=reading.features_missing,
            class_names=self.class_names,
            queries=Queries(whole[:, -1]),
        )

    def _of_scores(
        self, reading: Reading, x: Tensor, size: tuple[int, int]
    ) -> tuple[Answer, Prediction]:
        answer, scores = answered(self._runner, reading, x, self._taps(reading))
        if not reading.decided and not recording(x):
            before, reading = reading, self._settled(reading, answer, scores, x)
            if self._taps(reading) != self._taps(before):
                answer, scores = answered(self._runner, reading, x, self._taps(reading))
        margin = self._runner.margin
        sides = (answer.sides[0] - 2 * margin, answer.sides[1] - 2 * margin)
        native = self._native(reading, answer, scores, sides)
        if not recording(x):
            self._shape = Shape(
                max(1, round(sides[0] / native.logits.shape[-2])),
                None if native.features is None else native.features.shape[1],
                native.align_corners,
            )
        how = self.source.preprocessing.size
        if recording(x):
            whole = self._runner.divisor is None
        else:
            whole = (x.shape[-2], x.shape[-1]) == sides
        area = sides if isinstance(how, ImageSize) else _covered(sides, size, x)
        return answer, Prediction(
            native.logits,
            size,
            covered=None if whole else area,
            align_corners=native.align_corners,
            features=native.features,
            features_missing=native.missing,
            class_names=self.class_names,
            energy_missing=native.energy_missing,
            window=native.window,
        )

    def _native(
        self, reading: Reading, answer: Answer, scores: Tensor, sides: tuple[int, int]
    ) -> Native:
        """Logits, features on the same grid, and how both are brought to the image."""
        own = _own(reading, scores)
        found = reading.classifier
        if found is None:
            return own
        layer = self._last_layer(found.name)
        call, tap = answer.call(found.name), None
        if call is not None:
            tap = reproducing(call, layer, scores, reading.form, answer.sides, found.align_corners)
        if tap is None:
            missing = f"on this image {found.name!r} does not reproduce the network's output"
            note = (
                f"On some images {found.name!r} does not reproduce the network's output; there "
                f"the output itself is used, without features."
            )
            _check_finite(scores)
            self._late[note] = None
            return replace(own, missing=missing)
        grid = (scores.shape[-2], scores.shape[-1])
        native_grid = (tap.output.shape[-2], tap.output.shape[-1])
        said = of_two(tap.output)
        if native_grid == grid or grid == sides:
            corners = found.align_corners and native_grid != grid
            return Native(said, tap.input, corners, layer.window)
        if not layer.window.single:
            return replace(
                own, missing="its last layer's grid is neither the output's nor the image's"
            )
        # The output lies on a grid between the classifier's and the image's. A 1x1 convolution
        # and a bilinear resize commute, so features resized alike still belong to the logits.
        features = F.interpolate(
            at_least_float32(tap.input), grid, mode="bilinear", align_corners=found.align_corners
        )
        return Native(own.logits, features)


def queries_in(answer: Answer) -> tuple[Tensor, Tensor]:
    """Class and mask logits of all images that a network was given."""
    pairs = [queries_of(part) for part in answer.parts]
    both = [torch.cat(each) for each in zip(*(p for p in pairs if p))]
    if recording(answer.given):  # of one run, without filling
        return both[0], both[1]
    count = len(answer.given)
    return both[0][:count], both[1][:count]


def _own(reading: Reading, scores: Tensor) -> Native:
    """The network's own output, without features."""
    probabilities = reading.form.kind in ("softmax", "log_softmax")
    return Native(
        of_two(reading.form.logits(scores)),
        missing=reading.features_missing,
        energy_missing=LEVEL_LOST if probabilities else "",
    )


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    same = tuple(maps.shape[-2:]) == size
    return maps if same else F.interpolate(maps, size, mode="bilinear")


def _check_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite.of(NOT_FINITE, scores)


def _covered(sides: tuple[int, int], size: tuple[int, int], x: Tensor) -> tuple[float, float]:
    """Height and width, in image pixels, of what the network was given."""
    height, width = (p * full / s for p, full, s in zip(sides, size, x.shape[-2:]))
    return height, width
