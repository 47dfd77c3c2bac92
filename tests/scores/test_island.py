import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from doubtmap.errors import UsageError
from doubtmap.kernels.squares import PARTS, averaged, islands
from doubtmap.prediction import Prediction
from doubtmap.scores import island
from doubtmap.scores.islands import samples
from doubtmap.scores.smoothing import smoothed, spread_out


def slow_islands(p, sides):
    """The formula, cell by cell."""
    height, width = p.shape[1:]
    best = np.zeros((height, width))
    for c, i, j in np.ndindex(p.shape):
        for part in PARTS:
            reach = max(1, width // part)
            right = p[c, i, j : j + 1 + reach].sum() / reach
            left = p[c, i, max(0, j - reach) : j + 1].sum() / reach
            below = p[c, i : i + 1 + reach, j].sum() / reach
            three = np.array([right, left, below])
            mean = three.mean() if sides == "mean" else np.prod(three) ** (1 / 3)
            best[i, j] = max(best[i, j], mean * (1 - p[c, i, j]))
    return best.clip(0, 1)


@pytest.mark.parametrize("sides", ["mean", "geometric"])
@pytest.mark.parametrize("shape", [(3, 7, 21), (2, 18, 16), (4, 1, 5), (3, 2, 70)])
def test_windows_are_those_of_the_formula(shape, sides):
    p = torch.randn(1, *shape, dtype=torch.float64).mul(3).softmax(1)
    # the product of three sums is kept above 1e-9, which the windows' length divides
    torch.testing.assert_close(
        islands(p, sides)[0],
        torch.from_numpy(slow_islands(p[0].numpy(), sides)),
        rtol=0,
        atol=1.1e-3,
    )


@pytest.mark.parametrize("sides", ["mean", "geometric"])
def test_one_class_everywhere_is_no_island(sides):
    logits = torch.zeros(1, 3, 24, 48)
    logits[:, 1] = 60
    assert island(logits, sides=sides).max() < 2e-3


def test_a_thing_within_a_class_is_an_island_and_its_surroundings_are_none():
    logits = torch.zeros(1, 3, 64, 128)
    logits[:, 0] = 20
    logits[:, :, 30:34, 60:64] = torch.tensor([0.0, 20.0, 0.0]).view(3, 1, 1)
    found = island(logits, cell=2)[0]
    assert found[30:34, 60:64].min() > 0.5
    assert found[5:20, 5:40].max() < 1e-3


def test_the_geometric_mean_wants_the_class_on_every_side():
    logits = torch.zeros(1, 2, 64, 128)
    logits[:, 0, :, :64] = logits[:, 1, :, 64:] = 20  # two halves, and no island
    assert island(logits, sides="geometric").max() < 2e-2
    assert island(logits, sides="mean").max() > 0.3


def test_left_and_right_are_alike_and_above_and_below_are_not():
    p = torch.randn(1, 4, 20, 40).mul(3).softmax(1)
    torch.testing.assert_close(islands(p.flip(-1), "mean").flip(-1), islands(p, "mean"))
    assert (islands(p.flip(-2), "mean").flip(-2) - islands(p, "mean")).abs().max() > 0.01


@pytest.mark.parametrize("times", [2, 4])
def test_grids_of_any_stride_say_the_same(times):
    native = torch.randn(1, 3, 6, 512).mul(4)
    finer = native.repeat_interleave(times, 2).repeat_interleave(times, 3)
    size = (48, 4096)
    own, other = island(Prediction(native, size)), island(Prediction(finer, size))
    torch.testing.assert_close(other, own, rtol=0, atol=0.2)
    assert (other - own).abs().mean() < 0.02
    assert samples(8, 512 * times, 4096) == times


def test_a_parameter_that_makes_no_sense():
    with pytest.raises(UsageError, match="sides=mean or sides=geometric, got 'up'"):
        island(torch.zeros(1, 2, 4, 4), sides="up")
    with pytest.raises(UsageError, match="cell above 0"):
        island(torch.zeros(1, 2, 4, 4), cell=0)


@pytest.mark.parametrize("sigma", [0.5, 1, 2.3])
def test_smoothing_is_scipys(sigma):
    maps = torch.randn(2, 9, 31, dtype=torch.float64)
    for found, given in zip(smoothed(maps, sigma), maps):
        wanted = gaussian_filter(given.numpy(), sigma, mode="nearest", truncate=4)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_squares_are_averaged_and_brought_back_to_their_place(cell):
    rows = torch.arange(7.0)[:, None].expand(7, 11)[None, None]
    means = averaged(rows, cell)
    assert means.shape[-2:] == (-(-7 // cell), -(-11 // cell))
    assert means[0, 0, 0, 0] == rows[0, 0, :cell].mean()
    back = spread_out(means[:, 0], cell, (7, 11))
    assert back.shape == (1, 7, 11)
    inner = slice(cell, 7 - 2 * cell + 1)
    torch.testing.assert_close(back[0, inner], rows[0, 0, inner])
