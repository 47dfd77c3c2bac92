"""Networks as people build them: classifiers, grids, habits from call to call, and inputs."""

import collections

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import CLASSES, NONE, WIDTH, Case, Net, binary, check, corners, full, loud, up, whole
from torch import nn

LARGE = ((1, 64, 96), (2, 96, 64))


def net(forwards, come="exact", notes=(), **more):
    """A row of one forward pass; `kind` is the class, `at` what it is built with."""
    at, kind = more.pop("at", {}), more.pop("kind", Net)
    return Case(lambda: kind(forwards, **at), come, notes, **more)


def at_full(n, x):
    return n.full(x)


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


def slides(n, x):
    """Windows of 32 pixels, as mmseg's slide mode."""
    rows = [torch.cat([n.full(p) for p in row.split(32, 3)], 3) for row in x.split(32, 2)]
    return torch.cat(rows, 2)


def gated(n, x):
    """Bright images lose the class that they have most."""
    z = n.full(x)
    most = z.mean((2, 3), keepdim=True) == z.mean((2, 3), keepdim=True).amax(1, keepdim=True)
    return torch.where(most & (x.mean() > 0), z - 100, z)


def flips(n, x):
    return (n.full(x) + n.full(x.flip(-1)).flip(-1)) / 2


def through(forwards):
    return lambda n, x: forwards(n, x).softmax(1)


LATE = ("On some images 'head' does not reproduce",)
SMALL_LARGE = ((1, 32, 32), (1, 64, 64), (2, 32, 96))
HABITS = {
    "a sliding window, small then large": net(
        slides, "", LATE, truth=through(slides), batches=SMALL_LARGE, bright=(1, 1, 1)
    ),
    "a sliding window, large first": net(
        slides, "", truth=through(slides), batches=SMALL_LARGE[::-1], bright=(1, 1, 1)
    ),
    "image by image": net(
        lambda n, x: torch.cat([n.full(i[None]) for i in x]), batches=((1, 32, 48), (3, 32, 48))
    ),
    "image by image, three first": net(
        lambda n, x: torch.cat([n.full(i[None]) for i in x]), batches=((3, 32, 48), (1, 32, 48))
    ),
    "dark, then bright": net(gated, "", LATE, truth=through(gated), bright=(0.3, 1.0)),
    "bright, then dark": net(gated, "", truth=through(gated), bright=(1.0, 0.3)),
    "flips": net(flips, "", truth=through(flips)),
    "called twice": net(lambda n, x: (n.full(x.flip(-1)), n.full(x))[1]),
    "one size only": net(
        lambda n, x: n.full(x) if x.shape[-2:] == (32, 48) else 1 / 0, options={"input_size": (32, 48)},
        batches=((1, 32, 48), (2, 32, 48)),
    ),
}  # fmt: skip


class Padded(Net):
    """Gives each pixel its own value after padding, cutting or cropping inside."""

    def __init__(self, before=lambda x: x, after=lambda z: z):
        super().__init__(lambda n, x: after(n.low(before(x))))
        self.body = nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.ReLU())

    def full(self, x, align_corners=False):
        return self.low(x)


def up_to(d):
    return lambda x: F.pad(x, (0, -x.shape[3] % d, 0, -x.shape[2] % d), mode="replicate")


def down_to(d):
    return lambda x: x[..., : x.shape[2] // d * d, : x.shape[3] // d * d]


ODD = ((1, 45, 71), (2, 70, 45))
RATIO = lambda z: F.interpolate(z, scale_factor=4 / 7, mode="bilinear")  # noqa: E731


def doubles():
    """Halves five times and doubles as often: its output is longer than the image."""
    down = [m for _ in range(3) for m in (nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())]
    ups = [m for _ in range(3) for m in (nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU())]
    for layer in (*down[::2], *ups[::2]):
        layer.weight.data.mul_(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), *down, *ups, nn.Conv2d(8, CLASSES, 1))
    return loud(network, network[-1], torch.rand(2, 3, 32, 32), lambda z: z)


def floors():
    """Pools three times and multiplies by eight: its output is shorter than the image."""
    pools = [m for _ in range(3) for m in (nn.Conv2d(8, 8, 3, 1, 1), nn.MaxPool2d(2))]
    last = nn.Conv2d(8, CLASSES, 1), nn.Upsample(scale_factor=8, mode="bilinear")
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), *pools, *last)
    return loud(network, last[0], torch.rand(2, 3, 32, 32), lambda z: z)


def padded_before(d):
    def truth(n, x):
        height, width = x.shape[-2:]
        given = F.pad(x, (0, -width % d, 0, -height % d), mode="replicate")
        return n(given)[..., :height, :width].softmax(1)

    return truth


def mirrored(n, x):
    return n(F.pad(x, (4,) * 4, mode="reflect")).softmax(1)


def valid():
    layers = (nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 8, 5), nn.ReLU(), nn.Conv2d(8, 6, 1))
    layers[-1].weight.data.mul_(25)
    return nn.Sequential(*layers)


GRIDS = {
    **{
        f"padded to {d} inside": Case(lambda d=d: Padded(up_to(d)), batches=ODD)
        for d in (2, 8, 32, 64)
    },
    **{f"cut to {d} inside": Case(lambda d=d: Padded(down_to(d)), batches=ODD) for d in (8, 32)},
    "a decoder that doubles": Case(doubles, truth=padded_before(8), batches=ODD, near=1e-3),
    "pooling that rounds down": Case(floors, truth=padded_before(8), batches=ODD, near=1e-3),
    "valid convolutions": Case(valid, "exact", ("lacks 4 pixels",), mirrored),
    "a rim on one side": Case(
        lambda: Padded(after=lambda z: F.pad(z, (0, 40, 0, 8), mode="replicate")),
        "the image stretched, got a grid of",
    ),
    "a cut on one side": Case(
        lambda: Padded(after=lambda z: z[..., 3:, :-2]), "the image stretched, got a grid of"
    ),
    "another ratio": Case(
        lambda: Padded(after=RATIO), "", ("no whole fraction",),
        lambda n, x: up(RATIO(n.low(x)), x.shape[-2:]).softmax(1), batches=((1, 42, 70), (1, 70, 42)),
    ),
}  # fmt: skip


class Takes(Net):
    """Other arguments than one tensor of images on axis 0 and colours on axis 1."""

    def __init__(self, forwards, call):
        super().__init__(forwards)
        self.forward = call.__get__(self)


def with_metas(self, x, metas):
    return self.low(x)


def by_keyword(self, *, pixel_values):
    return self.low(pixel_values)


def of_dict(self, given):
    return self.low(given["image"])


def of_list(self, given):
    return self.low(torch.stack([each["image"] for each in given]))


def of_last(self, x):
    return self.low(x.permute(0, 3, 1, 2))


def takes(call, come):
    return Case(lambda: Takes(None, call), come)


NORM5 = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
INPUTS = {
    "needs metas": takes(with_metas, "it raised TypeError.*Run it by itself"),
    "by keyword": takes(by_keyword, "it raised TypeError"),
    "a dict": takes(of_dict, "it raised IndexError"),
    "a list of dicts": takes(of_list, "it raised"),
    "colours on the last axis": takes(of_last, "images of 3 bands|it refused an image"),
    **{
        f"{count} bands": net(
            at_full, at={"bands": count}, bands=count,
            options={"mean": (0.5,) * count, "std": (0.25,) * count},
        )
        for count in (1, 2, 4, 6, 12)
    },
    "4 bands, images of 3": net(at_full, r"images of 4 bands, got 3", at={"bands": 4}),
    "bands 1, 3, 2, 8 of 8": net(
        at_full, at={"bands": 4}, bands=8,
        options={"bands": (1, 3, 2, 8), "mean": (0,) * 4, "std": (1,) * 4},
    ),
    "no normalisation": net(at_full, options=NONE, says={"notes": [], "normalisation": "given"}),
    "normalisation of .5": net(at_full, options=NORM5),
    "ImageNet's, assumed": net(at_full, notes=("are assumed",), says={"normalisation": "assumed"}),
    "of 0 to 255": net(
        at_full, r"--mean 0\.4851,0\.4549,0\.4078", options={"mean": (123.7, 116, 104), "std": (58, 57, 57)}
    ),
    "blue first": net(
        at_full, options={"channels": "bgr", **NONE}, truth=lambda n, x: full(n, x.flip(1))
    ),
}  # fmt: skip

TABLES = {
    "stride": STRIDES, "last layer": LAST_LAYERS, "object": OBJECTS, "habit": HABITS,
    "grid": GRIDS, "input": INPUTS,
}  # fmt: skip
ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


@pytest.mark.parametrize("name", ROWS)
def test_network(name):
    check(ROWS[name])
