"""What a training is asked to do: frozen objects, whose fields are options of the command line.

`Settings` is for every recipe. What one recipe is asked besides stands here too; the recipes
(`Spectral`, `Dudes`, `NFlowJS`) check it, and do it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from doubtmap.errors import UsageError
from doubtmap.option import Option, read_names, read_path, read_sides, read_size

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("poly", "cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
CLASS_WEIGHTS = {"none": 0.0, "root": 0.5, "inverse": 1.0}
"""Names of exponents: a class weighs its share of the labelled pixels to minus this power."""


def read_exponent(flag: str, text: str) -> float:
    """A name of `CLASS_WEIGHTS` or a number.

    Raises:
        UsageError: for anything else.
    """
    try:
        return CLASS_WEIGHTS[text] if text in CLASS_WEIGHTS else float(text)
    except ValueError:
        known = ", ".join(CLASS_WEIGHTS)
        raise UsageError(
            f"{flag}: expected {known} or an exponent in [0, 1], got {text}."
        ) from None


@dataclass(frozen=True)
class Settings:
    """How to train; what is trained is the recipe's business.

    Args:
        epochs: passes over the images.
        batch: images in a step, over all processes; an incomplete last batch is left out.
        crop: `(height, width)` in pixels of what a step sees.
        rate: largest learning rate; None: 1e-3 from random weights, 1e-4 from trained ones.
        optimizer: `adamw`, or `sgd` with momentum 0.9.
        weight_decay: on weights of two and more axes; biases and normalisations have none.
        schedule: of the rate over all steps: `poly` (power 0.9), `cosine` or `constant`.
        warmup: share of the steps, in [0, 1), in which the rate rises from 0.
        clip: largest norm of the gradient; 0: any.
        class_weights: exponent in [0, 1]: 0 all classes alike, 0.5 the root of the inverse share
            of the labelled pixels, 1 the inverse share. Above 0, the network's confidence no
            longer is calibrated to the frequencies in the images.
        precision: `float32`, `bfloat16`, `float16`, or `auto`: what the device is fast in.
        augment: whether images are scaled, flipped and recoloured at random.
        dropout: rate of the network's dropout layers, or of one put before the classifier; None:
            the network's own.
        seed: of weights, order and augmentation.
        workers: threads that read images.
        validate_every: epochs between two validations; the last epoch is always validated.

    Raises:
        UsageError: for values that make no sense.
    """

    epochs: int = 50
    batch: Annotated[int, Option("Images in a step, over all processes.")] = 8
    crop: Annotated[
        tuple[int, int] | None,
        Option("HxW of what a step sees. Default: the image, at most 512.", read=read_size),
    ] = None
    rate: Annotated[float | None, Option("Learning rate. Default: 1e-4, from scratch 1e-3.")] = None
    optimizer: Annotated[str, Option(f"{' or '.join(OPTIMIZERS)}.")] = "adamw"
    weight_decay: Annotated[float, Option("Of weights, not biases.")] = 0.01
    schedule: Annotated[str, Option(f"Of the rate: {', '.join(SCHEDULES)}.")] = "poly"
    warmup: Annotated[float, Option("Share of steps in which the rate rises.")] = 0.03
    clip: Annotated[float, Option("Largest norm of the gradient; 0: any.")] = 1.0
    class_weights: Annotated[
        float,
        Option(
            f"{', '.join(CLASS_WEIGHTS)}, or an exponent in [0, 1].",
            read=read_exponent,
            text="none",
        ),
    ] = 0.0
    precision: Annotated[str, Option(f"{', '.join(PRECISIONS)}.")] = "auto"
    augment: Annotated[bool, Option("Scale, flip and recolour.", "--augment/--no-augment")] = True
    dropout: Annotated[
        float | None,
        Option("Of dropout layers, or of one before the classifier.", "--dropout-rate"),
    ] = None
    seed: int = 0
    workers: Annotated[int, Option("Threads that read images.", group="Running")] = 2
    validate_every: Annotated[int, Option("Epochs between validations.")] = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                _refuse(name, f"one of {', '.join(known)}", getattr(self, name))
        for name in ("epochs", "batch", "workers", "validate_every"):
            if getattr(self, name) < 1:
                _refuse(name, "at least 1", getattr(self, name))
        for name in ("weight_decay", "clip", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                _refuse(name, "a finite number of at least 0", getattr(self, name))
        if self.seed >= 1 << 63:
            _refuse("seed", "below 2^63", self.seed)
        if self.rate is not None and not 0 < self.rate < math.inf:
            _refuse("rate", "a finite number above 0", self.rate)
        if not 0 <= self.class_weights <= 1:
            _refuse("class_weights", "an exponent in [0, 1]", self.class_weights)
        for name, share in (("warmup", self.warmup), ("dropout", self.dropout or 0.0)):
            if not 0 <= share < 1:
                _refuse(name, "a share in [0, 1)", share)
        if self.crop is not None and (len(self.crop) != 2 or min(self.crop) < 1):
            _refuse("crop", "(height, width) in pixels", self.crop)


def _refuse(name: str, expected: str, got: object) -> None:
    raise UsageError(f"train: expected {name} to be {expected}, got {got}. Correct it.")


@dataclass(frozen=True)
class SpectralOptions:
    """Of the recipe `Spectral`."""

    coefficient: Annotated[float, Option("The largest norm.")] = 3.0
    batch_norm: Annotated[bool, Option("Bound batch norms too.", "--normalize-batch-norm")] = False


@dataclass(frozen=True)
class DudesOptions:
    """Of the recipe `Dudes`."""

    teachers: Annotated[
        tuple[str, ...],
        Option("Networks of the same classes, separated by commas.", read=read_names),
    ] = ()
    target: Annotated[
        str, Option("What is learnt of them: spread, mutual_information, entropy or mean.")
    ] = "spread"
    cache: Annotated[
        str | Path | None,
        Option("Folder for what they say of whole images, asked once.", read=read_path),
    ] = None
    freeze: Annotated[bool, Option("Train the second head alone.")] = False
    mask_void: Annotated[bool, Option("Do not learn on pixels without label.")] = False
    hidden: Annotated[int, Option("Channels of a hidden layer of the second head.")] = 0
    layers: Annotated[
        tuple[str, ...],
        Option("Inner layers that the hidden layer hears too.", read=read_names),
    ] = ()
    folds: Annotated[
        int, Option("Groups of teachers, each trained --without-fold of its part.")
    ] = 1


@dataclass(frozen=True)
class NFlowJSOptions:
    """Of the recipe `NFlowJS`."""

    negatives: Annotated[
        str, Option("flow, real:FOLDER, noise, shuffled or none; several are mixed.")
    ] = "flow"
    divergence: Annotated[str, Option("From uniform: jsd, kl or reverse-kl.")] = "jsd"
    weight: Annotated[float, Option("What the divergence weighs.", "--divergence-weight")] = 1.0
    negative_class: Annotated[
        bool, Option("Teach negatives as a class of their own, too: score negative.")
    ] = False
    flow: Annotated[
        str | Path | None, Option("File of a trained flow. Default: train one.", read=read_path)
    ] = None
    freeze_flow: Annotated[bool, Option("Leave the flow as it is.")] = False
    patch: Annotated[
        tuple[int, int] | None,
        Option("MIN-MAX sides of patches, such as 16-80.", read=read_sides),
    ] = None
    flow_steps: Annotated[int, Option("Steps of the flow's own training.")] = 2000
    flow_rate: Annotated[float, Option("The flow's learning rate beside the network.")] = 1e-3
    flow_weight: Annotated[
        float | None,
        Option("What the divergence weighs for the flow. Default: the same."),
    ] = None
    flow_trust: Annotated[
        float, Option("Bits by which patches may be rarer than at the start; inf: any.")
    ] = 6.0
    flow_replay: Annotated[
        bool, Option("Draw from the flows of earlier epochs, too.", "--flow-replay/--newest-flow")
    ] = True


def rate_factor(step: int, steps: int, schedule: str, warmup: float) -> float:
    """What the largest learning rate is multiplied with, in (0, 1].

    A linear rise over the first `warmup * steps` steps, then `(1 - t)^0.9` (`poly`),
    `(1 + cos(pi t)) / 2` (`cosine`) or 1 (`constant`), where `t` in [0, 1) is the share of the
    steps that are done.

    Reference:
        ParseNet (Liu, Rabinovich, Berg, 2015), section 3.3, https://arxiv.org/abs/1506.04579, for
        `poly`.

    Example:
        >>> [round(rate_factor(step, 4, "poly", 0.0), 3) for step in range(4)]
        [1.0, 0.772, 0.536, 0.287]
    """
    done = step / steps
    rise = min(1.0, (step + 1) / max(1.0, warmup * steps))
    if schedule == "poly":
        return rise * math.pow(1 - done, 0.9)
    if schedule == "cosine":
        return rise * (1 + math.cos(math.pi * done)) / 2
    return rise
