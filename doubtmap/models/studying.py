"""What one image tells of a network: which output is meant, its form, its grid, its classifier."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from doubtmap.errors import ModelError, NotFinite, UsageError
from doubtmap.kernels import recording
from doubtmap.models.backend import Answer, LastLayer, Runner, Source, Tap
from doubtmap.models.classifiers import Classifier, best_fit, find_classifier
from doubtmap.models.forms import (
    Activation,
    Form,
    Kind,
    channels_last,
    fits,
    form_of,
    given_form,
    masked,
    padded_inside,
    refuse_decided,
)
from doubtmap.models.outputs import Leaf, candidates, leaves, picked, queries_of, too_many
from doubtmap.models.preprocessing import Resize

GROWN = (32, 64, 128)
"""Pixels by which an image grows, to see how the grid of the output follows."""
RANDOM = 1e-3
"""Difference of two passes, relative to the spread, above which a network is called random."""
NOT_FINITE = (
    "network: expected finite logits, got NaN or infinity. Check the network's weights, or run it "
    "in float32."
)
NONE_BELOW = (
    "No value is below 0, and no layer proves them to be logits; they are taken for logits. Pass "
    "activation='softmax' or 'sigmoid' (--activation) if they are multiples of probabilities."
)

LOGITS = Form("logits")


@dataclass(frozen=True)
class Reading:
    """How to read a prediction from the network's output.

    Args:
        form: what the numbers are.
        channels: number of classes.
        output: name of the output that is taken.
        last: whether classes lie on its last axis.
        classifier: the layer that reproduces the output, where there is one.
        features_missing: half a sentence that says why there is none.
        notes: what a reader of the results should know.
    """

    form: Form = LOGITS
    channels: int = 0
    output: str = ""
    last: bool = False
    classifier: Classifier | None = None
    features_missing: str = ""
    notes: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether no later image could tell more."""
        return self.classifier is None or self.classifier.decided


@dataclass(frozen=True)
class Asked:
    """What the user says of a network.

    Args:
        classifier: name of the last layer.
        output: name or place of the output that is meant.
        activation: what the network's last step is.
        resize: how images are resized, where it is not the network's own way.
    """

    classifier: str | None = None
    output: str | None = None
    activation: Activation | None = None
    resize: Resize | None = None

    def described(self) -> dict[str, object]:
        """For results files."""
        return asdict(self)


def answered(
    runner: Runner, reading: Reading, x: Tensor, taps: Collection[str]
) -> tuple[Answer, Tensor]:
    """Run the network, and see to it that its output's grid is the image stretched.

    Args:
        runner: of the network; it learns what this image tells about sizes.
        reading: which output is taken.
        x: `(B, 3, H, W)`, normalised.
        taps: names of the layers to listen to.

    Returns:
        The answer, and scores `(B, C, h, w)`; C may be 1.

    Raises:
        ModelError: for another number of outputs than images, or a grid that stands for something
            else than the image.
    """
    for _ in range(3):
        answer = runner(x, taps)
        scores = _scores(reading, answer)
        if recording(x):  # of what was studied before
            return answer, scores
        grid, sides = tuple(scores.shape[-2:]), answer.sides
        shown = (sides[0] - 2 * runner.margin, sides[1] - 2 * runner.margin)
        if fits(grid, shown) or (runner.stretched and not runner.margin):
            return answer, scores
        if runner.margin:
            break
        divisors = padded_inside(grid, sides)
        if any(_undone(runner, reading, x, divisor) for divisor in divisors):
            continue
        if not _followed(runner, reading, x, answer, grid):
            break
    raise ModelError(
        f"network: expected an output that is the image stretched, got a grid of {grid[0]}x"
        f"{grid[1]} for {sides[0]}x{sides[1]} pixels, which is no whole fraction of it. Pad inside "
        f"the network, or return an output of the input's size."
    )


def _undone(runner: Runner, reading: Reading, x: Tensor, divisor: int) -> bool:
    """See whether images padded to multiples of a number give a grid that is theirs stretched."""
    before = runner.divisor
    if divisor <= (before or 1):
        return False
    runner.divisor = divisor
    answer = runner(x)
    if fits(tuple(_scores(reading, answer).shape[-2:]), answer.sides):
        return True
    runner.divisor = before
    return False


def _followed(
    runner: Runner, reading: Reading, x: Tensor, answer: Answer, grid: tuple[int, ...]
) -> bool:
    """See how the grid follows a larger image: with a constant margin, or stretched."""
    sides = answer.sides
    if runner.backend.fixed_size is not None:
        runner.stretched = True
        return True
    for more in GROWN:
        grown = F.pad(answer.given[:1], (0, more, 0, more), mode="replicate")
        try:
            again = runner.alone(grown)
        except (RuntimeError, ValueError, AssertionError, ModelError):
            continue  # this size is refused; another may not be
        larger = tuple(_scores(reading, again).shape[-2:])
        lost = [side - out for side, out in zip(sides, grid)]
        if lost == [side + more - out for side, out in zip(sides, larger)]:
            if lost[0] != lost[1] or lost[0] < 0 or lost[0] % 2:
                return False
            runner.margin = lost[0] // 2
            return True
        runner.stretched = larger == grid or all(
            abs(new / (side + more) - old / side) <= 2 / side
            for new, old, side in zip(larger, grid, sides)
        )
        return runner.stretched
    return False


def _scores(reading: Reading, answer: Answer) -> Tensor:
    """The output that is taken, classes on axis 1, one for each image."""
    parts = [_taken(reading, part) for part in answer.parts]
    if recording(answer.given):
        return masked(parts[0])[0]
    if other := [len(part) for part in parts if len(part) != answer.at_once]:
        raise ModelError(
            f"network: expected one output for each of {answer.at_once} images, got {other[0]}. "
            f"Pass images one at a time, or fix the network's batch axis."
        )
    scores = parts[0] if len(parts) == 1 else torch.cat(parts)
    return masked(scores[: len(answer.given)])[0]


def _taken(reading: Reading, part: object) -> Tensor:
    taken = picked(part, reading.output)
    return taken.movedim(-1, 1) if reading.last else taken


def study(source: Source, runner: Runner, x: Tensor, asked: Asked) -> Reading:
    """Learn from one image what the output is and which layer is the classifier.

    Args:
        source: the opened network.
        runner: of it.
        x: `(1, 3, H, W)`, normalised.
        asked: what the user says of it.

    Raises:
        UsageError: for class names of the user that are not as many as the classes.
        ModelError: for an output that is not understood, or could be several things.
        NotFinite: for an output that is not finite.
    """
    answer = runner(x)
    if queries_of(answer.parts[0]) is not None:
        return _queries(source, answer, asked)
    found = candidates(answer.parts[0], asked.output, len(source.class_names) or None)
    several = len(candidates_of(answer)) > 1
    if len(found) > 1:
        found = _proven(runner, x, found) or found
    if len(found) > 1:
        raise ModelError(too_many(found))
    shape, names = tuple(found[0].tensor.shape), len(source.class_names) or None
    reading = Reading(output=found[0].name, last=channels_last(shape, answer.sides, names))
    _, scores = answered(runner, reading, x, ())
    if not bool(torch.isfinite(scores).all()):
        raise NotFinite.of(NOT_FINITE, scores)
    refuse_decided(scores)
    _check_names(source, scores.shape[1])
    reading = replace(reading, channels=max(2, scores.shape[1]))
    notes = list(_notes(runner, reading, answer, several and asked.output is None))
    if off := masked(_taken(reading, answer.parts[0]))[1]:
        notes.append(f"{off} classes are minus infinity everywhere; they are switched off.")
    return _read(replace(reading, notes=tuple(notes)), runner, x, scores, asked)


def candidates_of(answer: Answer) -> list[Leaf]:
    """Tensors of the output that are maps of several channels."""
    return [leaf for leaf in leaves(answer.parts[0]) if leaf.tensor.ndim == 4]


def _queries(source: Source, answer: Answer, asked: Asked) -> Reading:
    classes, _ = queries_of(answer.parts[0]) or (torch.zeros(1, 1, 1), None)
    missing = "a network that predicts by queries has no per-pixel classifier"
    if asked.classifier is not None:
        raise ModelError(f"classifier={asked.classifier!r}: {missing}. Leave it out.")
    channels = classes.shape[-1] - 1
    _check_names(source, channels)
    note = (
        "Logits are the logarithm of per-pixel scores put together from the queries; of their "
        "scores, rejected is made for such networks."
    )
    return Reading(Form("queries"), channels, features_missing=missing, notes=(note,))


def _check_names(source: Source, channels: int) -> None:
    count = max(2, channels)
    if source.class_names and len(source.class_names) != count:
        mistake = UsageError if source.names_given else ModelError
        raise mistake(
            f"network: expected {len(source.class_names)} channels, one for each class name, got "
            f"{channels}. Pass classes= with {count} names."
        )


def _notes(runner: Runner, reading: Reading, answer: Answer, several: bool) -> list[str]:
    notes = []
    if several:
        others = [str(leaf) for leaf in candidates_of(answer) if leaf.name != reading.output]
        notes.append(
            f"Of several outputs {reading.output!r} is taken, not {', '.join(others)}; pass "
            f"output= for another."
        )
    if reading.last:
        notes.append("The network's output has its classes on the last axis.")
    if runner.margin:
        notes.append(
            f"The network's output lacks {runner.margin} pixels on every side; images are mirrored "
            f"by as many round their border."
        )
    elif runner.stretched:
        notes.append("The output's grid is no whole fraction of the image; it is stretched to it.")
    return notes


def _proven(runner: Runner, x: Tensor, found: list[Leaf]) -> list[Leaf]:
    """Those of several outputs that a last layer reproduces."""
    layers = _layers(runner, {leaf.tensor.shape[1] for leaf in found})
    answer = runner(x, list(layers))
    proven: dict[str, list[Leaf]] = {}
    for leaf in found:
        scores = picked(answer.parts[0], leaf.name)
        form = form_of(scores)
        classifier = find_classifier(answer.last_calls(), layers, scores, form, answer.sides)
        if classifier:
            proven.setdefault(classifier.name, []).append(leaf)
    if len(proven) == 1:  # one layer at several sizes
        return [max(next(iter(proven.values())), key=lambda leaf: leaf.tensor[0].numel())]
    return [leaf for each in proven.values() for leaf in each]


def _layers(runner: Runner, channels: Collection[int]) -> dict[str, LastLayer]:
    known = runner.backend.last_layers
    return {name: layer for name, layer in known.items() if layer.channels in channels}


def _read(reading: Reading, runner: Runner, x: Tensor, before: Tensor, asked: Asked) -> Reading:
    """Tell the form and the classifier, from a second pass over the image."""
    known = runner.backend.last_layers
    layers = (
        _layers(runner, {before.shape[1]})
        if asked.classifier is None
        else {asked.classifier: known[asked.classifier]}
    )
    answer, scores = answered(runner, reading, x, list(layers))
    notes = [*reading.notes, *_random(before, scores)]
    form = form_of(scores) if asked.activation is None else given_form(scores, asked.activation)
    kinds: tuple[Kind, ...] = ("logits", "sigmoid") if form.kind == "unknown" else (form.kind,)
    forms = [replace(form, kind=kind) for kind in kinds]
    found: Classifier | None
    if asked.classifier is not None:
        form, found = _verified(answer, asked.classifier, layers, scores, forms)
    else:
        calls = answer.last_calls()
        tried = [(f, find_classifier(calls, layers, scores, f, answer.sides)) for f in forms]
        form, found = next((pair for pair in tried if pair[1]), (form, None))
    if form.kind == "unknown":
        form, note = _assumed(form, scores)
        notes.append(note)
    notes += _of_form(form, scores)
    if form.kind == "logits" and found is None and asked.activation is None and scores.min() >= 0:
        notes.append(NONE_BELOW)
    missing = "" if found else _none_reproduces(known)
    return replace(
        reading, form=form, classifier=found, features_missing=missing, notes=tuple(notes)
    )


def _random(before: Tensor, after: Tensor) -> list[str]:
    """A note where two passes over one image differ."""
    if before.shape != after.shape:
        return ["The network is random: two passes over one image gave other shapes."]
    low, high = (bound.item() for bound in before.float().aminmax())
    largest = (before.float() - after.float()).abs().max().item()
    if largest <= max(RANDOM * (high - low), 4 * _eps(before) * max(abs(low), abs(high))):
        return []
    return [
        f"The network is random in evaluation mode: two passes over one image differ by up to "
        f"{largest:.3g}, of a spread of {high - low:.3g}; results change from run to run."
    ]


def _eps(x: Tensor) -> float:
    return torch.finfo(x.dtype if x.is_floating_point() else torch.float32).eps


def _assumed(form: Form, scores: Tensor) -> tuple[Form, str]:
    """What a single channel in [0, 1] is taken for; several are asked for."""
    if scores.shape[1] > 1:
        low, high = (bound.item() for bound in scores.float().sum(1).aminmax())
        raise ModelError(
            f"network: expected logits or a softmax, got {scores.shape[1]} channels of values in "
            f"[0, {form.scale:g}] whose sums lie between {low:.3g} and {high:.3g}, which could be "
            f"one sigmoid a class. Pass activation='sigmoid', 'softmax' or 'none' (--activation)."
        )
    note = (
        f"The one channel has values in [0, {form.scale:g}]; it is taken for the probability of "
        f"the second class. Pass activation='none' (--activation none) if it is a logit."
    )
    return replace(form, kind="sigmoid"), note


def _of_form(form: Form, scores: Tensor) -> list[str]:
    notes = []
    one = scores.shape[1] == 1
    if form.kind in ("softmax", "sigmoid") and form.scale != 1:
        notes.append(f"Probabilities are multiplied by {form.scale:g}, and divided by it again.")
    if form.kind == "softmax":
        notes.append("The network returns probabilities; their logarithm is used as logits.")
        if form.rounded:
            low, high = (bound.item() / form.scale for bound in scores.float().sum(1).aminmax())
            notes.append(
                f"They are rounded and sum to between {low:.3g} and {high:.3g}; they are brought "
                f"to 1."
            )
    elif form.kind == "log_softmax":
        notes.append("The network returns log-probabilities.")
    elif form.kind == "sigmoid" and not one:
        notes.append(
            "The network returns one sigmoid a class; their logits are used as if classes excluded "
            "each other."
        )
    if one:
        what = "probability" if form.kind == "sigmoid" else "logit"
        notes.append(f"The network returns one channel, the {what} of the second of two classes.")
    return notes


def _none_reproduces(known: Mapping[str, LastLayer]) -> str:
    way = f"; density can name a layer: density(layer={[*known][-1]})" if known else ""
    return (
        f"no last layer of this network, convolution or linear, reproduces its output "
        f"(gradient(of=bias) needs no features{way})"
    )


def _verified(
    answer: Answer,
    name: str,
    layers: Mapping[str, LastLayer],
    scores: Tensor,
    forms: list[Form],
) -> tuple[Form, Classifier]:
    """The classifier that the user named, once it has been seen to reproduce the output."""
    start = f"classifier={name!r}: expected the layer to reproduce the network's output"
    advice = "Name the last layer, or leave it out and let it be searched for."
    call: Tap | None = answer.call(name)
    if call is None:
        raise ModelError(f"{start}, but the network never called it. {advice}")
    tried = [(f, best_fit(call, layers[name], scores, f, answer.sides)) for f in forms]
    fitting = [(form, fit) for form, fit in tried if fit is not None]
    if not fitting:
        shapes = f"{tuple(call.output.shape)} against {tuple(scores.shape)}"
        raise ModelError(f"{start}, got shapes {shapes}. {advice}")
    form, fit = min(fitting, key=lambda pair: pair[1].difference)
    if not fit.good:
        raise ModelError(
            f"{start}, got a largest difference of {fit.difference:.4g} where {fit.allowed:.4g} is "
            f"allowed. {advice}"
        )
    return form, fit.classifier


def unknown_classifier(name: str, known: list[str]) -> str:
    """What to say of a classifier that the network has not."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[-3:]
    names = f"Near names: {', '.join(near)}" if near else "This network has none; leave it out"
    return (
        f"classifier: expected the name of a last layer (an ungrouped convolution of stride 1, a "
        f"linear layer), got {name!r}. {names}."
    )
