"""What remains without the most doubtful pixels: scikit-learn's IoU after sorting and dropping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from doubtmap.metrics.removal import Answers, Removal

REMOVED = np.arange(10) / 10


def drawn(seed, classes, pixels=400, void=0.2):
    """Doubt that is higher where wrong, answers, and labels, below 0 for none."""
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, pixels)
    said = np.where(random.random(pixels) < 0.3, random.integers(0, classes, pixels), label)
    doubt = random.permutation(pixels) + pixels * (said != label)
    return doubt.astype(np.float32), said, np.where(random.random(pixels) < void, -1, label)


def summed(images, classes, bins=1 << 20):
    found = Removal(bins)
    for doubt, said, label in images:
        wrong, out = np.flatnonzero((said != label) & (label >= 0)), np.flatnonzero(label < 0)
        found.take(doubt, Answers.of(said, wrong, label[wrong], out, classes))
    return found


def by_sorting(images, removed):
    """mIoU, risk and number of classes of the least doubtful pixels, one share after another."""
    doubt, said, label = (np.concatenate(each) for each in zip(*images))
    order = np.argsort(doubt[label >= 0], kind="stable")
    said, label = said[label >= 0][order], label[label >= 0][order]
    for share in removed:
        kept = round((1 - share) * len(label))
        a, b = label[:kept], said[:kept]
        there = np.union1d(a, b)
        yield jaccard_score(a, b, labels=there, average="macro"), (a != b).mean(), len(there)


@pytest.mark.parametrize("classes", [2, 9, 127, 128, 300])
def test_what_remains_is_what_sorting_and_dropping_leaves(classes):
    """Of few classes and of more than one pass can count in; pixels without a class left out."""
    images = [drawn(seed, classes, void=0.0) for seed in range(5)]
    random = np.random.default_rng(0)
    ranks = np.split(random.permutation(2000).astype(np.float32), 5)  # no two alike
    images = [(own + 1, *rest) for own, (_, *rest) in zip(ranks, images)]
    images.append((np.float32([1e30, 0.5]), np.array([0, 1]), np.array([-1, -1])))
    found = summed(images, classes).remaining(REMOVED, range(classes))
    np.testing.assert_allclose(np.stack(found, 1), [*by_sorting(images, REMOVED)], rtol=1e-9)


def test_pixels_of_one_doubt_are_dropped_by_their_share():
    """Half of the tied pixels are left where half of them fit, each class its part."""
    doubt = np.float32([1, 1, 2, 2, 2, 2])
    said, label = np.array([0, 1, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 1, 1])
    miou, risk, left = summed([(doubt, said, label)], 2).remaining(np.array([1 / 3]), [0, 1])
    assert miou[0] == pytest.approx((1.5 / 2 + 2 / 2.5) / 2)
    assert risk[0] == pytest.approx(0.5 / 4) and left[0] == 2


def test_a_class_that_runs_empty_leaves_the_mean_and_none_is_nan():
    doubt, said = np.float32([1, 2, 3, 4]), np.array([0, 0, 1, 1])
    found = summed([(doubt, said, np.array([0, 0, 1, 0]))], 3)
    miou, risk, left = found.remaining(np.array([0.0, 0.25, 0.5]), [0, 1, 2])
    assert miou.tolist() == pytest.approx([(2 / 3 + 1 / 2) / 2, 1, 1])
    assert risk.tolist() == pytest.approx([0.25, 0, 0]) and left.tolist() == [2, 2, 1]
    assert np.isnan(found.remaining(REMOVED, [2])[0]).all()
    miou, risk, left = Removal().remaining(REMOVED, [0])
    assert np.isnan(miou).all() and np.isnan(risk).all() and not left.any()


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 6), bins=st.sampled_from([16, 256, 1 << 12]))
@settings(max_examples=15, deadline=None)
def test_parts_in_any_order_are_the_whole_to_the_last_bit(seed, cut, bins):
    random = np.random.default_rng(seed)
    images = [drawn(seed + at, 4) for at in range(6)]
    images = [(np.exp(own / 100 * (1 + at)), *rest) for at, (own, *rest) in enumerate(images)]
    shuffled = [images[at] for at in random.permutation(6)]
    whole, parts = summed(images, 4, bins), [shuffled[:cut], shuffled[cut:]]
    total = Removal(bins)
    for part in parts:
        total.absorb(Removal.from_state(summed(part, 4, bins).state()))
    for one, other in zip(whole.remaining(REMOVED, range(4)), total.remaining(REMOVED, range(4))):
        assert np.array_equal(one, other)


def test_coarse_bins_are_close():
    images = [drawn(seed, 9, 4000) for seed in range(4)]
    fine, coarse = (
        summed(images, 9, bins).remaining(REMOVED, range(9)) for bins in (1 << 20, 2048)
    )
    np.testing.assert_allclose(coarse[0], fine[0], atol=2e-3)
    np.testing.assert_allclose(coarse[1], fine[1], atol=2e-3)
