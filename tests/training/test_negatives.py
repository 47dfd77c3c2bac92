"""Negatives: what is pasted, where, and what it costs a prediction not to be uniform there."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chisquare, entropy

from doubtmap import scores
from doubtmap.errors import UsageError
from doubtmap.training.flow import Flow, FlowShape
from doubtmap.training.flow_training import cut, patch_corners
from doubtmap.training.negative_learning import DIVERGENCES, drawn_size, paste_patches
from doubtmap.training.negatives import (
    FlowSamples,
    Mixture,
    Noise,
    Shuffled,
    open_source,
    parse_negatives,
)
from doubtmap.training.nflowjs import fitted_patch

LOGITS = 4 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLEAN = torch.ones(2, dtype=torch.bool)


def test_divergences_are_those_of_scipy():
    probabilities = LOGITS.softmax(1).numpy()
    uniform = np.full_like(probabilities, 1 / 7)
    expected = {
        "jsd": jensenshannon(probabilities, uniform, axis=1) ** 2,
        "kl": entropy(uniform, probabilities, axis=1),
        "reverse-kl": entropy(probabilities, uniform, axis=1),
    }
    assert expected.keys() == DIVERGENCES.keys()
    for name, divergence in DIVERGENCES.items():
        np.testing.assert_allclose(divergence(LOGITS).numpy(), expected[name], rtol=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_vanish_for_uniform_predictions_and_nowhere_else(name):
    divergence = DIVERGENCES[name]
    assert divergence(torch.full((1, 9), 3.0)).abs().item() < 1e-6
    assert (divergence(LOGITS) > 0).all()
    torch.testing.assert_close(divergence(LOGITS + 100), divergence(LOGITS))
    torch.testing.assert_close(divergence(LOGITS.flip(1)), divergence(LOGITS))


@pytest.mark.parametrize("classes", [2, 12, 19])
def test_the_bounds_for_a_prediction_that_is_sure(classes):
    sure = torch.zeros(1, classes, dtype=torch.float64)
    sure[0, 0] = 1e4
    u, m = 1 / classes, (1 + 1 / classes) / 2
    rest = (classes - 1) * u * math.log(2)
    largest = 0.5 * (u * math.log(u / m) + rest - math.log(m))
    assert DIVERGENCES["jsd"](sure).item() == pytest.approx(largest) and largest < math.log(2)
    assert DIVERGENCES["reverse-kl"](sure).item() == pytest.approx(math.log(classes))
    assert DIVERGENCES["kl"](sure).item() > 1000


def test_the_loss_and_the_score_are_one_divergence():
    maps = LOGITS.float().T.reshape(1, 7, 5, 10)
    doubt = scores.divergence(maps, temperature=1.0)
    torch.testing.assert_close(DIVERGENCES["jsd"](LOGITS.float()), -doubt.flatten())


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_are_the_numerical_ones(name):
    x = LOGITS[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(DIVERGENCES[name], x)


@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_places_lie_inside_and_clean_ones_have_no_void(seed, height, width):
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(4, 12, 9, generator=random) > 0.02).long() - 1
    corners, clean = patch_corners(labels, (height, width), random)
    patches = cut(labels[:, None].expand(-1, 3, -1, -1), corners, (height, width))
    assert patches.shape == (4, 3, height, width)
    assert ((patches >= 0).flatten(1).all(1) == clean).all()


def test_every_place_is_as_likely():
    labels = torch.zeros(1, 3, 4, dtype=torch.long).expand(4000, -1, -1)
    corners, _ = patch_corners(labels, (2, 2), torch.Generator().manual_seed(0))
    counts = torch.bincount(corners[:, 0] * 3 + corners[:, 1], minlength=6)
    assert len(counts) == 6 and chisquare(counts.numpy()).pvalue > 0.001


def test_the_place_with_the_least_void_is_taken():
    labels = torch.full((50, 4, 40), -2)
    labels[:, :, 20:24] = 0
    corners, clean = patch_corners(labels, (4, 4), torch.Generator().manual_seed(0))
    near = (corners[:, 1] > 16) & (corners[:, 1] < 24)
    assert near.float().mean() > 0.7 and (corners[clean, 1] == 20).all()


def test_a_patch_replaces_its_pixels_and_no_other():
    images, patches = torch.rand(2, 3, 10, 12), torch.rand(2, 3, 4, 6, requires_grad=True)
    shapes = torch.ones(2, 4, 6, dtype=torch.bool)
    shapes[1, 0] = False
    corners = torch.tensor([[0, 0], [6, 6]])
    mixed, pasted = paste_patches(images, patches, shapes, corners)
    assert pasted.sum().item() == 24 + 18
    keep = ~pasted[:, None].expand_as(images)
    assert torch.equal(mixed[keep], images[keep])
    assert torch.equal(mixed[0, :, :4, :6], patches[0])
    assert torch.equal(mixed[1, :, 7:, 6:], patches[1, :, 1:])
    mixed.sum().backward()
    assert torch.equal(patches.grad, shapes[:, None].expand(-1, 3, -1, -1).float())


def test_sides_are_the_multiples_of_eight_between_the_ends():
    torch.manual_seed(0)
    drawn = {side for _ in range(200) for side in drawn_size((16, 40))}
    assert drawn == {16, 24, 32, 40}


def test_shuffled_content_has_the_same_blocks():
    content = torch.rand(2, 3, 24, 16)
    torch.manual_seed(0)
    patches, mask = Shuffled()(content, CLEAN)

    def blocks(x):
        parts = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 6, -1)
        return [sorted(image.tolist()) for image in parts]

    assert blocks(patches) == blocks(content) and not torch.equal(patches, content)
    assert mask.all() and mask.shape == (2, 24, 16)


def test_shuffled_content_with_void_is_not_pasted():
    content = torch.rand(3, 3, 24, 16)
    _, mask = Shuffled()(content, torch.tensor([True, False, True]))
    assert mask[[0, 2]].all() and not mask[1].any() and mask.shape == (3, 24, 16)


def test_noise_is_even():
    torch.manual_seed(0)
    patches, _ = Noise()(torch.zeros(2, 3, 40, 40), CLEAN)
    assert patches.mean().item() == pytest.approx(0.5, abs=0.01)
    assert patches.std().item() == pytest.approx(12**-0.5, abs=0.01)


def test_a_mixture_draws_from_all_its_sources():
    class Constant:
        def __init__(self, value):
            self.value = value

        def __call__(self, content, clean):
            return torch.full_like(content, self.value), clean[:, None, None].expand(-1, 8, 8)

    torch.manual_seed(0)
    clean = torch.arange(400) % 3 > 0
    patches, masks = Mixture((Constant(0.25), Constant(0.75)))(torch.zeros(400, 3, 8, 8), clean)
    values = patches[:, 0, 0, 0]
    assert set(values.tolist()) == {0.25, 0.75} and masks.shape == (400, 8, 8)
    assert (patches == values[:, None, None, None]).all()
    assert torch.equal(masks.all((1, 2)), clean), "each source hears of its own patches"
    assert chisquare(torch.bincount((values > 0.5).long()).numpy()).pvalue > 0.001


def test_the_text_of_negatives():
    assert parse_negatives("none") == ()
    assert parse_negatives("flow, real:a/b:train") == ("flow", "real:a/b:train")
    for text in ("", "flow,flow", "gan", "real:", "real"):
        with pytest.raises(UsageError, match="some of flow, real:FOLDER, noise, shuffled, none"):
            parse_negatives(text)
    with pytest.raises(UsageError, match="expected none alone, got none,flow"):
        parse_negatives("none,flow")


def test_a_source_of_several_kinds_is_a_mixture():
    flow = Flow(FlowShape(3, 1, 4))
    source, notes = open_source(("flow", "noise", "shuffled"), FlowSamples(flow), ["road"])
    assert isinstance(source, Mixture) and len(source.sources) == 3 and notes == ()
    with pytest.raises(UsageError, match="Give --flow FILE"):
        open_source(("flow",), None, ["road"])


@pytest.mark.parametrize(
    ("crop", "sides"), [((768, 768), (16, 208)), ((288, 384), (16, 80)), ((24, 32), (16, 16))]
)
def test_default_sides_grow_with_the_crop(crop, sides):
    assert fitted_patch(None, crop) == sides
    assert fitted_patch((8, 24), crop) == (8, 24)


def test_patches_larger_than_the_crop_are_refused():
    with pytest.raises(UsageError, match=r"crop of 24x32 .* sides of 16 to 32\. .*at most 24"):
        fitted_patch((16, 32), (24, 32))
    with pytest.raises(UsageError, match="fit into the crop of 8x8"):
        fitted_patch(None, (8, 8))
