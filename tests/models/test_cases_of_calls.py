"""What changes from call to call: habits of networks, sizes of images, grids, and inputs."""

import pytest
import torch
import torch.nn.functional as F
from cases import CLASSES, NONE, WIDTH, Case, Net, at_full, check, full, loud, net, up
from torch import nn


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


def writes(n, x):
    return n.full(x.sub_(0.5))


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
    "writes into its images": net(writes, truth=lambda n, x: full(n, x - 0.5)),
    "called twice": net(lambda n, x: (n.full(x.flip(-1)), n.full(x))[1]),
    "one size only": net(
        lambda n, x: n.full(x) if x.shape[-2:] == (32, 48) else 1 / 0,
        options={"input_size": (32, 48)},
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


ODD = ((1, 45, 71), (2, 90, 150))
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
        f"{how.__name__} {d} inside, {first}": Case(
            lambda how=how, d=d: Padded(how(d)), batches=ODD[::step]
        )
        for how, sides in ((up_to, (2, 8, 32, 64)), (down_to, (8, 16, 32)))
        for d in sides
        for first, step in (("small first", 1), ("large first", -1))
    },
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
        lambda n, x: up(RATIO(n.low(x)), x.shape[-2:]).softmax(1),
        batches=((1, 42, 70), (1, 70, 42)),
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
        at_full, r"--mean 0\.4851,0\.4549,0\.4078",
        options={"mean": (123.7, 116, 104), "std": (58, 57, 57)},
    ),
    "blue first": net(
        at_full, options={"channels": "bgr", **NONE}, truth=lambda n, x: full(n, x.flip(1))
    ),
}  # fmt: skip

TABLES = {"habit": HABITS, "grid": GRIDS, "input": INPUTS}
ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


@pytest.mark.parametrize("name", ROWS)
def test_call(name):
    check(ROWS[name])
