"""Meta models against scikit-learn, and what they say of images."""

import dataclasses

import numpy as np
import pytest
from gaussian_frames import frames
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from doubtmap import DataError, ModelError, UsageError, scores
from doubtmap.files import Origin
from doubtmap.scores import Density
from doubtmap.segments import (
    MetaModel,
    SegmentTable,
    cross_judge,
    expected_figures,
    feature_sets,
    judge,
)
from doubtmap.segments.estimators import (
    PENALTY,
    _options,
    fit_classifier,
    fit_regressor,
    rescaled,
)
from doubtmap.segments.judging import platt

RANDOM = np.random.default_rng(0)
NAMES = ("size", "s:mean", "s:mean_interior", "probability:a", "probability:b")


def table_of(count=600, images=12, seed=0, noise=0.1):
    random = np.random.default_rng(seed)
    size = random.integers(1, 200, count).astype(float)
    doubt = random.random(count)
    classes = random.integers(0, 2, count)
    sure = 1 - doubt / 2
    a = np.where(classes == 0, sure, 1 - sure)
    interior = np.where(size < 20, np.nan, doubt**2)
    iou = np.clip(1 - 1.5 * doubt + noise * random.standard_normal(count), 0, 1)
    features = np.column_stack([size, doubt, interior, a, 1 - a])
    boxes = np.zeros((count, 4), np.int64)
    image = np.sort(random.integers(0, images, count))
    names = tuple(f"{k}" for k in range(images))
    return SegmentTable(
        NAMES, features, np.arange(count), classes, boxes, image, ("a", "b"), names, iou
    )


@pytest.mark.parametrize("kind", ["linear", "boosting"])
def test_estimators_say_what_scikit_learn_says(kind):
    x = RANDOM.standard_normal((400, 5))
    x[:, 4] = 3.0  # constant
    y = x[:, 0] - x[:, 1] ** 2
    standard = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    if kind == "linear":
        classifier = LogisticRegression(C=PENALTY, max_iter=3000).fit(standard, y > 0)
        odds = classifier.decision_function(standard)
        values = Ridge(alpha=1 / PENALTY).fit(standard, y).predict(standard)
    else:
        odds = HistGradientBoostingClassifier(**_options(0)).fit(x, y > 0).decision_function(x)
        values = HistGradientBoostingRegressor(**_options(0)).fit(x, y).predict(x)
    np.testing.assert_allclose(fit_classifier(x, y > 0, kind)(x), odds, rtol=1e-6, atol=1e-6)
    found = fit_regressor(x, y, kind)
    np.testing.assert_allclose(found(x), values, rtol=1e-6, atol=1e-6)
    assert found.importance.sum() == pytest.approx(1)
    assert found.importance[4] == 0


@pytest.mark.parametrize("kind", ["linear", "boosting"])
def test_a_model_learns_is_saved_and_is_read(kind, tmp_path):
    table = table_of()
    model = MetaModel.fit(
        table, kind, texts=("entropy",), scores={"entropy": scores.entropy}, origin=Origin("x")
    )
    assert judge(model.probability(table), model.expected_iou(table), table.iou).r2 > 0.8
    model.save(tmp_path / "file")
    again = MetaModel.load(tmp_path / "file")
    assert np.array_equal(again.probability(table), model.probability(table))
    assert np.array_equal(again.expected_iou(table), model.expected_iou(table))
    assert (again.texts, again.kind, again.origin) == (("entropy",), kind, Origin("x"))
    assert again.scores == {"entropy": scores.entropy}


def test_a_class_that_was_hardly_predicted_does_not_decide_everything():
    table = table_of()
    rare = dataclasses.replace(table, names=(*NAMES, "probability:c"))
    tiny = np.abs(np.random.default_rng(2).standard_normal(len(table))) * 1e-7
    rare = dataclasses.replace(rare, features=np.column_stack([table.features, tiny]))
    model = MetaModel.fit(rare, "linear")
    more = dataclasses.replace(rare, features=rare.features.copy())
    more.features[:, -1] = 0.01
    assert np.abs(model.expected_iou(more) - model.expected_iou(rare)).max() < 0.1


def test_a_fitted_score_is_found_beside_the_file_and_held_to(tmp_path):
    gaussians = Density.fit(frames(seed=0))
    gaussians.save(tmp_path / "d.safetensors")
    text = f"density:{tmp_path / 'd.safetensors'}"
    model = MetaModel.fit(
        table_of(), "linear", texts=(text,), scores={"density": Density.load(text[8:])}
    )
    (tmp_path / "moved").mkdir()
    model.save(tmp_path / "moved" / "m.safetensors")
    (tmp_path / "d.safetensors").rename(tmp_path / "moved" / "d.safetensors")
    again = MetaModel.load(tmp_path / "moved" / "m.safetensors")
    assert next(iter(again.scores.values())).digest == gaussians.digest
    Density.fit(frames(seed=1)).save(tmp_path / "moved" / "d.safetensors")
    with pytest.raises(DataError, match="fitted anew"):
        MetaModel.load(tmp_path / "moved" / "m.safetensors")


def test_trees_that_go_round_are_refused(tmp_path):
    trees = MetaModel.fit(table_of(), "boosting").touches
    with pytest.raises(ValueError, match="go round"):
        dataclasses.replace(trees, left=np.zeros_like(trees.left))


def test_a_fold_of_one_kind_is_passed_over():
    table = table_of(images=3)
    iou = np.where(table.image == 0, 1.0, table.iou)
    iou[table.image == 2] = np.nan
    found = cross_judge(dataclasses.replace(table, iou=iou), [[0], [1], [2]], "linear")
    assert len(found.runs) == 1  # without image 1 all are of one kind; image 2 has no labels
    assert np.isfinite(found.expected_iou[table.image == 2]).all()
    assert np.isnan(found.expected_iou[table.image == 1]).all()


def test_an_empty_interior_is_given_the_whole_segment():
    table = table_of()
    filled = dataclasses.replace(table, features=table.features.copy())
    empty = np.isnan(filled.features[:, 2])
    assert empty.any()
    filled.features[empty, 2] = filled.features[empty, 1]
    model = MetaModel.fit(table, "linear")
    assert np.array_equal(model.expected_iou(table), model.expected_iou(filled))


def test_judgements_are_those_of_scikit_learn():
    iou = np.maximum(RANDOM.standard_normal(200), 0)
    probability, expected = RANDOM.random(200), RANDOM.random(200)
    found = judge(probability, expected, iou)
    assert found.auroc == pytest.approx(roc_auc_score(iou > 0, probability))
    assert found.auprc_false == pytest.approx(average_precision_score(iou == 0, -probability))
    assert found.r2 == pytest.approx(r2_score(iou, expected))
    assert found.rmse == pytest.approx(np.sqrt(((iou - expected) ** 2).mean()))
    assert found.majority == pytest.approx(max((iou > 0).mean(), (iou == 0).mean()))


def test_no_image_is_judged_by_a_model_that_saw_it():
    """With features that only name the image, a model that had seen it would be perfect."""
    table = table_of(images=10)
    random = np.random.default_rng(1)
    of_image = random.random(10)
    iou = np.where(of_image > 0.5, 1.0, 0.0)[table.image]
    features = table.features.copy()
    features[:, 1] = random.permutation(10)[table.image]
    named = dataclasses.replace(table, features=features, iou=iou)
    found = cross_judge(named, [[k] for k in range(10)], "boosting", ["s:mean"])
    everything = judge(found.probability, found.expected_iou, iou)
    assert everything.auroc < 0.75
    seen = MetaModel.fit(named, "boosting", names=("s:mean",))
    assert judge(seen.probability(named), seen.expected_iou(named), iou).auroc == 1


def test_feature_sets_name_every_score_once():
    assert feature_sets(table_of()) == {
        "s (mean)": ("s:mean",),
        "s": ("s:mean", "s:mean_interior"),
        "sizes and probabilities": ("size", "probability:a", "probability:b"),
        "all": NAMES,
    }


def test_images_that_are_certain_and_right_are_expected_to_be():
    table = table_of()
    sure = table.features.copy()
    sure[:, 3], sure[:, 4] = table.classes == 0, table.classes == 1
    miou, wrong = expected_figures(dataclasses.replace(table, features=sure), np.ones(len(table)))
    np.testing.assert_allclose(miou, 1, atol=1e-12)
    np.testing.assert_allclose(wrong, 0, atol=1e-12)


def test_image_figures_by_hand():
    features = np.array([[30, 0, 0, 0.9, 0.1], [10, 0, 0, 0.2, 0.8]])
    table = dataclasses.replace(
        table_of(count=2, images=1),
        features=features,
        classes=np.array([0, 1]),
        image=np.zeros(2, int),
    )
    miou, wrong = expected_figures(table, np.array([0.5, 1.0]))
    a = 27 / (30 + 29 - 27)
    b = 8 / (10 + 11 - 8)
    assert miou[0] == pytest.approx(((a + b) / 2 + 0.75) / 2)
    assert wrong[0] == pytest.approx(1 - 35 / 40)
    fused = dataclasses.replace(table, names=("size", "wrong:mean", *NAMES[2:]))
    fused.features[:, 1] = 0.2, 0.6
    assert expected_figures(fused, np.ones(2))[1][0] == pytest.approx((30 * 0.2 + 10 * 0.6) / 40)


def test_bad_input_is_refused_with_a_sentence(tmp_path):
    table = table_of()
    with pytest.raises(UsageError, match="linear or boosting"):
        MetaModel.fit(table, "forest")
    with pytest.raises(DataError, match="one kind"):
        MetaModel.fit(dataclasses.replace(table, iou=np.ones(len(table))))
    with pytest.raises(DataError, match="expected labelled segments"):
        MetaModel.fit(dataclasses.replace(table, iou=None))
    model = MetaModel.fit(table, "linear")
    other = dataclasses.replace(table, names=("size", *NAMES[2:], "z"))
    with pytest.raises(ModelError, match="lacks s:mean"):
        model.probability(other)
    broken = dataclasses.replace(table, features=np.full_like(table.features, np.inf))
    with pytest.raises(DataError, match="finite"):
        model.probability(broken)
    (tmp_path / "x").write_bytes(b"no")
    with pytest.raises(DataError, match="doubtmap fit"):
        MetaModel.load(tmp_path / "x")


def test_without_scikit_learn_the_install_line_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ModelError, match=r"pip install doubtmap\[segments\]"):
        fit_regressor(np.ones((3, 1)), np.ones(3), "linear")


def test_held_out_probabilities_are_calibrated_and_the_model_with_them():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    true = rng.random(3000) < 1 / (1 + np.exp(-truth))
    slope, shift = platt(1 / (1 + np.exp(-3 * truth - 1)), true)  # three times too sure
    assert (slope, shift) == pytest.approx((1 / 3, -1 / 3), abs=0.05)
    assert platt(1 / (1 + np.exp(3 * truth)), true)[0] == 0  # the wrong way round: no skill
    x = rng.normal(size=(3000, 2))
    for kind in ("linear", "boosting"):
        fitted = fit_classifier(x, true, kind)
        again = rescaled(fitted, 0.5, 0.25)
        assert again(x) == pytest.approx(0.5 * fitted(x) + 0.25)
        assert again.importance == pytest.approx(fitted.importance)
