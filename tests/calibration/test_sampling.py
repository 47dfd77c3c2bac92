"""Samples of pixels: bounded, blind to labels, standing for all."""

import pytest
import torch
from worlds import honest_pairs

from doubtmap.calibration import Remembered
from doubtmap.calibration.pixels import Pixels, draw_pixels, native_centres
from doubtmap.prediction import Prediction


def numbered(images=5, void=0.0):
    """Pairs whose logits tell image and pixel."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for image in range(images):
        place = torch.arange(2400.0).view(1, 1, 40, 60)
        logits = torch.cat([torch.full_like(place, image), place], 1)
        label = torch.randint(2, (1, 40, 60), generator=generator)
        label[torch.rand(label.shape, generator=generator) < void * image / images] = -1
        pairs.append((Prediction(logits, (40, 60)), label))
    return pairs


def test_all_pixels_are_taken_where_there_is_room():
    pixels = draw_pixels(numbered())
    assert len(pixels.labels) == 5 * 2400
    assert torch.equal(pixels.weights, torch.ones(12000, dtype=torch.float64))


@pytest.mark.parametrize("budget", [1500, 4000, 9000])
def test_the_budget_holds_and_every_image_gives_alike(budget):
    pixels = draw_pixels(numbered(), values=budget)
    assert budget / 4 < pixels.values.numel() <= budget
    counts = torch.bincount(pixels.values[:, 0].long())
    assert len(counts.unique()) == 1
    assert len(pixels.values.unique(dim=0)) == len(pixels.values)


def test_a_pixel_keeps_its_label():
    pairs = numbered()
    pixels = draw_pixels(pairs, values=4000)
    for (image, place), label in zip(pixels.values.long().tolist(), pixels.labels.tolist()):
        assert pairs[image][1].reshape(-1)[place] == label


def test_weights_stand_for_the_pixels_of_each_image():
    pairs = numbered(void=0.9)
    pixels = draw_pixels(pairs, values=3000)
    share = torch.bincount(pixels.values[:, 0].long(), pixels.weights)
    there = torch.tensor([float((label >= 0).sum()) for _, label in pairs], dtype=torch.float64)
    assert torch.allclose(share / share.sum(), there / there.sum())
    assert (pixels.labels >= 0).all()


def test_the_choice_does_not_look_at_the_class():
    pairs = numbered()
    other = [(p, 1 - label) for p, label in pairs]
    assert torch.equal(
        draw_pixels(pairs, values=2000).values, draw_pixels(other, values=2000).values
    )


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("covered", [None, (24.0, 36.0)])
def test_native_centres_are_where_the_resize_puts_them(align_corners, covered):
    """A ramp over the image, brought from the native grid, has its native values there."""
    rows = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 2, 5, 9)
    prediction = Prediction(rows, (21, 33), covered, align_corners)
    places, _ = native_centres(prediction)
    found = prediction.logits[0, 0, :, 4][places]
    inside = places < 20
    assert (found - torch.arange(5.0))[inside].abs().max() <= 0.5 * 5 / 20


def test_on_its_own_grid_every_sample_is_its_pixel():
    rows, columns = native_centres(Prediction(torch.zeros(1, 2, 7, 9), (7, 9)))
    assert rows.tolist() == list(range(7)) and columns.tolist() == list(range(9))


@pytest.mark.parametrize("align_corners", [False, True])
def test_samples_in_the_padding_have_no_label(align_corners):
    label = torch.zeros(1, 10, 24, dtype=torch.int64)
    label[:, -1] = 1  # what clamping would give to all of the padding
    prediction = Prediction(torch.randn(1, 2, 8, 8), (10, 24), (32.0, 32.0), align_corners)
    pixels = draw_pixels([(prediction, label)], lambda p: p.native_logits, on_native_grid=True)
    pitch = 31 / 7 if align_corners else 4
    start = 0.0 if align_corners else 1.5
    rows, columns = ((start + pitch * torch.arange(8) < side - 0.5).sum() for side in (10, 24))
    assert len(pixels.labels) == rows * columns < 64
    inside = prediction.native_logits[0, :, :rows, :columns].flatten(1).T
    assert torch.equal(pixels.values.sort(0).values, inside.sort(0).values)


def test_remembered_pairs_ask_once_and_give_the_same():
    asked = []

    class Counted:
        def __iter__(self):
            asked.append(True)
            yield from pairs

    pairs = honest_pairs(3)
    remembered = Remembered(Counted())
    passes = [list(remembered) for _ in range(3)]
    assert len(asked) == 1
    for again in passes:
        for (a, x), (b, y) in zip(again, pairs, strict=True):
            assert torch.equal(a.logits, b.logits) and torch.equal(x, y)


def test_a_broken_first_pass_is_begun_anew():
    remembered = Remembered(honest_pairs(3))
    next(iter(remembered))
    assert len(list(remembered)) == len(list(remembered)) == 3


def test_features_are_remembered_where_asked():
    logits, features = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4)
    pair = (Prediction(logits, (8, 8), features=features), torch.zeros(1, 8, 8, dtype=torch.int64))
    for keep in (True, False):
        remembered = Remembered([pair], features=keep)
        list(remembered)
        ((again, _),) = remembered
        assert (again.features is not None) == keep


def test_a_mean_over_some_pixels_is_by_what_these_stand_for():
    labels, weights = torch.zeros(3, dtype=torch.int64), torch.tensor([0.5, 0.5, 2.0])
    pixels = Pixels(torch.zeros(3, 2), labels, weights, labels, 2)
    some = pixels.where(torch.tensor([True, False, True]))
    values = torch.tensor([[8.0, 0.0], [16.0, 4.0]])
    assert some.mean(values).tolist() == pytest.approx([(4 + 32) / 2.5, 8 / 2.5])
