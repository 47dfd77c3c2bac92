"""Networks as people build them: strides, last layers, and what they are kept in."""

import pytest
import torch
import torch.nn.functional as F
from cases import CLASSES, WIDTH, Case, Net, at_full, check, corners, full, net, up, whole
from torch import nn

LARGE = ((1, 64, 96), (2, 96, 64))


STRIDES = {
    **{
        f"native, stride {s}": net(lambda n, x: n.low(x), at={"stride": s}, batches=LARGE)
        for s in (1, 2, 4, 8, 16)
    },
    **{
        f"bilinear, stride {s}": net(at_full, at={"stride": s}, batches=LARGE)
        for s in (2, 4, 8, 16)
    },
    **{
        f"bilinear with aligned corners, stride {s}": net(
            lambda n, x: n.full(x, True), at={"stride": s}, truth=corners, batches=LARGE,
            says={"align_corners": True},
        )
        for s in (2, 4, 8)
    },
    "half way, bilinear": net(
        lambda n, x: up(n.low(x), (x.shape[-2] // 2, x.shape[-1] // 2)), at={"stride": 8},
        truth=whole, batches=LARGE,
    ),
    "bicubic": net(
        lambda n, x: F.interpolate(n.low(x), x.shape[-2:], mode="bicubic"), "plain", truth=whole
    ),
    "nearest": net(lambda n, x: F.interpolate(n.low(x), x.shape[-2:]), "plain", truth=whole),
    "twice the image": net(
        lambda n, x: up(n.low(x), (2 * x.shape[-2], 2 * x.shape[-1])), truth=whole
    ),
    "sides that are no multiples": net(at_full, batches=((1, 45, 71), (2, 33, 50))),
    "pixels": net(at_full, at={"stride": 1}, batches=((1, 9, 7), (1, 8, 8))),
}  # fmt: skip


class Transposed(Net):
    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.head = nn.ConvTranspose2d(WIDTH, CLASSES, 4, 4)
        self.head.weight.data.mul_(25)


class Overlapping(Net):
    """A transposed convolution each of whose outputs sees four inputs."""

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.head = nn.ConvTranspose2d(WIDTH, CLASSES, 8, 4, 2)
        self.head.weight.data.mul_(25)


class Tokens(Net):
    """A linear head on tokens, as DINOv2's and Segmenter's; `before` tokens come first."""

    def __init__(self, forwards, before=0, **more):
        super().__init__(forwards, **more)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.head.weight.data.mul_(25)
        self.before = before

    def low(self, x):
        f = self.body(x)
        rows, columns = f.shape[-2:]
        tokens = F.pad(f.flatten(2).mT, (0, 0, self.before, 0))
        return self.head(tokens)[:, self.before :].mT.reshape(len(x), -1, rows, columns)


class OnLast(Net):
    """A linear head on maps whose features lie on the last axis, as Swin's."""

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.head.weight.data.mul_(25)

    def low(self, x):
        return self.head(self.body(x).movedim(1, -1)).movedim(-1, 1)


class Functional(Net):
    def low(self, x):
        return F.conv2d(self.body(x), self.head.weight, self.head.bias)


class Cosine(Net):
    """As open vocabulary networks: cosine with an embedding of each class."""

    def low(self, x):
        classes = F.normalize(self.head.weight[..., 0, 0], dim=1)
        return 20 * torch.einsum("bdhw,cd->bchw", F.normalize(self.body(x), dim=1), classes)


class Normalised(Net):
    """A 1x1 convolution, then a batch normalisation."""

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.after = nn.BatchNorm2d(CLASSES)
        self.after.running_var.fill_(4.0)

    def low(self, x):
        return self.after(self.head(self.body(x)))


class TwoHeads(Net):
    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.other = nn.Conv2d(WIDTH, CLASSES, 1)
        self.other.weight.data.mul_(9)

    def low(self, x):
        features = self.body(x)
        return self.head(features) + self.other(features)


class Grouped(Net):
    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self.head = nn.Sequential(nn.Conv2d(WIDTH, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 1, groups=2))
        self.head[2].weight.data.mul_(99)


def parametrised():
    n = Net(at_full)
    n.head = nn.utils.parametrizations.spectral_norm(n.head)
    n.head.parametrizations.weight.original.data.mul_(25)
    return n


def dropped():
    n = Net(at_full)
    n.head = nn.Sequential(nn.Dropout2d(0.1), n.head)
    return n


def padded_by(mode):
    n = Net(at_full, k=3)
    n.head.padding_mode = mode
    n.head._reversed_padding_repeated_twice = [1] * 4
    return n


def dilated():
    n = Net(at_full)
    n.head = nn.Conv2d(WIDTH, CLASSES, 3, padding=2, dilation=2)
    n.head.weight.data.mul_(9)
    return n


LAST_LAYERS = {
    "1x1": net(at_full),
    "3x3": net(at_full, at={"k": 3}),
    "5x5": net(at_full, at={"k": 5}),
    "3x3, native": net(lambda n, x: n.low(x), at={"k": 3}),
    "3x3 at the image's size": net(lambda n, x: n.low(x), at={"k": 3, "stride": 1}),
    "3x3, half way": net(
        lambda n, x: up(n.low(x), (x.shape[-2] // 2, x.shape[-1] // 2)), "plain",
        at={"k": 3, "stride": 8}, truth=whole, batches=LARGE,
    ),
    "3x3 that reflects": Case(lambda: padded_by("reflect")),
    "3x3 dilated": Case(dilated),
    "transposed": net(lambda n, x: n.low(x), kind=Transposed),
    "transposed, overlapping": net(lambda n, x: n.low(x), "plain", kind=Overlapping),
    "linear on tokens": net(at_full, kind=Tokens),
    "linear on tokens, a class token before": net(at_full, kind=Tokens, at={"before": 1}),
    "linear on tokens, registers before": net(at_full, kind=Tokens, at={"before": 5}),
    "linear on maps": net(at_full, kind=OnLast),
    "a function": net(at_full, "plain", kind=Functional),
    "cosine": net(at_full, "plain", kind=Cosine),
    "normalised": net(at_full, "plain", kind=Normalised),
    "the sum of two": net(at_full, "plain", kind=TwoHeads),
    "grouped": net(at_full, "plain", kind=Grouped),
    "spectral norm": Case(parametrised),
    "dropout before": Case(dropped),
    "named": net(at_full, options={"classifier": "head"}),
    "named wrongly": net(at_full, r"Near names: head", options={"classifier": "heed"}),
}  # fmt: skip


def bare(make):
    """What is brought, whose own `full` is the inner network's."""
    return lambda n, x: make(n).full(x).softmax(1)


OBJECTS = {
    "in training mode": Case(lambda: Net(at_full).train()),
    "frozen": Case(lambda: Net(at_full).requires_grad_(False)),
    "float16": Case(lambda: Net(at_full).half(), truth=lambda n, x: full(n, x.half()), near=1e-3),
    "bfloat16": Case(
        lambda: Net(at_full).bfloat16(), truth=lambda n, x: full(n, x.bfloat16()), near=1e-3
    ),
    "float64": Case(lambda: Net(at_full).double(), truth=lambda n, x: full(n, x.double())),
    "channels last in memory": Case(lambda: Net(at_full).to(memory_format=torch.channels_last)),
    "DataParallel": Case(lambda: nn.DataParallel(Net(at_full)), truth=bare(lambda n: n.module)),
    "torch.compile": Case(
        lambda: torch.compile(Net(at_full), backend="eager"), truth=bare(lambda n: n._orig_mod)
    ),
    "nn.Sequential": Case(
        lambda: nn.Sequential(Net().body, Net().head, nn.Upsample(scale_factor=4, mode="bilinear")),
        truth=whole,
    ),
    "a function, not a module": Case(lambda: at_full, "got function"),
    "modules in a list": Case(lambda: [Net()], "got list"),
    "a state dict": Case(lambda: Net().state_dict(), "got OrderedDict"),
}  # fmt: skip


TABLES = {"stride": STRIDES, "last layer": LAST_LAYERS, "object": OBJECTS}
ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


@pytest.mark.parametrize("name", ROWS)
def test_network(name):
    check(ROWS[name])
