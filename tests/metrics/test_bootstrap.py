"""Resampling images: the same weights again, the same figures as weighting by hand, 95 % cover."""

import numpy as np
import pytest
from score_families import draw

from doubtmap.metrics import Confusion, Histogram, RankingCurve
from doubtmap.metrics.bootstrap import BootstrapHistogram, BootstrapSums, Weights, interval


def test_weights_depend_on_seed_and_image_alone():
    first, again = Weights(50, seed=3), Weights(50, seed=3)
    later = again(7)
    np.testing.assert_array_equal(first(0), again(0))
    np.testing.assert_array_equal(first(7), later)
    assert (first(0) != first(1)).any()
    assert (Weights(50, seed=4)(0) != first(0)).any()


def test_weights_are_poisson_of_mean_one():
    drawn = np.concatenate([Weights(1000)(image) for image in range(20)])
    assert drawn.mean() == pytest.approx(1, abs=0.03)
    assert drawn.var() == pytest.approx(1, abs=0.05)
    assert (drawn == drawn.round()).all() and drawn.min() == 0


def confusions(n=6):
    rng = np.random.default_rng(0)
    return [Confusion(rng.integers(0, 50, (3, 3))) for _ in range(n)]


def test_replicates_of_sums_are_the_weighted_sums():
    weights, bootstrap, images = Weights(20), BootstrapSums(20), confusions()
    for index, image in enumerate(images):
        bootstrap.add(image.state(), weights(index))
    found = bootstrap.figures(lambda state: Confusion(state["counts"]).miou)
    for replicate in range(20):
        total = sum(weights(i)[replicate] * image.counts for i, image in enumerate(images))
        assert found[replicate] == pytest.approx(Confusion(total).miou)
    restored = BootstrapSums.from_state(bootstrap.state(), 20)
    restored.add(images[0].state(), weights(6))
    bootstrap.add(images[0].state(), weights(6))
    np.testing.assert_array_equal(
        restored.figures(lambda s: s["counts"].sum()),
        bootstrap.figures(lambda s: s["counts"].sum()),
    )


def image_histograms(n, bins=1 << 14):
    for index in range(n):
        score, positive = draw("cauchy" if index % 2 else "entropy", index, 400)
        histogram = Histogram(bins, shape=(2,))
        histogram.update(score, positive.astype(np.uint8))
        yield histogram


def precision_of(bins):
    return RankingCurve.from_bins(bins, bins.counts[1], bins.counts[0]).average_precision()


# below, at and above the number of images that are taken together
@pytest.mark.parametrize("images", [5, 64, 70])
def test_replicates_of_a_histogram_are_weighted_sums_of_histograms(images):
    weights, bootstrap = Weights(12), BootstrapHistogram(12, 2, bins=1024)
    direct = [Histogram(1024, shape=(2,)) for _ in range(12)]
    for index, image in enumerate(image_histograms(images)):
        bootstrap.add(image, weights(index))
        for replicate, total in enumerate(direct):
            total.absorb(image, weights(index)[replicate])
    found = bootstrap.figures(precision_of)
    expected = [precision_of(total.view()) for total in direct]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    mass = bootstrap.figures(lambda bins: bins.counts.sum())
    np.testing.assert_array_equal(mass, [total.view().counts.sum() for total in direct])


def test_a_bootstrap_goes_on_from_its_saved_state():
    weights, images = Weights(8), list(image_histograms(7))
    whole, first = BootstrapHistogram(8, 2), BootstrapHistogram(8, 2)
    for index, image in enumerate(images):
        whole.add(image, weights(index))
        if index < 4:
            first.add(image, weights(index))
    restored = BootstrapHistogram.from_state(first.state())
    for index in range(4, 7):
        restored.add(images[index], weights(index))
    np.testing.assert_array_equal(restored.figures(precision_of), whole.figures(precision_of))


@pytest.mark.parametrize("weight", [1, 0.5])
def test_what_is_added_to_sums_leaves_their_saved_state_as_it_was(weight):
    """Sums that are whole are saved narrower; others as they are, and so shared."""
    values = [np.float32([0.1, 0.2]), np.float32([0.2, 0.9]), np.float32([0.3, 0.4])]
    weights = Weights(5)

    def taken(*images):
        sums = BootstrapHistogram(5, channels=1)
        for index in images:
            image = Histogram(shape=(1,))
            image.update(values[index], weight=weight)
            sums.add(image, weights(index))
        return sums

    def same(one, other):
        assert all(np.array_equal(one[name], other[name]) for name in one)

    whole, first = taken(0, 1, 2), taken(0, 1)
    saved = first.state()
    before = {name: array.copy() for name, array in saved.items()}
    again = BootstrapHistogram.from_state(saved)
    for each in (first, again):
        each.absorb(taken(1))
        each.absorb(BootstrapHistogram.from_state(taken(2).state()))
    same(saved, before)
    again, whole = (each.view() for each in (again, taken(0, 1, 1, 2)))
    same(vars(again), vars(whole))
    same(vars(first.view()), vars(whole))


def test_memory_does_not_grow_with_the_images_or_their_bins():
    weights, bootstrap = Weights(8), BootstrapHistogram(8, 2, bins=1024)
    for index, image in enumerate(image_histograms(20, bins=1 << 18)):
        bootstrap.add(image, weights(index))
    assert bootstrap.state()["counts"].nbytes <= 8 * 1024 * 8 * 2


def test_a_replicate_that_counts_every_image_once_is_near_the_fine_figure():
    bootstrap, total = BootstrapHistogram(1, 2), Histogram(shape=(2,))
    for image in image_histograms(20):
        bootstrap.add(image, np.ones(1))
        total.absorb(image)
    fine = precision_of(total.view())
    assert bootstrap.figures(precision_of).item() == pytest.approx(fine, abs=0.01)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    # 60 images of differing size and error rate; the figure is the pooled error rate
    rng = np.random.default_rng(0)
    truth, covered, runs = 0.2, 0, 150
    for run in range(runs):
        weights, bootstrap, total = Weights(200, seed=run), BootstrapSums(200), np.zeros(2)
        for image in range(60):
            pixels = rng.integers(500, 1500)
            sums = np.array([pixels, rng.binomial(pixels, rng.beta(2, 8))], float)
            bootstrap.add({"sums": sums}, weights(image))
            total += sums
        replicates = bootstrap.figures(lambda state: state["sums"][1] / state["sums"][0])
        lower, upper = interval(total[1] / total[0], replicates)
        covered += lower <= truth <= upper
    # five standard errors around 0.94, which 60 images give the percentile interval
    assert 0.85 <= covered / runs <= 0.995


def test_an_interval_is_the_middle_of_the_replicates_centred_on_the_value():
    replicates = np.random.default_rng(0).permutation(np.arange(0, 1001) / 1000)
    assert interval(0.5, replicates) == pytest.approx([0.025, 0.975])
    assert interval(0.5, 7 + replicates) == pytest.approx([0.025, 0.975])
    assert interval(0.53, replicates) == pytest.approx([0.055, 1.005])
    assert interval(0.53, replicates, limits=(0.1, 1)) == pytest.approx([0.1, 1])
    skewed = replicates**2
    assert interval(0.25, skewed) == pytest.approx([0.025**2, 0.975**2])


def test_an_interval_needs_a_value_and_nine_in_ten_replicates():
    replicates = np.linspace(0, 1, 100)
    replicates[:10] = np.nan
    assert interval(0.5, replicates) is not None
    assert interval(None, replicates) is None
    replicates[10] = np.nan
    assert interval(0.5, replicates) is None
