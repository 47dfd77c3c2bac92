"""Sums do not depend on the order of the images, nor on how they were parted: to the last bit."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubtmap.datasets import UNKNOWN
from doubtmap.evaluation.score_figures import measure_scores, predicted_figures, removal_figures
from doubtmap.evaluation.tally import Tally, observe
from doubtmap.metrics.bootstrap import BootstrapHistogram, BootstrapSums, Weights
from doubtmap.metrics.histogram import Histogram
from doubtmap.prediction import Prediction

IMAGES = 7
CLAIMS = ("claim",)


@pytest.fixture(scope="module")
def seen():
    """Observations of made-up images, each of other ranges, with unknown and void pixels."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(IMAGES):
        logits = torch.randn(1, 3, 6, 8, generator=generator) * 2.0**index
        prediction = Prediction(logits, size=(12, 16))
        label = torch.randint(-2, 3, (12, 16), generator=generator)
        doubt = torch.rand(12, 16, generator=generator) ** (1 + index)
        maps = {"wide": logits.new_tensor(3.0) ** index * doubt, "claim": doubt}
        raw = torch.where(label == UNKNOWN, torch.randint(3, 6, label.shape), label)
        found.append(observe(index, f"image {index}", prediction, label, maps, raw=raw))
    return found


def summed(seen, indices):
    tally = Tally(["wide", "claim"], replicates=20, claims=CLAIMS)
    for index in indices:
        tally.take(seen[index])
    return tally


def said(tally):
    """All that figures are made of, and the figures, as text of all digits."""
    measured = measure_scores(tally)
    sums = tally.reliability.sums
    parts = [tally.images, tally.kinds.tolist(), tally.void, tally.confusion.counts.tolist()]
    parts += [sums.ece, sums.nll, sums.brier, tally.reliability.ks]
    parts += [{n: a.tolist() for n, a in tally.segmentation.sums.items()}]
    for score in tally.scores.values():
        parts += [removal_figures(score, [0, 1, 2]), predicted_figures(score, "abc")]
    parts += [(one.figures, one.curves, one.best, one.strange) for one in measured.values()]
    return repr(parts)


@given(order=st.permutations(range(IMAGES)), cuts=st.sets(st.integers(1, IMAGES - 1)))
@settings(max_examples=8, deadline=None)
def test_any_split_and_any_order_give_the_same(seen, order, cuts):
    edges = [0, *sorted(cuts), IMAGES]
    parts = [summed(seen, order[a:b]) for a, b in itertools.pairwise(edges)]
    whole = Tally(["wide", "claim"], replicates=20, claims=CLAIMS)
    for part in reversed(parts):
        whole.absorb(Tally.from_state(part.state()))
    assert said(whole) == said(summed(seen, range(IMAGES)))


def test_a_claim_outlives_being_saved_before_the_first_image(seen):
    empty = Tally.from_state(Tally(["wide", "claim"], 20, claims=CLAIMS).state())
    empty.absorb(summed(seen, range(IMAGES)))
    assert said(empty) == said(summed(seen, range(IMAGES)))


def test_sums_of_fractions_are_exact_whatever_their_order():
    drawn = np.random.default_rng(0)
    values = [np.exp(drawn.normal(0, 8, 3)) for _ in range(200)]
    sums = []
    for order in (range(200), drawn.permutation(200)):
        found = BootstrapSums(4)
        for index in order:
            found.add({"x": values[index]}, Weights(4)(index))
        sums.append(found.sums["x"])
    assert np.array_equal(*sums)
    weights = np.stack([Weights(4)(index) for index in range(200)])
    np.testing.assert_allclose(sums[0], weights.T @ np.stack(values), rtol=1e-9)


def test_replicates_absorb_at_any_level():
    """Two whose numbers lie in other pages, so that their bins are of other widths."""
    drawn, weights = np.random.default_rng(1), Weights(5)
    images = []
    for index in range(6):
        image = Histogram(1 << 11, shape=(2,))
        values = np.exp(drawn.normal(0, 1 + 4 * (index % 2), 400)).astype(np.float32)
        image.update(values, drawn.integers(0, 2, 400))
        images.append(image)
    whole, halves = BootstrapHistogram(5, 2, 64), [BootstrapHistogram(5, 2, 64) for _ in range(2)]
    for index, image in enumerate(images):
        whole.add(image, weights(index))
        halves[index % 2].add(image, weights(index))
    halves[1].absorb(halves[0])
    assert np.array_equal(whole.view().counts, halves[1].view().counts)
    assert np.array_equal(whole.view().lowest, halves[1].view().lowest)
