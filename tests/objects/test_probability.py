"""P(unknown) of objects: features, the fit, what left-out images say, files, and bad input."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm
from doubtmap.calibration.logistic import logistic, sigmoid
from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.metrics.events import event_reliability
from doubtmap.objects import ObjectProbability, ObjectRule, find_objects
from doubtmap.objects.fitting import (
    LabelledObjects,
    cross_fitted,
    fit_objects,
    parse_objects,
    unknown_share,
    write_reliability,
)
from doubtmap.objects.probability import FEATURES, features_of
from doubtmap.objects.writing import write_objects
from doubtmap.scores.softmax import entropy
from doubtmap.streets.synthetic import SyntheticStreets

RULE = ObjectRule(1.5, smallest=8)


@pytest.fixture(scope="module")
def demo():
    return dm.load("demo")


@pytest.fixture(scope="module")
def fit(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("fit") / "objects.json"
    streets = SyntheticStreets(12, seed=4, size=(64, 96))
    return *fit_objects(demo, streets, "entropy", ("entropy", entropy), RULE, out=out), out


def drawn(count, seed=0):
    """Objects whose log-odds of being unknown are 2 x first feature - 1, by six to the image."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, len(FEATURES)))
    unknown = rng.random(count) < sigmoid(2 * features[:, 0] - 1)
    return LabelledObjects(features, unknown, np.arange(count) // 6)


def test_logistic_regression_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model")
    found = drawn(300)
    weights, offset = logistic(found.features, found.unknown, 2.0)
    peer = linear.LogisticRegression(C=0.5, tol=1e-10, max_iter=1000)
    peer.fit(found.features, found.unknown)
    assert weights == pytest.approx(peer.coef_[0], abs=1e-5)
    assert offset == pytest.approx(peer.intercept_[0], abs=1e-5)
    p = sigmoid(found.features @ weights + offset)
    assert p.mean() == pytest.approx(found.unknown.mean())


def test_events_that_are_told_apart_by_far_still_have_a_finite_answer():
    x = np.concatenate([np.full(50, -1e3), np.full(50, 1e3)])[:, None]
    weights, offset = logistic(x, x[:, 0] > 0, 1e-9)
    assert np.isfinite(weights).all() and np.isfinite(offset) and weights[0] > 0
    with pytest.raises(DataError, match="of one kind"):
        logistic(x, np.ones(100, bool))


def test_the_reliability_of_events_is_counted_by_hand():
    p, image = np.array([0.1, 0.1, 0.6, 0.6, 0.9, 0.9]), np.array([0, 0, 1, 1, 2, 2])
    true = np.array([0, 0, 1, 0, 1, 1], bool)
    found = event_reliability(p, true, image, bins=3)
    assert found.diagram[:, [0, 1, 4]] == pytest.approx(
        np.array([[0.1, 0, 2], [0.6, 0.5, 2], [0.9, 1, 2]])
    )
    figures = found.figures
    assert figures["gap"] == pytest.approx((0.1 + 0.1 + 0.1) / 3)
    assert figures["brier"] == pytest.approx((0.02 + 0.16 + 0.36 + 0.02) / 6)
    assert (figures["true"], figures["brier_of_the_mean"]) == (0.5, 0.25)
    assert figures["auroc"] == pytest.approx(8.5 / 9)
    assert json.loads(json.dumps(found.told()))["events"] == 6


def test_intervals_of_events_hold_what_is_true_and_are_over_images():
    rng = np.random.default_rng(1)
    p = rng.random(4000)
    found = event_reliability(p, rng.random(4000) < p, np.arange(4000) // 10)
    low, high = found.diagram[:, 2], found.diagram[:, 3]
    assert ((low <= found.diagram[:, 0]) & (found.diagram[:, 0] <= high)).sum() >= 8
    assert found.figures["gap"] < 0.03
    few = event_reliability(p, rng.random(4000) < p, np.arange(4000) // 400)
    wide, narrow = (np.ptp(each.figures["true_interval"]) for each in (few, found))
    assert wide > 0 and narrow < 0.06


def test_a_fit_is_judged_by_images_that_it_has_not_seen():
    found = drawn(1200)
    folds = [list(range(fold, 200, 4)) for fold in range(4)]
    said = cross_fitted(found, folds, "entropy", RULE)
    held = np.isin(found.image, folds[1])
    other = ObjectProbability.fit(found.features[~held], found.unknown[~held], "entropy", RULE)
    assert (said[held] == other.of_features(found.features[held])).all()
    told = event_reliability(said, found.unknown, found.image).figures
    assert told["gap"] < 0.05 and told["brier"] < 0.8 * told["brier_of_the_mean"]


def test_outside_of_the_fit_features_count_as_its_ends():
    found = drawn(200)
    model = ObjectProbability.fit(found.features, found.unknown, "entropy", RULE)
    far = np.full((1, len(FEATURES)), 1e9)
    assert model.of_features(far) == model.of_features(model.high[None])


def test_features_and_the_share_that_is_unknown():
    doubt = np.zeros((6, 8))
    doubt[1:3, 1:5], doubt[1, 1] = 0.9, 1.0
    (thing,) = find_objects(doubt, np.zeros((6, 8), int), ObjectRule(0.5, 1))
    row = (7 * 0.9 + 1) / 8, 1.0, np.log(8 / 48), 1.0, 1.0
    assert features_of([thing], (6, 8)) == pytest.approx(np.array([row]))
    label = np.full((6, 8), KNOWN)
    label[1, 1:4], label[2, 1:3] = UNKNOWN, VOID
    assert unknown_share(thing, label) == pytest.approx(3 / 6)
    assert unknown_share(thing, np.full((6, 8), VOID)) is None


def test_the_file_is_what_was_fitted(fit):
    model, told, out = fit
    again = ObjectProbability.load(out)
    rows = drawn(5).features
    assert (again.of_features(rows) == model.of_features(rows)).all()
    assert (again.rule, again.figures, again.notes) == (RULE, told.told(), model.notes)
    assert len(again.origin.images) == 12
    assert told.figures["said"] == pytest.approx(told.figures["true"], abs=0.05)
    write_reliability(model, told, out.with_suffix(".html"))
    page = out.with_suffix(".html").read_text()
    assert page.count('class="whisker"') == np.isfinite(told.diagram[:, 2]).sum()
    known = json.loads(out.read_text())
    out.with_name("bad.json").write_text(json.dumps(known | {"weights": [1.0]}))
    with pytest.raises(DataError, match="expected a fitted probability of objects"):
        ObjectProbability.load(out.with_name("bad.json"))


def test_objects_are_written_with_their_probability(fit, demo, tmp_path):
    model, _, _ = fit
    pixels = SyntheticStreets(1, seed=9, size=(64, 96))[0].image
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    scored = ("entropy", entropy)
    out = tmp_path / "out"
    write_objects(demo, [tmp_path / "a.png"], scored, RULE, out, probability=model)
    coco = json.loads((out / "objects.json").read_text())
    likely = [each["probability"] for each in coco["annotations"]]
    assert likely and likely == sorted(likely, reverse=True)
    with (out / "objects.csv").open() as file:
        assert [float(row["probability"]) for row in csv.DictReader(file)] == likely
    prediction = demo(pixels[None])
    things = find_objects(entropy(prediction)[0], prediction.classes[0], RULE)
    expected = [thing.probability for thing in model(things, prediction.size)]
    assert likely == pytest.approx(expected, abs=1e-6)
    with pytest.raises(UsageError, match="whose smallest is 8, got 99"):
        write_objects(
            demo, [tmp_path / "a.png"], scored, replace(RULE, smallest=99), out, probability=model
        )
    other = replace(model, origin=Origin(fingerprint=(9.0,) * 8))
    with pytest.raises(ModelError, match="the network that it was fitted for"):
        write_objects(demo, [tmp_path / "a.png"], scored, RULE, out, probability=other)


def test_the_commands_work_together(run, fit, tmp_path):
    _, _, file = fit
    pixels = SyntheticStreets(1, seed=9, size=(64, 96))[0].image
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    asked = ["objects", "demo", tmp_path / "a.png", "--probability", file, "--out", out]
    code, said, err = run(*asked)
    assert code == 0 and "objects in 1 images" in said, err
    info = json.loads((out / "objects.json").read_text())["info"]
    assert (info["score"], info["rule"]["smallest"]) == ("entropy", 8)
    code, _, err = run("objects", "demo", tmp_path / "a.png", "--out", out)
    assert code == 2 and "expected --threshold, a number or a file" in err
    code, _, err = run(*asked, "--scores", "margin")
    assert code == 2 and "expected a probability of margin, got one of entropy" in err
    code, _, err = run(*asked, "--threshold", "0.5")
    assert code == 2 and "whose threshold is 1.5, got 0.5" in err
    code, _, err = run("fit", "objects", "demo", "synthetic:2", "--out", tmp_path / "o.json")
    assert code == 2 and "expected --threshold with objects" in err
    code, said, err = run(
        *("fit", "objects(smallest=20)", "demo", "synthetic:4", "--scores", "entropy"),
        *("--threshold", "1.2", "--out", tmp_path / "o.json"),
    )
    assert code == 0 and "share that came true" in said, err
    assert (tmp_path / "o.html").exists()


def test_bad_input_is_one_sentence(demo):
    streets = SyntheticStreets(2, seed=4, size=(64, 96))
    scored = "entropy", ("entropy", entropy)
    with pytest.raises(DataError, match="some are unknown and some are not, found 0"):
        fit_objects(demo, streets, *scored, ObjectRule(9.0))
    with pytest.raises(UsageError, match="options of objects among smallest"):
        parse_objects("objects(size=3)")
    with pytest.raises(UsageError, match=r"expected objects or objects\(smallest"):
        parse_objects("objects(smallest=3")
    assert parse_objects("density") is None
