"""Promises of thresholds, calibrators, fitted scores and label sets, held to labelled images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lit_scenes import CHOSEN, CLASSES, Scenes, replace_copy

from doubtmap.calibration import Temperature, save_calibrator
from doubtmap.datasets import fingerprints
from doubtmap.decisions.file import Threshold, save_threshold
from doubtmap.decisions.sets import fit_sets
from doubtmap.decisions.several import RISKS, Risks
from doubtmap.engine import Pairs
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.fitting import fit_score
from doubtmap.metrics.missed import place_of, threshold_at
from doubtmap.scores.softmax import entropy, max_softmax
from doubtmap.watching import Watch
from doubtmap.watching.bound import mean_bounds
from doubtmap.watching.looking import (
    expected_wrong,
)
from doubtmap.watching.page import summary, watch_page
from doubtmap.watching.promise import ONLY, open_promise


def labelled_losses(opened, dataset):
    pairs = Pairs(opened.segmenter, dataset)
    return [opened.loss(prediction, label) for prediction, label in pairs]


def test_labels_bound_the_risk_of_a_threshold(begun):
    dataset = Scenes(6, 5)
    found = begun.check(dataset)
    losses = labelled_losses(begun.promise, dataset)
    prediction, label = next(iter(Pairs(begun.promise.segmenter, dataset)))
    wrong = (prediction.classes != label) & (label >= 0)
    missed = wrong & (entropy(prediction) <= 0.5)
    assert losses[0] == pytest.approx(float(missed.sum() / wrong.sum()))
    assert found.risk.mean == pytest.approx(np.mean(losses))
    assert found.risk.low[-1] <= found.risk.mean <= found.risk.high[-1]
    assert begun.check(dataset).risk.losses == 6


def test_a_broken_promise_is_an_alarm_and_a_kept_one_is_said(begun):
    broken = replace_copy(begun)
    broken.state = broken.state.with_losses((str(k), {ONLY: 0.6}) for k in range(40))
    risk = broken.verdict.risk
    assert broken.verdict.alarm and 0 < risk.broken_at < 40 and not risk.kept
    begun.state = begun.state.with_losses((str(k), {ONLY: 0.01}) for k in range(150))
    assert begun.verdict.risk.kept and not begun.verdict.alarm


def test_a_calibrator_promises_that_confidence_is_right(fresh_segmenter, tmp_path):
    file = tmp_path / "c.safetensors"
    save_calibrator(Temperature(temperature=2.0), file)
    watch = Watch.begin(fresh_segmenter(), file, Scenes(20, 1))
    dataset = Scenes(3, 4)
    risk = watch.check(dataset).risk
    gaps = []
    for prediction, label in Pairs(watch.promise.segmenter, dataset):
        known = label >= 0
        wrong = (prediction.classes != label)[known].double().mean()
        gaps.append(float(wrong - max_softmax(prediction)[known].double().mean()))
    assert labelled_losses(watch.promise, dataset) == pytest.approx(gaps)
    assert (risk.mean, risk.limit) == (pytest.approx(np.mean(gaps)), 0.05)
    with pytest.raises(UsageError, match=r"Leave --calibrator out"):
        open_promise(watch.promise.segmenter, file)


def test_a_fitted_wrong_is_watched_by_what_it_says(fresh_segmenter, tmp_path):
    segmenter, file, fit = fresh_segmenter(), tmp_path / "w.safetensors", Scenes(20, 1)
    fitted = fit_score("wrong", segmenter, fit, scores="entropy,margin", out=file)
    watch = Watch.begin(segmenter, file, fit)
    assert watch.notes[0].startswith("20 of 20 images of scenes were used for the fit of wrong: ")
    assert "a false alarm is likelier than said" in watch.notes[0]
    with pytest.raises(UsageError, match="were used for the fit of wrong"):
        watch.check(Scenes(3, 1))
    watch = Watch.begin(segmenter, file, Scenes(20, 6))
    assert watch.notes == []
    scene = Scenes(1, 6)[0]
    said = float(fitted(segmenter(scene.image[None])).mean())
    first = watch.state.reference[0]
    assert first.doubt == pytest.approx(said, rel=1e-5)
    assert float(expected_wrong(first.table)) == pytest.approx(said, rel=1e-5)


def test_an_image_without_anything_to_lose_says_nothing(segmenter, promise):
    opened = open_promise(segmenter, promise)
    prediction = segmenter(Scenes(1, 0)[0].image[None])
    assert opened.loss(prediction, prediction.classes) is None
    counting = replace(opened, threshold=replace(CHOSEN, empty=True))
    assert counting.loss(prediction, prediction.classes) == 0
    assert counting.loss(prediction, torch.full_like(prediction.classes, -2)) is None


def test_several_risks_are_held_to_their_own_levels(fresh_segmenter, tmp_path):
    segmenter, file, cal = fresh_segmenter(), tmp_path / "several.json", Scenes(3, 1)
    keep = {"missed": 0.9, "objects": 0.6, "flagged": 0.9}
    limit = threshold_at(place_of(float(entropy(segmenter(cal[0].image[None])).median())))
    origin = Origin(images=fingerprints(cal), facts={"keep": keep})
    chosen = Threshold("entropy", limit, "wrong", "risks", 0.1, origin=origin)
    save_threshold(chosen, file)
    watch = Watch.begin(segmenter, file, Scenes(20, 7))
    assert watch.promise.limits == keep
    assert watch.promise.said == (
        "of wrong pixels missed at most 0.9, objects at most 0.6, flagged at most 0.9"
    )
    with pytest.raises(UsageError, match="were used for the threshold"):
        watch.check(cal)
    dataset = Scenes(5, 8)
    found = watch.check(dataset)
    sums = Risks.empty()
    for prediction, label in Pairs(segmenter, dataset):
        wrong, valid = prediction.classes[0] != label[0], label[0] >= 0
        sums.update(entropy(prediction)[0], wrong, valid)
    place = place_of(chosen.threshold)
    for risk in found.risks:
        at = RISKS.index(risk.name)
        assert risk.mean == pytest.approx(sums.losses[at, place] / sums.images[at])
        assert (risk.losses, risk.limit) == (sums.images[at], keep[risk.name])
        low, high = mean_bounds(
            np.array([own[risk.name] for _, own in watch.state.losses]), 0.05 / 3
        )
        assert (risk.low == low).all() and (risk.high == high).all()
    watch.save(tmp_path / "state.json")
    assert Watch.resume(tmp_path / "state.json", segmenter).verdict.figures == found.figures
    page = watch_page(watch, found).decode()
    assert all(f"<h3>{name}</h3>" in page for name in keep)
    watch.state = watch.state.with_losses((str(k), {"objects": 1.0}) for k in range(120))
    broken = watch.verdict
    assert [risk.name for risk in broken.broken] == ["objects"] and broken.risk.name == "objects"
    assert "ALARM" in summary(broken) and "mean loss of objects" in summary(broken)


@pytest.mark.parametrize("per", ["image", "class", "place"])
def test_label_sets_are_held_to_the_pixels_that_they_miss(fresh_segmenter, tmp_path, per):
    segmenter, file = fresh_segmenter(), tmp_path / "sets.safetensors"
    sets = fit_sets(segmenter, Scenes(20, 1), alpha=0.4, per=per, places=(1, 2))
    sets.save(file)
    watch = Watch.begin(segmenter, file, Scenes(20, 1))
    assert watch.notes == []  # levels are few: the doubt is as elsewhere
    if per == "place":
        with pytest.raises(UsageError, match="Leave --labelled out"):
            watch.check(Scenes(2, 3))
        return
    with pytest.raises(UsageError, match="were used for the label sets"):
        watch.check(Scenes(2, 1))
    names = CLASSES if per == "class" else (ONLY,)
    assert watch.promise.limits == dict.fromkeys(names, pytest.approx(0.4))
    dataset = Scenes(3, 3)
    found = watch.check(dataset)
    expected = {name: [] for name in names}
    for prediction, label in Pairs(segmenter, dataset):
        inside = sets.contains(prediction)[0]
        for number, name in enumerate(names):
            there = label[0] == number if per == "class" else label[0] >= 0
            rows, columns = torch.nonzero(there, as_tuple=True)
            if len(rows):
                hits = inside[label[0][rows, columns].long(), rows, columns]
                expected[name].append(1 - float(hits.double().mean()))
    assert {risk.name: risk.mean for risk in found.risks} == {
        name: pytest.approx(np.mean(losses)) for name, losses in expected.items() if losses
    }


def test_promises_that_are_none(fresh_segmenter, tmp_path, promise):
    segmenter, other = fresh_segmenter(), tmp_path / "other.json"
    with pytest.raises(DataError, match="found none there"):
        open_promise(segmenter, tmp_path / "nothing.json")
    other.write_text("{}")
    with pytest.raises(DataError, match=r"expected a promise.*got something else"):
        open_promise(segmenter, other)
    save_threshold(replace(CHOSEN, by="f1", level=None), other)
    with pytest.raises(UsageError, match="by f1, which promises nothing"):
        open_promise(segmenter, other)
    save_threshold(replace(CHOSEN, origin=Origin(fingerprint=(9.0,) * 8)), other)
    with pytest.raises(ModelError, match="the network that it was chosen for"):
        open_promise(segmenter, other)


def test_risks_without_their_levels_are_no_promise(fresh_segmenter, tmp_path):
    save_threshold(Threshold("entropy", 0.5, "wrong", "risks", 0.1), tmp_path / "t.json")
    with pytest.raises(DataError, match="the levels that its risks are kept at"):
        open_promise(fresh_segmenter(), tmp_path / "t.json")


def test_labelled_images_must_be_others(begun, fresh_segmenter, tmp_path):
    dataset = Scenes(4, 5)
    origin = Origin(images=fingerprints(dataset))
    save_threshold(replace(CHOSEN, origin=origin), tmp_path / "u.json")
    watch = Watch.begin(fresh_segmenter(), tmp_path / "u.json", Scenes(20, 1))
    with pytest.raises(UsageError, match=r"4 of 4 images .* were used for the threshold. Give oth"):
        watch.check(dataset)
