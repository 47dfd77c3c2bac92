"""Outputs as networks return them: each is exact, said in a note, or refused with a way out."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from cases import CLASSES, NONE, Case, Net, binary, check, full, up

from doubtmap.models import load

NAMES = list("abcdef")
PROBABILITIES = ("The network returns probabilities",)
ASK = r"could be one sigmoid a class.*activation='sigmoid'.*--activation"


def rounded(p, steps=255):
    return (p * steps).round() / steps


def returns(wrap, come="exact", notes=(), near=1e-4, *, classes=CLASSES, loud=25.0, **more):
    """A network whose logits at the image's size go through `wrap`."""
    make = lambda: Net(lambda n, x: wrap(n.full(x)), classes=classes, loud=loud)  # noqa: E731
    return Case(make, come, notes, near=near, **more)


def softmax(wrap, near, come="exact", notes=(), **more):
    """A softmax that goes through `wrap`."""
    return returns(lambda z: wrap(z.softmax(1)), come, PROBABILITIES + notes, near, **more)


def of_classes(network, x):
    return network.full(x)[:, 1:].softmax(1)


BYTES = "multiplied by 255"
FORMS = {
    "logits": returns(lambda z: z),
    "log-softmax": returns(lambda z: z.log_softmax(1), notes=("log-probabilities",)),
    "log-softmax in half": returns(lambda z: z.log_softmax(1).half(), near=5e-3),
    "softmax": softmax(lambda p: p, 1e-5),
    "softmax in float16": softmax(lambda p: p.half(), 2e-3),
    "softmax in bfloat16": softmax(lambda p: p.bfloat16(), 1e-2),
    "softmax in bfloat16 as float32": softmax(lambda p: p.bfloat16().float(), 1e-2),
    "softmax in steps of 1/255": softmax(rounded, 1e-2, "plain", notes=("They are rounded",)),
    "softmax of 0 to 255": softmax(lambda p: p * 255, 1e-5, notes=(BYTES,)),
    "softmax in whole numbers to 255": softmax(
        lambda p: (p * 255).round(), 1e-2, "plain", notes=(BYTES, "They are rounded")
    ),
    "softmax in bytes": softmax(lambda p: (p * 255).round().byte(), 1e-2, "plain", notes=(BYTES,)),
    "softmax in percent": softmax(lambda p: p * 100, 1e-5, notes=("multiplied by 100",)),
    "softmax in tenths of percent": softmax(lambda p: rounded(p, 1000), 2e-3, "plain"),
    "softmax of 60 classes in float16": softmax(lambda p: p.half(), 2e-3, classes=60),
    "softmax of 60 classes in steps of 1/255": softmax(rounded, 2e-2, "plain", classes=60, loud=60),
    "softmax before the resize": Case(
        lambda: Net(lambda n, x: up(n.low(x).softmax(1), x.shape[-2:])), "plain", PROBABILITIES,
        lambda n, x: up(n.low(x).softmax(1), x.shape[-2:]),
    ),
    "softmax without its background": returns(lambda z: z.softmax(1)[:, 1:], ASK),
    "the same, said": returns(
        lambda z: z.softmax(1)[:, 1:], "plain", PROBABILITIES, truth=of_classes,
        options={"activation": "softmax"},
    ),
    "one sigmoid a class": returns(torch.sigmoid, notes=("one sigmoid a class",), near=1e-3),
    "one sigmoid a class of 0 to 255": returns(
        lambda z: 255 * z.sigmoid(), notes=("one sigmoid a class",), near=1e-3
    ),
    "the same, doubled": returns(lambda z: 255 * (2 * z).sigmoid(), ASK),
    "numbers above 0 that nothing proves": returns(
        lambda z: (2 * z).relu() + 1, "plain", ("No value is below 0",),
        truth=lambda n, x: (2 * n.full(x)).relu().softmax(1),
    ),
    "one sigmoid a class after a sum": returns(lambda z: (2 * z).sigmoid(), ASK, loud=1),
    "the same, said to be sigmoids": returns(
        lambda z: (2 * z).sigmoid(), "plain", ("one sigmoid a class",),
        truth=lambda n, x: (2 * n.full(x)).softmax(1), options={"activation": "sigmoid"}, loud=1,
    ),
    "the same, said to be logits": returns(
        lambda z: (2 * z).sigmoid(), "plain",
        truth=lambda n, x: (2 * n.full(x)).sigmoid().softmax(1),
        options={"activation": "none"}, loud=1, near=1e-6,
    ),
    "two sigmoids": returns(torch.sigmoid, classes=2, loud=2),
    "one channel, logits": returns(
        lambda z: z, notes=("one channel, the logit",), classes=1, truth=binary
    ),
    "one channel, a probability": returns(
        torch.sigmoid, notes=("one channel, the probability",), classes=1, truth=binary, loud=2
    ),
    "one channel, a probability of 0 to 255": returns(
        lambda z: 255 * z.sigmoid(), notes=("one channel, the probability",), classes=1,
        truth=binary,
    ),
    "one channel, a byte": returns(
        lambda z: (255 * z.sigmoid()).round().byte(), "class map", classes=1
    ),
    "one channel, named": returns(
        lambda z: z, classes=1, truth=binary, options={"classes": ["road"]}
    ),
    "a class map": returns(lambda z: z.argmax(1), "class map.*before argmax"),
    "a class map in bytes": returns(lambda z: z.argmax(1).byte(), "class map.*before argmax"),
    "a class map of one channel": returns(lambda z: z.argmax(1, keepdim=True), "before argmax"),
    "a class map in bytes, one channel": returns(
        lambda z: z.argmax(1, keepdim=True).byte(), "class map"
    ),
    "a class map in floats": returns(lambda z: z.argmax(1, keepdim=True).float(), "class map"),
    "a mask": returns(lambda z: (z[:, :1] > z[:, 1:2]).float(), "a mask.*before the threshold"),
    "one-hot": returns(
        lambda z: F.one_hot(z.argmax(1), CLASSES).movedim(-1, 1).float(), "one-hot"
    ),
    "one-hot in bytes": returns(
        lambda z: F.one_hot(z.argmax(1), CLASSES).movedim(-1, 1).byte(), "one-hot"
    ),
    "channels last": returns(lambda z: z.movedim(1, -1), notes=("last axis",)),
    "channels last, softmax": returns(
        lambda z: z.softmax(1).movedim(1, -1), notes=("last axis",)
    ),
    "channels last, a quarter": Case(
        lambda: Net(lambda n, x: n.low(x).movedim(1, -1)), notes=("last axis",)
    ),
    "channels last, one": returns(
        lambda z: z.movedim(1, -1), classes=1, truth=binary, notes=("last axis",)
    ),
    "a fifth axis of one": returns(lambda z: z[:, :, None]),
    "several scales in one tensor": returns(
        lambda z: torch.stack([z, z], 1), r"expected an output \(B, C, H, W\)"
    ),
    "no batch axis": returns(lambda z: z[0], r"expected an output \(B, C, H, W\)"),
    "one probability without an axis": returns(
        lambda z: z.sigmoid()[:, 0], r"expected an output \(B, C, H, W\)"
    ),
    "a class of minus infinity": returns(
        lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], -torch.inf)], 1),
        "plain", ("switched off",),
        truth=lambda n, x: F.pad(n.full(x)[:, :-1].softmax(1), (0, 0, 0, 0, 0, 1)),
    ),
    "a class of minus a thousand million": returns(
        lambda z: torch.cat([z[:, :-1], torch.full_like(z[:, :1], -1e9)], 1), "plain",
        truth=lambda n, x: F.pad(n.full(x)[:, :-1].softmax(1), (0, 0, 0, 0, 0, 1)),
    ),
    "not a number": returns(lambda z: z * float("nan"), "expected finite logits"),
    "an array": returns(lambda z: z.numpy(), "got ndarray.*[Ww]rap"),
    "text": returns(lambda z: "road", "got str"),
}  # fmt: skip


class Named(NamedTuple):
    logits: torch.Tensor
    feats: torch.Tensor


SEVERAL = "Of several outputs"
LISTED = r"expected one output that could be the scores, got .*--output"


def gives(wrap, come="exact", notes=(), **more):
    """`wrap` gets the network, the image, and the logits at the image's size."""
    return Case(lambda: Net(lambda n, x: wrap(n, x, n.full(x))), come, notes, **more)


CONTAINERS = {
    "(main, auxiliary)": gives(lambda n, x, z: (z, n.low(x) * 0.1), notes=(SEVERAL,)),
    "[auxiliary, main], one of them proven": gives(lambda n, x, z: [1 - 0.3 * z * z, z]),
    "[auxiliary, main]": gives(lambda n, x, z: [n.low(x) * -0.3, n.body(x)[:, :6] * 2], LISTED),
    "the same, by place": gives(
        lambda n, x, z: [n.low(x) * -0.3, z], options={"output": 1}, truth=full
    ),
    "the same, by place from the end": gives(
        lambda n, x, z: [n.low(x) * -0.3, z], options={"output": -1}
    ),
    "(features, logits)": gives(lambda n, x, z: (n.body(x), n.low(x)), notes=(SEVERAL,)),
    "(features, logits) with names": gives(
        lambda n, x, z: (n.body(x), n.low(x)), options={"classes": NAMES}
    ),
    "(depth, logits)": gives(lambda n, x, z: (n.body(x)[:, :1], z)),
    "(logits, depth)": gives(lambda n, x, z: (z, n.body(x)[:, :1])),
    "(offsets, logits)": gives(lambda n, x, z: (n.body(x)[:, :2], z), notes=(SEVERAL,)),
    "(logits, offsets)": gives(lambda n, x, z: (z, n.body(x)[:, :2])),
    "scales, the full first": gives(lambda n, x, z: [z, F.avg_pool2d(z, 2) * 0.5]),
    "scales, the full last": gives(lambda n, x, z: [F.avg_pool2d(z, 8) * 0.5, z]),
    "two scales of one layer": gives(lambda n, x, z: [F.avg_pool2d(z, 8), n.low(x), z]),
    "out and aux": gives(lambda n, x, z: {"out": z, "aux": -z}),
    "aux and out": gives(lambda n, x, z: {"aux": -z, "out": z}, notes=(SEVERAL,)),
    **{
        name: gives(lambda n, x, z, name=name: {name: z})
        for name in ("pred", "sem_seg", "seg_logits", "semantic", "main", "masks", "preds", "x")
    },
    "a name of the user's": gives(lambda n, x, z: {"a": -z, "b": z}, options={"output": "b"}),
    "a name that is not there": gives(
        lambda n, x, z: {"a": -z, "b": z}, r"got 'c'\. It returns a", options={"output": "c"}
    ),
    "logits and class map": gives(lambda n, x, z: (z, z.argmax(1))),
    "class map and logits": gives(lambda n, x, z: (z.argmax(1), z)),
    "a named tuple": gives(lambda n, x, z: Named(z, n.body(x))),
    "an object": gives(lambda n, x, z: SimpleNamespace(pred=z)),
    "nested": gives(lambda n, x, z: ((z,), n.body(x).mean((2, 3)))),
    "Detectron2's list of one dict an image": gives(
        lambda n, x, z: [{"sem_seg": z[0]}], r"list of 0\.sem_seg"
    ),
    "boxes and prototypes": gives(
        lambda n, x, z: (torch.rand(len(x), 38, 84), torch.rand(len(x), 32, 8, 8)),
        "instance segmentation",
    ),
    "a list of feature maps": gives(
        lambda n, x, z: [n.body(x), F.avg_pool2d(n.body(x), 2)], LISTED
    ),
    "nothing": gives(lambda n, x, z: (), "tuple of nothing"),
    "None": gives(lambda n, x, z: None, "got NoneType"),
}


@pytest.mark.parametrize("name", FORMS)
def test_form_of_the_output(name):
    check(FORMS[name])


@pytest.mark.parametrize("name", CONTAINERS)
def test_which_output(name):
    check(CONTAINERS[name])


def test_probabilities_of_0_to_255_that_are_never_sure_are_noted():
    segmenter = load(Net(lambda n, x: 100 + 50 * n.full(x).sigmoid(), classes=1), **NONE)
    segmenter(torch.rand(1, 3, 32, 32))
    assert any("No value is below 0" in note for note in segmenter.description["notes"])
