"""Several passes of one network and their disagreement: with dropout, or of views of the image."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from doubtmap.errors import ModelError, UsageError
from doubtmap.models.backend import Tap
from doubtmap.models.ensemble import Ensemble, MemberSums
from doubtmap.models.module import ModuleBackend
from doubtmap.models.network import NetworkSegmenter
from doubtmap.models.preprocessing import ImageSize, ScaledSize, checked_images
from doubtmap.prediction import Prediction, Queries, Segmenter, listening_to, resize
from doubtmap.shown import ShownSegmenter


class MonteCarloDropout(ShownSegmenter):
    """A network whose dropout layers stay switched on, run several times.

    Only dropout layers are in training mode; normalisation layers keep their statistics. The masks
    follow from the seed and the pixels of the batch, so the order of batches changes nothing.

    Args:
        segmenter: a PyTorch network, as `doubtmap.load` gives it.
        passes: how many, at least two.
        rate: in (0, 1): also drop features before the classifier at this rate; needed for a
            network without dropout layers of its own. One trained without dropout was never asked
            to bear it, so what such passes disagree about is a perturbation, not a posterior.
        seed: of the masks.

    Raises:
        UsageError: for impossible passes or rates, or a network that is not a PyTorch module.
        ModelError: for a network without dropout layers, where no rate is given.

    Reference:
        Dropout as a Bayesian Approximation (Gal and Ghahramani, 2016),
        https://arxiv.org/abs/1506.02142; for segmentation: Bayesian SegNet (Kendall et al., 2017),
        https://arxiv.org/abs/1511.02680
    """

    def __init__(
        self,
        segmenter: Segmenter,
        passes: int = 5,
        rate: float | None = None,
        seed: int = 0,
    ) -> None:
        if passes < 2:
            raise UsageError(f"dropout: expected two or more passes, got {passes}. Pass 5.")
        if rate is not None and not 0 < rate < 1:
            raise UsageError(f"dropout: expected a rate between 0 and 1, got {rate}. Pass 0.2.")
        backend = segmenter.source.backend if isinstance(segmenter, NetworkSegmenter) else None
        if not isinstance(segmenter, NetworkSegmenter) or not isinstance(backend, ModuleBackend):
            raise UsageError(
                "dropout: expected one PyTorch network, whose dropout layers can be switched on, "
                "got an exported file or several networks. Load the module or folder it came from."
            )
        if rate is None and not dropout_layers(backend.module):
            raise ModelError(
                "dropout: expected a network with dropout layers, found none whose rate is above "
                "0. Give --dropout-rate to drop features before the classifier, or use an ensemble."
            )
        self.passes, self.rate, self.seed = passes, rate, seed
        self.plain = segmenter
        self._sampled: NetworkSegmenter | None = None
        self._differed = False

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, or empty where the network does not know them."""
        return self.plain.class_names

    @property
    def description(self) -> dict[str, object]:
        """What the network says of itself, and how it is sampled."""
        sampling = {"passes": self.passes, "rate": self.rate, "seed": self.seed}
        return self.plain.description | {"dropout": sampling, "features": None}

    @property
    def content(self) -> dict[str, str | None]:
        """Hashes of what the network is."""
        return self.plain.content

    def __call__(self, images: Tensor) -> Prediction:
        """Predict several times.

        Args:
            images: `(B, 3, H, W)` RGB, float in [0, 1] or uint8.

        Returns:
            The prediction of the mean probability, at image size.

        Raises:
            UsageError, ModelError, DataError: as the network does.
            ModelError: for a rate where the classifier was not found.
        """
        images = checked_images(images, 0)
        sampled = self._sampled or self._prepare(images)
        sums = MemberSums()
        with _seeded(images, self.seed, self.plain.device):
            for _ in range(self.passes):
                sums.add(sampled(images))
        self._differed = self._differed or not sums.alike
        if self._differed:
            return sums.prediction()
        missing = (
            f"the {self.passes} passes agree to the last bit: no dropout layer reaches the output. "
            f"Give --dropout-rate to drop features before the classifier, or use an ensemble"
        )
        return replace(sums.prediction(), members=None, members_missing=missing)

    def _prepare(self, images: Tensor) -> NetworkSegmenter:
        """The same network with a backend that drops, its classifier found without dropping."""
        self.plain(images[:1])
        name = self.plain.description["classifier"]
        if self.rate is not None and name is None:
            missing = self.plain.description["features_missing"]
            raise ModelError(
                f"dropout: expected a classifier to drop features before, but {missing}. Use a "
                f"network with dropout layers of its own, or an ensemble."
            )
        source = self.plain.source
        assert isinstance(source.backend, ModuleBackend)
        dropping = _DroppingBackend(source.backend.module, str(name), self.rate)
        self._sampled = self.plain.with_backend(dropping)
        return self._sampled


class _DroppingBackend(ModuleBackend):
    """Runs a module with its dropout layers on, and features dropped before its classifier."""

    def __init__(self, module: nn.Module, classifier: str, rate: float | None) -> None:
        super().__init__(module)
        self._classifier, self._rate = classifier, rate

    def run(self, x: Tensor, taps: Collection[str] = ()) -> tuple[object, list[Tap]]:
        with _dropping(self.module), self._before_classifier():
            return super().run(x, taps)

    @contextmanager
    def _before_classifier(self) -> Iterator[None]:
        if self._rate is None:
            yield
            return
        rate = self._rate

        def drop(
            _: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            dropped = tuple(F.dropout(x, rate) for x in given)
            return dropped, {name: F.dropout(x, rate) for name, x in named.items()}

        layer = self.module.get_submodule(self._classifier)
        handle = layer.register_forward_pre_hook(drop, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


class Views(ShownSegmenter):
    """A network that looks at each image several times: as it is, mirrored, in other sizes.

    Also known as test-time augmentation. Probabilities are means over the views, at image size, and
    what the views disagree about is what members do. Inner layers are those of the first view.

    Args:
        segmenter: the network. One that resizes images itself sees them in factors of that size.
        sides: factors of the sides, one for each size that is looked at.
        mirror: whether each is looked at mirrored, too.

    Raises:
        UsageError: for factors that are no sizes, or fewer than two views.
    """

    def __init__(
        self, segmenter: Segmenter, sides: Sequence[float] = (1.0,), mirror: bool = True
    ) -> None:
        if not all(0 < side < math.inf for side in sides):
            raise UsageError(f"views: expected finite factors above 0, got {list(sides)}.")
        if len(sides) * (1 + mirror) < 2 or len(set(sides)) < len(sides):
            raise UsageError(
                f"views: expected two or more views, each once, got sides {list(sides)}"
                f"{' mirrored' if mirror else ''}. Add mirror, or another factor such as 2."
            )
        self.segmenter, self.sides, self.mirror = segmenter, tuple(map(float, sides)), mirror
        self._seen = [_scaled(segmenter, side) for side in self.sides]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The network's."""
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        """What the network says of itself, and how it looks."""
        views = {"sides": list(self.sides), "mirror": self.mirror}
        return self.segmenter.description | {"views": views, "features": None}

    @property
    def content(self) -> dict[str, object]:
        """Hashes of what the network is."""
        return dict(getattr(self.segmenter, "content", None) or {})

    def listening(self, layers: Sequence[str]) -> Views:
        """The same network, whose predictions also carry the outputs of inner layers."""
        return Views(listening_to(self.segmenter, layers), self.sides, self.mirror)

    def __call__(self, images: Tensor) -> Prediction:
        """Predict every view in turn; see `Segmenter`."""
        sums, accepted, first = MemberSums(), [], None
        for network in self._seen:
            for flips in (False, True) if self.mirror else (False,):
                seen = network(images.flip(-1) if flips else images)
                first = first or seen
                view = _turned_back(seen) if flips else seen
                sums.add(view)
                accepted += [view.queries.accepted] if view.queries else []
        assert first is not None
        return replace(
            sums.prediction(),
            layers=_layers_of(first),
            queries=Queries(torch.stack(accepted).mean(0)) if accepted else None,
        )


def _turned_back(seen: Prediction) -> Prediction:
    """The prediction of a mirrored image, for the image as it is."""
    queries = seen.queries and Queries(seen.queries.accepted.flip(-1))
    return Prediction(
        seen.logits.flip(-1), seen.size, class_names=seen.class_names, queries=queries
    )


def _layers_of(seen: Prediction) -> Mapping[str, Tensor]:
    """Outputs of inner layers on grids that stand for the image alone, without its padding."""
    if seen.covered in (None, seen.size):
        return seen.layers
    assert seen.covered is not None
    found = {}
    for name, maps in seen.layers.items():
        shares = [side / covered for side, covered in zip(seen.size, seen.covered)]
        grid = [max(1, round(side * share)) for side, share in zip(maps.shape[-2:], shares)]
        covered = (grid[0] / shares[0], grid[1] / shares[1])
        found[name] = resize(maps, (grid[0], grid[1]), covered)
    return found


def _scaled(segmenter: Segmenter, side: float) -> Segmenter:
    """The network that sees images with other sides."""
    if side == 1:
        return segmenter
    if isinstance(segmenter, NetworkSegmenter):
        return segmenter.scaled(side)
    return _Other(segmenter, side)


@dataclass(frozen=True)
class _Other:
    """Whatever predicts, given images with other sides, and its prediction brought back."""

    segmenter: Segmenter
    side: float

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.segmenter.class_names

    @property
    def description(self) -> dict[str, object]:
        return self.segmenter.description

    def __call__(self, images: Tensor) -> Prediction:
        size = (images.shape[-2], images.shape[-1])
        scaled = ScaledSize(ImageSize(), self.side)(size)
        x = F.interpolate(checked_images(images, 0), scaled, mode="bilinear", antialias=True)
        logits = self.segmenter(x.clamp(0, 1)).logits
        whole = F.interpolate(logits, size, mode="bilinear")
        return Prediction(whole, size, class_names=self.class_names)


def viewing(segmenter: Segmenter, views: Sequence[float | str]) -> Segmenter:
    """A network that looks at each image as it is, and at these views; see `Views`.

    Args:
        segmenter: as `doubtmap.load` gives it; of an ensemble each member looks so.
        views: `mirror` or factors of the sides, or both.

    Raises:
        UsageError: for other views, or predictions that were made elsewhere.
    """
    if isinstance(segmenter, Ensemble):
        return Ensemble([viewing(member, views) for member in segmenter.members])
    if not isinstance(segmenter, NetworkSegmenter):
        raise UsageError(
            f"views: expected a network that looks at images here, got "
            f"{type(segmenter).__name__}. Leave --views out, or --dropout-passes."
        )
    sides = [float(view) for view in views if view not in ("mirror", 1)]
    return Views(segmenter, (1.0, *sides), "mirror" in views)


def dropout_layers(module: nn.Module) -> list[nn.Module]:
    """The dropout layers that would drop anything."""
    return [layer for layer in module.modules() if isinstance(layer, _DropoutNd) and layer.p > 0]


@contextmanager
def _dropping(module: nn.Module) -> Iterator[None]:
    """Dropout layers in training mode, all else in evaluation mode, while the block lasts."""
    module.eval()
    layers = dropout_layers(module)
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextmanager
def _seeded(images: Tensor, seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers that follow from a seed and the images; the caller's are left as they were."""
    content = zlib.crc32(images.detach().cpu().contiguous().numpy().tobytes(), seed & 0xFFFFFFFF)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(content)
        yield
