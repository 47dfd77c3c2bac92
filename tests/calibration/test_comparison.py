"""Calibrators measured side by side, and what `auto` makes of it."""

import itertools

import numpy as np
import pytest
import torch
from worlds import honest_pairs, lying_pairs

import doubtmap as dm
from doubtmap.calibration import Identity, Temperature
from doubtmap.calibration.calibrate import _warnings, beats, choose
from doubtmap.calibration.comparison import Comparison, compare
from doubtmap.engine.splitting import split_images
from doubtmap.metrics import Reliability
from doubtmap.metrics.bootstrap import interval
from doubtmap.prediction import Prediction


@pytest.fixture(scope="module")
def pairs():
    return honest_pairs(5, factor=2.0, seed=4, shape=(40, 60))


@pytest.fixture(scope="module")
def comparison(pairs):
    methods = {"identity": Identity(), "temperature": Temperature(temperature=2.0)}
    return compare(pairs, methods, block=1)


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_figures_are_those_of_the_accumulator(pairs, comparison, bins, temperature):
    name = "temperature" if temperature == 2 else "identity"
    oracle, each = Reliability(4, bins), []
    for prediction, label in pairs:
        logits = prediction.logits / temperature
        oracle.update(logits, label.clamp_min(0), label >= 0)
        alone = Reliability(4, bins)
        alone.update(logits, label.clamp_min(0), label >= 0)
        each.append(alone.ece)
    assert comparison.ece(name, bins) == pytest.approx(oracle.ece, abs=1e-6)
    assert comparison.ece_per_image(name, bins) == pytest.approx(np.mean(each), abs=1e-6)
    assert comparison.nll(name) == pytest.approx(oracle.nll, rel=1e-5)
    assert comparison.brier(name) == pytest.approx(oracle.brier, rel=1e-5)


def test_diagrams_by_class_add_up_to_the_whole(comparison):
    whole = comparison.diagram("identity")
    assert sum(whole["share"]) == pytest.approx(1)
    assert comparison.predicted == [0, 1, 2, 3]
    for label in range(4):
        assert sum(comparison.diagram("identity", label=label)["share"]) == pytest.approx(1)


def test_paired_differences_are_narrower_than_intervals(comparison):
    figures = comparison.figures("identity")
    difference, bounds = comparison.difference("identity", "temperature", "nll")
    assert difference == pytest.approx(comparison.nll("identity") - comparison.nll("temperature"))
    assert bounds[0] < difference < bounds[1]
    low, high = figures["nll_interval"]
    assert bounds[1] - bounds[0] < high - low


def test_regions_part_the_pixels():
    label = torch.zeros(1, 40, 60, dtype=torch.int64)
    label[:, :, 30:] = 1
    label[:, :5] = -2
    prediction = Prediction(torch.randn(1, 2, 40, 60), (40, 60))
    (sums,) = compare([(prediction, label)], {"identity": Identity()}).sums
    everything, band, inside = sums[0, :3]
    assert np.allclose(band + inside, everything)
    assert (everything[:, 0].sum(), band[:, 0].sum()) == (35 * 60, 35 * 4)


def test_parts_by_size_and_by_class_are_the_accumulator_on_their_pixels():
    generator = torch.Generator().manual_seed(5)
    label = torch.zeros(1, 100, 100, dtype=torch.int64)
    label[:, 10:12, 10:13] = 1  # 6 pixels: small
    label[:, 30:36, 30:36] = 1  # 36 pixels, at a corner of 1 more: middle
    label[:, 50:, 50:] = 2  # large
    label[:, 90:, :10] = -2  # 100 pixels of void, 1 %
    prediction = Prediction(torch.randn(1, 3, 100, 100, generator=generator), (100, 100))
    hot = Temperature(temperature=0.5)
    found = compare([(prediction, label)] * 3, {"identity": Identity(), "hot": hot}, block=1)
    middle, small = torch.zeros(2, 1, 100, 100, dtype=torch.bool)
    middle[:, 30:36, 30:36], small[:, 10:12, 10:13] = True, True
    large = (label >= 0) & ~middle & ~small
    masks = {"small": small, "middle": middle, "large": large}
    masks |= {k: (prediction.classes == k) & (label >= 0) for k in range(3)}
    for part, mask in masks.items():
        for name, factor in (("identity", 1.0), ("hot", 2.0)):
            oracle = Reliability(3)
            oracle.update(factor * prediction.logits, label.clamp_min(0), mask)
            row = found.within(name, part)
            assert row["ece"] == pytest.approx(oracle.ece, abs=1e-6)
            assert row["share"] == pytest.approx(float(mask.sum() / (label >= 0).sum()))
            right = (prediction.classes == label)[mask].double().mean()
            assert row["accuracy"] == pytest.approx(float(right))
            low, high = row["ece_interval"]  # three images alike: no doubt of the mean
            assert low == pytest.approx(row["ece"]) == pytest.approx(high)
    assert found.predicted == [0, 1, 2]
    nothing = found.within("hot", 7)
    assert (nothing["share"], nothing["ece"], nothing["ece_interval"]) == (0, None, None)


def test_calibrated_networks_are_left_alone():
    fit, other = honest_pairs(6, seed=1), honest_pairs(6, seed=2)
    harmful = {"identity": Identity(), "hot": Temperature(temperature=2.0)}
    taken, notes = choose(compare(other, harmful, block=1))
    assert taken == "identity"
    assert "No method improves" in notes[-1]
    fitted = {"identity": Identity(), "temperature": Temperature.fit(fit)}
    assert choose(compare(other, fitted, block=1))[0] == "identity"


def of_images(sure_raw, sure_other, images=20):
    """A comparison of two methods; right nine times of ten, and so sure, image by image."""
    found = Comparison(("identity", "other"), block=1)
    for image in range(images):
        sums, losses = np.zeros((2, 13, 30, 3)), np.full((2, 3), 1000.0)
        for row, sure in enumerate((sure_raw(image), sure_other(image))):
            sums[row, :, int(np.ceil(sure * 30)) - 1] = [1000, 900, 1000 * sure]
        found.take(sums, losses, np.zeros((2, 2, 30, 3)))
    return found


@pytest.mark.parametrize("bins", [10, 15])
def test_per_image_figures_have_intervals_over_images(bins):
    """Half of the images claim too much, half too little, all by as much."""
    figure = "ece_per_image" if bins == 15 else "ece_per_image_10_bins"
    found = of_images(lambda image: 0.9 + 0.04 * (-1) ** image, lambda _: 0.95)
    assert found.ece_per_image("identity", bins) == pytest.approx(0.04)
    low, high = found.figures("identity")[f"{figure}_interval"]
    assert low == pytest.approx(0.04) == pytest.approx(high)
    difference, bounds = found.difference("other", "identity", figure)
    assert [difference, *bounds] == pytest.approx([0.01] * 3)


def test_intervals_per_image_are_the_bootstraps():
    found = of_images(lambda image: 0.9 + image / 200, lambda _: 0.9)
    each = np.arange(20) / 200
    drawn = np.random.default_rng(0).poisson(1.0, (300, 20))
    means = (drawn * each).sum(1) / drawn.sum(1)
    row = found.figures("identity")
    assert row["ece_per_image"] == pytest.approx(each.mean())
    assert row["ece_per_image_interval"] == pytest.approx(interval(each.mean(), means, (0, 1)))
    assert row["ece_per_image_interval"][0] < each.mean() < row["ece_per_image_interval"][1]


def test_what_may_be_chance_is_said_to_be_unproven():
    """The other method is better on most images and much worse on one."""
    unsure = of_images(lambda _: 0.95, lambda image: 0.1 if image == 3 else 0.9)
    difference, bounds = unsure.difference("other", "identity")
    assert difference < 0 and bounds[0] <= 0 <= bounds[1]
    taken, (*_, note) = choose(unsure)
    assert taken == "identity"
    assert "none that 20 images can prove" in note
    assert f"{bounds[1]:.4f}" in note
    assert "cannot prove" in _warnings(unsure, "other")[0]


def test_what_is_beyond_doubt_is_not_said_to_be_unproven():
    better = of_images(lambda _: 0.98, lambda _: 0.9)
    assert choose(better)[0] == "other"
    assert "images can" not in " ".join(choose(better)[1] + _warnings(better, "other"))
    worse = of_images(lambda _: 0.9, lambda _: 0.98)
    assert choose(worse)[0] == "identity"
    assert "images can" not in choose(worse)[1][-1]


def test_the_simplest_that_is_not_beaten_is_taken():
    fit, other = honest_pairs(6, 2.0, seed=1), honest_pairs(6, 2.0, seed=2)
    best = Temperature.fit(fit)
    methods = {"identity": Identity(), "temperature": best, "twin": best}
    assert choose(compare(other, methods, block=1))[0] == "temperature"


def test_what_is_unbeaten_must_itself_beat_the_raw_network():
    """Temperature helps most drives and ruins a few; a third method surely helps a little."""
    names = ("identity", "temperature", "histogram")
    comparison = Comparison(names, block=1)
    for image in range(40):
        ruined = image < 4
        temperature = (0.19, 0.99) if ruined else (0.8, 0.8)
        sums, losses = np.zeros((3, 13, 30, 3)), np.full((3, 3), 1000.0)
        for row, (right, sure) in enumerate([(0.8, 0.86), temperature, (0.8, 0.83)]):
            at = int(np.ceil(sure * 30)) - 1
            sums[row, :, at] = [1000, 1000 * right, 1000 * sure]
        comparison.take(sums, losses, np.zeros((3, 2, 30, 3)))
    raw, hot, binned = (comparison.ece(name) for name in names)
    assert hot > raw > binned  # and yet neither of the two beats temperature beyond doubt
    assert not beats(comparison, "histogram", "temperature")
    assert not beats(comparison, "identity", "temperature")
    assert choose(comparison)[0] == "histogram"


def test_a_better_method_is_taken_though_it_is_not_the_simplest(fitted):
    methods = {name: fitted[name] for name in ("identity", "temperature", "selective_confidence")}
    comparison = compare(lying_pairs(6, seed=8), methods, block=1)
    assert choose(comparison)[0] == choose(comparison, "brier")[0] == "selective_confidence"


def test_what_harms_the_likelihood_is_refused(comparison, pairs):
    """A classifier that is right half of the time, always sure: the wrong cure is worse."""
    methods = {"identity": Temperature(temperature=2.0), "cold": Temperature(temperature=0.2)}
    taken, notes = choose(compare(pairs, methods, block=1))
    assert taken == "identity"
    assert "worsens the likelihood" in notes[0]


def test_images_without_labels_are_refused(pairs):
    void = [(p, torch.full_like(label, -1)) for p, label in pairs]
    with pytest.raises(dm.DataError, match="found none"):
        compare(void, {"identity": Identity()})
    with pytest.raises(dm.UsageError, match="got none"):
        compare(pairs, {})


def test_sequences_stay_together():
    names = [f"{drive}_{frame:03d}" for drive in "abcde" for frame in range(7)]
    fit, other = split_images(names)
    assert sorted(fit + other) == list(range(35))
    assert {names[i][0] for i in fit}.isdisjoint({names[i][0] for i in other})


@pytest.mark.parametrize(
    "pattern", ["{drive}_{frame:06d}_leftImg8bit", "{drive:06d}_{frame:03d}_10", "{drive}/{frame}"]
)
def test_a_number_that_is_in_every_name_is_no_frame(pattern):
    names = [pattern.format(drive=d, frame=f) for d in range(6) for f in range(5)]
    fit, other = split_images(names)
    assert len(fit) == len(other) == 15
    assert {i // 5 for i in fit}.isdisjoint({i // 5 for i in other})


def test_one_drive_in_frames_with_a_constant_number_is_cut_into_runs():
    fit, other = split_images([f"a_{frame:06d}_leftImg8bit" for frame in range(40)])
    assert fit == [*range(10), *range(20, 30)] and other == [*range(10, 20), *range(30, 40)]


def test_sequences_are_shared_out_by_size():
    sizes = dict(zip("abcdef", (40, 3, 30, 3, 3, 3)))
    names = [f"{drive}_{frame}" for drive, count in sizes.items() for frame in range(count)]
    fit, other = split_images(names)
    assert abs(len(fit) - len(other)) <= 3
    assert {names[i][0] for i in fit}.isdisjoint({names[i][0] for i in other})
    mostly = [f"a_{frame}" for frame in range(97)] + ["b_1", "c_1", "d_1"]
    assert min(map(len, split_images(mostly))) > 40


def test_few_sequences_are_cut_into_runs():
    names = [f"x_{frame}" for frame in range(21)] + [f"y_{frame}" for frame in range(5)]
    fit, other = split_images(names)
    assert sorted(fit + other) == list(range(26))
    breaks = sum(b != a + 1 for a, b in itertools.pairwise(fit))
    assert breaks <= 3
    assert abs(len(fit) - len(other)) <= 4


@pytest.mark.parametrize("count", [2, 3, 5])
def test_small_sets_can_be_parted(count):
    fit, other = split_images([str(k) for k in range(count)])
    assert fit and other and sorted(fit + other) == list(range(count))
    with pytest.raises(dm.UsageError, match="at least 2"):
        split_images(["one"])


@pytest.mark.parametrize(
    ("difference", "bounds", "margin", "beaten"),
    [
        (-0.003, (-0.004, -0.001), 0.002, True),
        (-0.001, (-0.002, -0.0005), 0.002, False),
        (-0.001, (-0.002, -0.0005), 0.0, True),
        (-0.003, (-0.007, 0.001), 0.002, False),
        (-0.003, None, 0.002, False),
    ],
)
def test_a_method_beats_another_by_more_than_the_margin(difference, bounds, margin, beaten):
    class Known:
        def difference(self, a, b, by):
            return difference, bounds

    assert beats(Known(), "a", "b", margin=margin) is beaten
    assert not beats(Known(), "a", "a", margin=margin)
