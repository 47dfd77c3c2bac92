"""The probability of wrong: known answers, and the laws that it is made to obey."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad, minimize
from sklearn.isotonic import IsotonicRegression
from wrong_worlds import calibrated_pairs, channel, from_channels

from doubtmap import scores
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.kernels.steps import STEPS, ordered, steps, top_of_step
from doubtmap.scores import rising as monotone_fit
from doubtmap.scores.parsing import open_scores
from doubtmap.scores.rising import (
    CELLS,
    Additive,
    Curve,
    find_knots,
    fit_additive,
    places,
    rescaled,
)
from doubtmap.scores.wrong import Wrong, count_odds, sample_pixels

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = settings(deadline=None, max_examples=40, derandomize=True)


@few
@given(st.lists(floats, min_size=2, max_size=40))
def test_keys_and_steps_have_the_order_of_the_numbers(numbers):
    values = torch.tensor(numbers, dtype=torch.float32)
    less = values[:, None] < values[None]
    keys = ordered(values).long()
    assert torch.equal(less, keys[:, None] < keys[None])
    at = steps(values)
    assert at.min() >= 0 and at.max() < STEPS
    assert (at[:, None] <= at[None])[less].all()
    for step in at.unique().tolist():
        assert torch.equal(values <= top_of_step(step), at <= step)


@few
@given(st.data())
def test_a_curve_never_falls_and_is_flat_beyond_its_ends(data):
    seed, scale = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0, 1, 30]))
    rng = np.random.default_rng(seed)
    knots = torch.from_numpy(rng.normal(size=rng.integers(1, 20)) * np.exp(scale * rng.normal()))
    keys = ordered(knots.float()).unique()
    curve = Curve(keys, torch.from_numpy(np.sort(rng.normal(scale=5, size=len(keys)))))
    extra = data.draw(st.lists(floats, min_size=1, max_size=30))
    near = [torch.nextafter(knots.float(), torch.tensor(side)) for side in (-torch.inf, torch.inf)]
    x = torch.cat([torch.tensor(extra), knots.float(), *near]).clamp(-3e38, 3e38).sort().values
    read = curve(x)
    assert (read.diff() >= 0).all()
    assert read.min() >= curve.levels[0] - 1e-5 and read.max() <= curve.levels[-1] + 1e-5
    assert torch.equal(curve(torch.tensor([-3e38])) == read.min(), torch.tensor([True]))


def test_rounding_does_not_make_a_curve_fall_from_one_cell_to_the_next():
    rng = np.random.default_rng(0)
    knots = ordered(torch.logspace(-6, 2, 60))
    curve = Curve(knots, torch.from_numpy(np.cumsum(rng.gamma(0.3, size=60))))
    edges = torch.arange(int(knots[0]) >> curve._shift, int(knots[-1]) >> curve._shift)
    keys = ((edges[:, None] << curve._shift) + torch.arange(-2, 2)).flatten().int()
    assert (curve(keys.view(torch.float32)).diff() >= 0).all()


def test_a_curve_is_linear_in_the_key_of_the_score():
    knots = ordered(torch.tensor([-3.0, 1e-4, 0.5, 0.5000001, 7.0, 1e20]))
    curve = Curve(knots, torch.tensor([-4.0, -3.0, -3.0, 0.5, 2.0, 8.0], dtype=torch.float64))
    x = torch.cat([torch.linspace(-4, 8, 5001), torch.logspace(-6, 21, 5001)])
    expected = np.interp(ordered(x).numpy().astype(float), knots.numpy(), curve.levels.numpy())
    cell = ordered(x) >> curve._shift
    bent = torch.isin(cell, knots >> curve._shift).numpy()  # a table's cell has one slope
    assert bent.mean() < 0.02
    assert np.abs(curve(x).numpy() - expected)[~bent].max() < 1e-3
    assert len(curve._table(x.device)[0]) <= 2 * CELLS
    assert curve(torch.tensor([-0.0])) == curve(torch.tensor([0.0]))


@pytest.mark.parametrize(
    ("knots", "levels"),
    [([3, 2], [0.0, 1.0]), ([1, 1], [0.0, 1.0]), ([1, 2], [1.0, 0.0]), ([], []), ([1], [np.nan])],
)
def test_a_curve_that_cannot_be(knots, levels):
    with pytest.raises(ValueError, match="a curve needs"):
        Curve(torch.tensor(knots, dtype=torch.int32), torch.tensor(levels, dtype=torch.float64))


def drawn(count, seed=0):
    """Three scores, the third of them noise, and pixels that are wrong by the first two."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)) * [1, 1, 20]
    odds = -2 + 2 * np.maximum(x[:, 0], 0) + np.tanh(2 * x[:, 1])
    wrong = rng.random(count) < 1 / (1 + np.exp(-odds))
    return torch.from_numpy(x).float(), torch.from_numpy(wrong), odds


def read(fitted, values):
    parts = [curve(column) for curve, column in zip(fitted.curves, values.T)]
    return (torch.stack(parts).sum(0) + fitted.bias).double().numpy()


def test_a_sum_of_rising_curves_is_found_again():
    values, wrong, odds = drawn(30_000)
    fitted = fit_additive(values, wrong, torch.ones(len(values)))
    found = read(fitted, values)
    p, expected = (1 / (1 + np.exp(-z)) for z in (found, odds))
    assert np.abs(p - expected).mean() < 0.012
    rises = [curve.rise for curve in fitted.curves]
    assert rises[0] > 3 and rises[1] > 1.5 and rises[2] < 0.3


def test_one_score_is_about_isotonic_regression():
    values, wrong, _ = drawn(30_000, seed=1)
    found = fit_additive(values[:, :1], wrong, torch.ones(len(values)))
    p = 1 / (1 + np.exp(-read(found, values[:, :1])))
    oracle = IsotonicRegression().fit(values[:, 0], wrong).predict(values[:, 0])
    assert np.abs(p - oracle).mean() < 0.015


def test_the_optimum_is_that_of_another_solver_and_the_gradient_that_of_differences():
    values, wrong, _ = drawn(400, seed=2)
    knots = [find_knots(column, wrong)[::8] for column in values.T]
    where = [places(column, at) for column, at in zip(values.T, knots)]
    sizes = [len(at) - 1 for at in knots]
    mass = np.random.default_rng(0).dirichlet(np.ones(400))
    loss = monotone_fit._loss(where, sizes, wrong.double().numpy(), mass)
    start = np.random.default_rng(1).random(1 + sum(sizes))
    assert check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], start) < 1e-5
    bounds = [(None, None)] + [(0, None)] * sum(sizes)
    other = minimize(lambda x: loss(x)[0], start, bounds=bounds, method="SLSQP", tol=1e-12)
    mine = monotone_fit._minimum(loss, start)
    assert loss(mine)[0] == pytest.approx(other.fun, abs=1e-7)
    assert (mine[1:] >= 0).all()


def test_a_falling_score_has_no_say():
    values, wrong, _ = drawn(5000)
    fitted = fit_additive(-values[:, :1], wrong, torch.ones(len(values)))
    assert fitted.curves[0].rise < 0.05
    p = 1 / (1 + np.exp(-fitted.bias))
    assert p == pytest.approx(float(wrong.double().mean()), abs=0.01)


def test_weights_are_what_pixels_stand_for():
    values, wrong, _ = drawn(3000)
    times = torch.arange(3000) % 3 + 1
    repeated = [x.repeat_interleave(times, 0) for x in (values, wrong)]
    wide = fit_additive(*repeated, torch.ones(int(times.sum())))
    weighted = fit_additive(values, wrong, times.float())
    difference = read(wide, values) - read(weighted, values)
    assert np.abs(1 / (1 + np.exp(-read(wide, values)))).mean() == pytest.approx(
        float((wrong * times).sum() / times.sum()), abs=0.003
    )
    assert np.abs(difference).mean() < 0.1  # the knots lie elsewhere


def test_rescaling_finds_factor_and_offset():
    curve = Curve(torch.tensor([0, 10], dtype=torch.int32), torch.tensor([0.0, 4.0]).double())
    odds = np.linspace(-6, 6, 4001)
    truth = 1 / (1 + np.exp(-(0.5 * odds - 1)))
    found = rescaled(Additive((curve,), -2.0), np.stack([1 - truth, truth]), odds)
    assert found.curves[0].levels.tolist() == pytest.approx([0, 2], abs=1e-3)
    assert found.bias == pytest.approx(-2 * 0.5 - 1, abs=1e-3)


def test_rescaling_does_not_follow_pixels_that_do_not_overlap_without_end():
    curve = Curve(torch.tensor([0, 10], dtype=torch.int32), torch.tensor([0.0, 4.0]).double())
    odds = np.array([-1.0, 1.0])
    sure = rescaled(Additive((curve,), 0.0), np.array([[9.0, 0], [0, 9.0]]), odds)
    assert np.isfinite(sure.bias) and sure.curves[0].rise <= 4 * monotone_fit.FACTOR
    against = rescaled(Additive((curve,), 0.0), np.array([[0, 9.0], [9.0, 0]]), odds)
    assert against.curves[0].rise == 0


@pytest.fixture(scope="module")
def fitted():
    pairs = calibrated_pairs(12, seed=1), calibrated_pairs(12, seed=2)
    return Wrong.fit(*pairs, open_scores(["max_softmax", "entropy", "margin"]))


def test_a_calibrated_softmax_is_the_probability_of_wrong(fitted):
    for texts in (["max_softmax"], ["max_softmax", "entropy", "margin"]):
        score = Wrong.fit(
            calibrated_pairs(16, seed=1), calibrated_pairs(16, seed=2), open_scores(texts)
        )
        differences = []
        for prediction, _ in calibrated_pairs(4, seed=3):
            differences.append(score(prediction) - scores.max_softmax(prediction))
        assert torch.cat(differences).abs().mean() < 0.025
        assert torch.cat(differences).mean().abs() < 0.01


def test_a_map_for_each_image_of_a_batch(fitted):
    (a, _), (b, _) = calibrated_pairs(2, seed=4)
    logits = torch.cat([a.native_logits, b.native_logits])
    both = type(a)(logits, a.size, features=torch.ones(2, 1, *a.size))
    assert fitted(both).shape == (2, *a.size)
    assert fitted(both).dtype == torch.float32
    torch.testing.assert_close(fitted(both)[1:], fitted(b))
    larger = type(a)(logits, (50, 70), features=torch.ones(2, 1, *a.size))
    assert fitted(larger).shape == (2, 50, 70)
    assert ((fitted(larger) >= 0) & (fitted(larger) <= 1)).all()


@functools.cache
def fused(seed):
    values, wrong, _ = drawn(600, seed=seed)
    fitted = fit_additive(values, wrong, torch.ones(len(values)))
    return Wrong(("a", "b", "c"), tuple(channel(n) for n in range(3)), fitted)


@few
@given(st.integers(0, 2**32 - 1))
def test_more_doubt_in_any_score_is_never_less_probable(seed):
    rng = np.random.default_rng(seed)
    score = fused(seed % 4)
    low = torch.from_numpy(rng.normal(scale=np.exp(rng.normal(scale=4)), size=(3, 500))).float()
    high = low.clone()
    moved = rng.integers(3)
    high[moved] += torch.from_numpy(np.abs(rng.normal(scale=np.exp(3 * rng.normal()), size=500)))
    assert (score.log_odds(from_channels(high)) >= score.log_odds(from_channels(low))).all()
    assert (score(from_channels(high)) >= score(from_channels(low)) - 1e-6).all()


def test_labels_that_are_no_class_are_not_learnt_from():
    def blanked(pairs, value):
        for prediction, label in pairs:
            hidden = prediction.native_logits.clone()
            hidden[0][:, label[0] < 0] = torch.eye(5)[0][:, None] * value
            yield type(prediction)(hidden, prediction.size), label

    fits = []
    for value in (-30.0, 30.0):
        parts = [list(blanked(calibrated_pairs(3, seed=s), value)) for s in (1, 2)]
        fits.append(Wrong.fit(*parts, open_scores(["entropy"])))
    assert fits[0].digest == fits[1].digest


def test_the_same_fit_twice_and_another_seed(monkeypatch):
    monkeypatch.setattr("doubtmap.scores.wrong.SAMPLE", 600)
    pairs = calibrated_pairs(4, seed=1), calibrated_pairs(4, seed=2)
    first, again = (Wrong.fit(*pairs, open_scores(["entropy"])) for _ in range(2))
    assert first.digest == again.digest
    assert Wrong.fit(*pairs, open_scores(["entropy"]), seed=1).digest != first.digest


def test_a_sample_stands_for_all_labelled_pixels(monkeypatch):
    monkeypatch.setattr("doubtmap.scores.wrong.SAMPLE", 300)
    pairs = calibrated_pairs(2) + calibrated_pairs(1, size=(5, 6), seed=7)
    values, wrong, weights = sample_pixels(pairs, open_scores(["entropy", "margin"]), 0)
    assert values.shape == (100 + 100 + 25, 2)
    labelled = sum(int((label >= 0).sum()) for _, label in pairs)
    assert weights.sum() == pytest.approx(labelled)
    everywhere = torch.cat([scores.entropy(p)[label >= 0] for p, label in pairs])
    assert torch.isin(values[:, 0], everywhere).all()
    assert 0 < wrong.double().mean() < 1


def test_every_pixel_is_counted_by_its_odds():
    pairs = calibrated_pairs(3)
    counts, odds = count_odds(pairs, lambda prediction: 40 * scores.entropy(prediction) - 30)
    wrong = sum(int((p.classes != label)[label >= 0].sum()) for p, label in pairs)
    assert counts.sum(1).tolist() == [3 * (24 * 32 - 5) - wrong, wrong]
    assert odds[0] == pytest.approx(-24, abs=0.01) and odds[-1] == pytest.approx(24, abs=0.01)
    assert counts[:, -1].sum() > 0  # what lies beyond is in the last cell


def test_constant_and_superfluous_scores_are_said_to_have_no_say(monkeypatch):
    monkeypatch.setattr(scores, "energy", lambda p: torch.full_like(scores.entropy(p), 3.0))
    pairs = calibrated_pairs(4, seed=1), calibrated_pairs(4, seed=2)
    found = Wrong.fit(*pairs, open_scores(["entropy", "energy"]))
    assert found.notes == ("energy: has no say, since it is the same everywhere.",)
    assert [text for text, _, _ in found.used] == ["entropy"]
    with pytest.raises(DataError, match="none of energy does"):
        Wrong.fit(*pairs, open_scores(["energy"]))


def test_images_that_do_not_confirm_what_was_learnt():
    class Turned:
        """The labels of wrong and right pixels changed over."""

        def __init__(self, pairs):
            self.pairs = pairs

        def __len__(self):
            return len(self.pairs)

        def __iter__(self):
            for prediction, label in self.pairs:
                classes = prediction.classes
                other = torch.where(classes == label, (classes + 1) % 5, classes)
                yield prediction, torch.where(label < 0, label, other)

    found = Wrong.fit(
        calibrated_pairs(4), Turned(calibrated_pairs(4, seed=2)), open_scores(["entropy"])
    )
    assert found.notes[-1].startswith("wrong: the images kept apart do not confirm")
    assert len(found(calibrated_pairs(1)[0][0]).unique()) == 1


def only(kind, count=2):
    pairs = []
    for prediction, label in calibrated_pairs(count):
        classes = prediction.classes
        changed = {"right": classes, "wrong": (classes + 1) % 5, "no": torch.full_like(classes, -2)}
        pairs.append((prediction, changed[kind] if kind != "beyond" else label + 20))
    return pairs


@pytest.mark.parametrize("kind", ["right", "wrong", "no", "beyond"])
@pytest.mark.parametrize("part", [0, 1])
def test_labels_from_which_nothing_can_be_learnt(kind, part):
    parts = [calibrated_pairs(2, seed=1), calibrated_pairs(2, seed=2)]
    parts[part] = only(kind)
    message = {"no": "none with a label", "beyond": "labels below the model's 5 classes"}
    with pytest.raises(DataError, match=message.get(kind, f"only {kind} ones")):
        Wrong.fit(*parts, open_scores(["entropy"]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "at least one"),
        (["entrpy"], "Did you mean entropy"),
        (["entropy", "entropy"], "asked for twice"),
        (["wrong:some.safetensors"], "other scores to fuse, got 'wrong:some"),
        (["density"], "density:FILE"),
    ],
)
def test_scores_that_cannot_be_fused(texts, message):
    with pytest.raises(UsageError, match=message):
        Wrong.fit(calibrated_pairs(1), calibrated_pairs(1), open_scores(texts))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused(bad, monkeypatch, fitted):
    def broken(prediction):
        values = torch.zeros(1, *prediction.size)
        values[0, -1, -1] = bad
        return values

    monkeypatch.setattr(scores, "entropy", broken)
    pairs = calibrated_pairs(2)
    with pytest.raises(DataError, match="finite values of entropy, got NaN or infinity in 1 pix"):
        Wrong.fit(pairs, pairs, open_scores(["margin", "entropy"]))
    with pytest.raises(DataError, match="finite values of b"):
        steep = Additive((fitted.fitted.curves[0],), 0.0)
        Wrong(("b",), (broken,), steep)(pairs[0][0])


def test_the_scores_that_have_a_say_name_their_layers(fitted):
    class Layered:
        layers = ("deep", "deeper")
        digest = "x"
        origin = Origin()
        made_by = ""

        def features(self, prediction):
            return prediction.native_logits

        def __call__(self, prediction):
            return scores.entropy(prediction)

    curves = fitted.fitted.curves
    flat = Curve(curves[0].knots, torch.zeros_like(curves[0].levels))
    used = Wrong(("a", "b"), (Layered(), Layered()), Additive((curves[0], flat), 0.0))
    assert used.layers == ("deep", "deeper")
    assert Wrong(("a",), (Layered(),), Additive((flat,), 0.0)).layers == ()


def test_another_number_of_classes_is_another_network(fitted):
    held = Wrong(fitted.texts, fitted.scores, fitted.fitted, origin=Origin(fingerprint=(1.0,) * 5))
    prediction = calibrated_pairs(1)[0][0]
    assert held.features(prediction).shape == prediction.native_logits.shape
    with pytest.raises(ModelError, match="a network of 5 classes, as in the fit, got 2"):
        held.features(from_channels(torch.zeros(1, 4)))
