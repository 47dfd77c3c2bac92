"""Fusions and thresholds over data sets: what they hold on to, and whom they refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import doubtmap as dm
from doubtmap.calibration import Calibrated, Temperature
from doubtmap.decisions.choosing import by_fpr, by_tpr
from doubtmap.decisions.file import Threshold, load_threshold
from doubtmap.decisions.file import save_threshold as save
from doubtmap.decisions.threshold import choose_threshold
from doubtmap.engine import Pairs
from doubtmap.engine.seen import notes_of_seen
from doubtmap.evaluation.asking import Options
from doubtmap.fitting import fit_score
from doubtmap.metrics.missed import Missed
from doubtmap.scores.parsing import open_scores, parse_scores
from doubtmap.scores.wrong import Wrong
from doubtmap.scoring import prepared
from doubtmap.streets.synthetic import SyntheticStreets

STREETS = "synthetic:4"


def drawn(count, seed=0):
    return SyntheticStreets(count, seed=seed, size=(96, 128))


@pytest.fixture(scope="module")
def demo():
    return dm.load("demo")


@pytest.fixture(scope="module")
def streets():
    return drawn(4, seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory, demo, streets):
    folder = tmp_path_factory.mktemp("decisions")
    fit_score("density", demo, streets, out=folder / "density.safetensors")
    scores = f"entropy,density:{folder / 'density.safetensors'}"
    fit_score("wrong", demo, streets, scores=scores, out=folder / "wrong.safetensors")
    return folder


def chosen(demo, streets, **options):
    given = {"score": "entropy", "of": "unknown", "by": "f1"} | options
    return choose_threshold(demo, streets, given.pop("score"), **given)


def test_a_fusion_is_evaluated_beside_others(files, demo):
    scores = f"max_softmax,wrong:{files / 'wrong.safetensors'}"
    results = dm.evaluate(demo, drawn(3), scores, replicates=20, options=Options(examples=0))
    found = results.figures["scores"]
    assert list(found) == ["max_softmax", "wrong"]
    assert found["wrong"]["wrong"]["auroc"] > 0.7
    assert not any("were used for" in note for note in results.figures["notes"])


def test_a_fusion_says_what_it_was_fitted_to(files, streets):
    origin = Wrong.load(files / "wrong.safetensors", open_scores).origin
    assert origin.data == STREETS
    assert origin.facts == {"images": 4, "images for the curves": 2, "unknown": []}
    assert origin.network["source"] == "demo"
    assert len(origin.images) == 4


def test_curves_and_calibration_see_different_images(demo, streets, monkeypatch):
    seen = []

    def watched(pairs, others, texts, *, seed):
        seen.append((set(pairs.indices), set(others.indices)))
        return fit(pairs, others, texts, seed=seed)

    fit = Wrong.fit
    monkeypatch.setattr(Wrong, "fit", watched)
    fit_score("wrong", demo, streets, scores="entropy")
    ((curves, calibration),) = seen
    assert not curves & calibration
    assert curves | calibration == {0, 1, 2, 3}


def test_images_that_were_fitted_to_are_noted(files, demo, streets):
    scores = f"wrong:{files / 'wrong.safetensors'}"
    results = dm.evaluate(demo, streets, scores, replicates=20, options=Options(examples=0))
    assert any(
        n.startswith("4 of 4 images of") and "fit of wrong" in n for n in results.figures["notes"]
    )


def test_another_network_or_calibrator_is_refused(files, demo):
    scores = parse_scores(f"wrong:{files / 'wrong.safetensors'}")
    torch.manual_seed(0)
    other = dm.load(dm.models.demo.build_demo_network(), classes=demo.class_names)
    with pytest.raises(dm.ModelError, match=r"features differ.*doubtmap fit wrong"):
        prepared(other, scores)
    cooled = Calibrated(demo, Temperature(temperature=torch.tensor(1.5)), "c")
    with pytest.raises(dm.ModelError, match="features differ"):
        prepared(cooled, scores)
    fewer = dm.load(nn.Conv2d(3, 4, 1), classes=["road", "sky", "pole", "sign"])
    with pytest.raises((dm.ModelError, dm.UsageError)):
        prepared(fewer, scores)
    assert prepared(demo, scores).layers == ("merge.3",)


@pytest.mark.parametrize(
    ("scores", "data", "message"),
    [
        ("", 4, "expected scores to fuse"),
        ("entropy", 1, "at least 2 images"),
        ("entropy,entropy", 4, "asked for twice"),
        ("wrong:x", 4, "other scores to fuse"),
    ],
)
def test_fits_that_cannot_be(demo, scores, data, message):
    with pytest.raises(dm.UsageError, match=message):
        fit_score("wrong", demo, drawn(data), scores=scores)


def test_scores_are_fused_by_wrong_only(demo, streets):
    with pytest.raises(dm.UsageError, match="wrong or segments only"):
        fit_score("density", demo, streets, scores="entropy")


@pytest.mark.parametrize("of", ["wrong", "unknown"])
@pytest.mark.parametrize(
    ("by", "level"), [("f1", None), ("tpr", 0.9), ("fpr", 0.1), ("risk", 0.25)]
)
def test_a_threshold_is_chosen_by_the_pixels_of_all_images(demo, streets, of, by, level):
    found = chosen(demo, streets, of=of, by=by, level=level)
    missed, pixels = [], []
    for prediction, label in Pairs(demo, streets):
        values = dm.scores.entropy(prediction)
        positive = prediction.classes != label if of == "wrong" else label == -1
        valid = label >= 0 if of == "wrong" else (label >= -1) | (label == -3)
        flagged = found.flag(values)
        assert torch.equal(flagged, values > found.threshold)
        pixels.append(torch.stack([flagged[valid], positive[valid]]))
        if (positive & valid).any():
            missed.append(float((~flagged[positive & valid]).double().mean()))
    flagged, positive = torch.cat(pixels, 1)
    figures = found.figures
    assert figures["missed"] == pytest.approx(np.mean(missed))
    assert figures["flagged"] == pytest.approx(float(flagged.double().mean()))
    assert figures["tpr"] == pytest.approx(float(flagged[positive].double().mean()))
    assert figures["fpr"] == pytest.approx(float(flagged[~positive].double().mean()))
    assert figures["precision"] == pytest.approx(float(positive[flagged].double().mean()))
    promise = {
        "tpr": figures["tpr"] >= (level or 0),
        "fpr": figures["fpr"] <= (level or 1),
        "risk": (len(missed) * figures["missed"] + 1) / (len(missed) + 1) <= (level or 1),
    }
    assert promise.get(by, True)
    assert (len(found.origin.images), found.origin.data, found.level) == (4, STREETS, level)


def test_flagged_is_what_lies_above_and_not_at_the_threshold():
    at = torch.tensor(0.5)
    values = torch.stack([at, torch.nextafter(at, torch.tensor(1.0)), at - 0.1])
    assert Threshold("entropy", 0.5, "wrong", "f1").flag(values).tolist() == [False, True, False]


def test_a_file_gives_back_what_was_saved(demo, streets, tmp_path):
    found = chosen(demo, streets, by="risk", level=0.3, command="doubtmap threshold ...")
    save(found, tmp_path / "threshold.json")
    assert load_threshold(tmp_path / "threshold.json") == found
    content = json.loads((tmp_path / "threshold.json").read_text())
    assert (content["kind"], content["format"], content["score"]) == ("threshold", 2, "entropy")
    assert found.opened() == ("entropy", dm.scores.entropy)
    assert np.float32(found.threshold) == found.threshold


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "calibrator"},
        {"format": 3},
        {"format": None},
        {"threshold": "0.5"},
        {"threshold": float("nan")},
        {"threshold": 0.1},
        {"threshold": True},
        {"of": "both"},
        {"by": "eye"},
        {"score": 5},
        {"origin": None},
        {"more": 1},
    ],
    ids=str,
)
def test_files_that_are_no_thresholds(tmp_path, changed):
    file = tmp_path / "threshold.json"
    save(Threshold("entropy", 0.5, "unknown", "f1"), file)
    assert load_threshold(file).threshold == 0.5
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(dm.DataError, match=r"expected a threshold.*doubtmap threshold MODEL DATA"):
        load_threshold(file)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{}", b"\xff\xfe", b'{"kind": "threshold"}'])
def test_files_that_are_something_else(tmp_path, content):
    file = tmp_path / "threshold.json"
    with pytest.raises(dm.DataError, match="expected a threshold"):
        load_threshold(file)
    file.write_bytes(content)
    with pytest.raises(dm.DataError, match="expected a threshold"):
        load_threshold(file)


def test_components_at_a_given_threshold(demo, streets, files):
    given = chosen(demo, streets, by="tpr", level=0.9)
    wanted = {"scores": "entropy,margin", "replicates": 20}
    plain = dm.evaluate(demo, streets, options=Options(examples=0), **wanted).figures
    options = Options(examples=0, thresholds=[given])
    held = dm.evaluate(demo, streets, options=options, **wanted).figures
    for name, mode in (("entropy", "given"), ("margin", "oracle")):
        assert plain["scores"][name]["unknown"]["threshold_mode"] == "oracle"
        assert held["scores"][name]["unknown"]["threshold_mode"] == mode
    assert held["scores"]["margin"] == plain["scores"]["margin"]
    mine, best = (each["scores"]["entropy"]["unknown"] for each in (held, plain))
    assert mine["threshold"] == given.threshold != best["threshold"]
    assert mine["siou"] != best["siou"]
    assert mine["auprc"] == best["auprc"]
    note = next(n for n in held["notes"] if n.startswith("Components"))
    assert "or at the threshold given for entropy" in note
    assert "best pixel F1 on these same images" in note
    assert any("used for the threshold of entropy" in note for note in held["notes"])


def test_thresholds_find_their_own_fit(demo, streets, files):
    fit_score("density", demo, drawn(2, seed=9), out=files / "b.safetensors")
    score = f"density:{files / 'density.safetensors'}"
    given = chosen(demo, streets, score=score)
    options = {"replicates": 20, "options": Options(examples=0, thresholds=[given])}
    test = drawn(2)
    both = f"{score},density:{files / 'b.safetensors'}"
    found = dm.evaluate(demo, test, both, **options).figures["scores"]
    assert found["density:density"]["unknown"]["threshold_mode"] == "given"
    assert found["density:b"]["unknown"]["threshold_mode"] == "oracle"
    with pytest.raises(dm.UsageError, match="among the scores"):
        dm.evaluate(demo, test, f"density:{files / 'b.safetensors'}", **options)
    with pytest.raises(dm.DataError, match="got another"):
        given.check_score(dm.scores.Density.load(files / "b.safetensors"))


def test_thresholds_that_do_not_belong(demo, streets):
    given = chosen(demo, streets)
    test = drawn(2)
    of_wrong = chosen(demo, streets, of="wrong")
    for thresholds, scores, message in (
        ([given], "margin", "entropy among the scores"),
        ([given, given], "entropy", "two thresholds"),
        ([of_wrong], "entropy", "of unknown objects, got one of wrong pixels"),
    ):
        with pytest.raises(dm.UsageError, match=message):
            dm.evaluate(demo, test, scores, options=Options(thresholds=thresholds), replicates=20)
    torch.manual_seed(0)
    other = dm.load(dm.models.demo.build_demo_network(), classes=demo.class_names)
    with pytest.raises(dm.ModelError, match="the network that it was chosen for"):
        dm.evaluate(other, test, "entropy", options=Options(thresholds=[given]), replicates=20)
    fewer = dm.load(nn.Conv2d(3, 4, 1), classes=["road", "sky", "pole", "sign"])
    with pytest.raises(dm.ModelError, match="the network that it was chosen for"):
        given.check_network(fewer)


def test_a_run_does_not_go_on_at_another_threshold(demo, streets, tmp_path):
    given = [chosen(demo, streets, by="tpr", level=level) for level in (0.5, 0.9)]
    test = drawn(2)
    wanted = {"out": tmp_path, "replicates": 20}

    def stop(results):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dm.evaluate(
            demo,
            test,
            "entropy",
            options=Options(examples=0, thresholds=given[:1], save=stop),
            **wanted,
        )
    with pytest.raises(dm.UsageError, match=r"--threshold \(entropy\) differ"):
        dm.evaluate(
            demo,
            test,
            "entropy",
            options=Options(examples=0, thresholds=given[1:]),
            resume=True,
            **wanted,
        )
    dm.evaluate(
        demo,
        test,
        "entropy",
        options=Options(examples=0, thresholds=given[:1]),
        resume=True,
        **wanted,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "both"}, "--of wrong or unknown"),
        ({"by": "eye"}, "--by f1, tpr, fpr, risk"),
        ({"level": 0.5}, "no level with --by f1"),
        ({"by": "tpr", "level": 1.0}, "a share between 0 and 1"),
        ({"by": "risk", "level": 0.0}, "a share between 0 and 1"),
        ({"by": "tpr", "empty": True}, "--count-empty with --by risk only"),
        ({"score": "entropy,margin"}, "expected one score"),
        ({"score": "entrpy"}, "Did you mean entropy"),
    ],
)
def test_requests_that_cannot_be(demo, streets, options, message):
    with pytest.raises(dm.UsageError, match=message):
        chosen(demo, streets, **options)


def test_too_few_images_for_a_promise(demo, streets):
    with pytest.raises(dm.DataError, match="at least 19 images that hold any such pixel"):
        chosen(demo, streets, by="risk", level=0.05)


def test_notes_of_a_threshold_that_is_coarse_or_flags_nothing():
    from doubtmap.decisions.threshold import _notes

    missed = Missed.empty()
    for _ in range(20):
        missed.update(np.array([0.5, 0.5, 0.2, 0.1]), np.array([True, False, False, False]))
    missed.update(np.array([0.1, 0.1]), np.array([False, False]))
    tied = "48.8% of the pixels lie in one step of the score beside the threshold"
    for threshold in (by_tpr(missed, 0.6), by_fpr(missed, 0.1)):
        assert any(tied in note for note in _notes(missed, threshold, "tpr", False))
    fine = list(_notes(missed, 0.3, "risk", False))
    assert fine == ["1 of 21 images hold no pixel to flag and count for nothing."]
    nothing = list(_notes(missed, 1.0, "risk", True))
    assert "counted as having missed nothing" in nothing[0]
    assert nothing[1].startswith("The threshold flags no pixel")


def test_only_what_has_seen_images_is_noted(streets):
    seen = dm.datasets.fingerprints(streets)
    notes = list(notes_of_seen({"a": seen[:3], "b": (), "c": ["other"]}, streets))
    assert len(notes) == 1 and notes[0].startswith("3 of 4 images of synthetic:4 were used for a,")
    assert list(notes_of_seen({"a": ()}, streets)) == []


@pytest.mark.real_data
def test_a_fusion_on_real_streets(shared):
    network = dm.load(shared / "models" / "camvid9")
    val = dm.open_dataset(f"camvid:{shared}/data/camvid:val")

    def some(start):
        at = range(start, len(val), 25)
        names, files = (tuple(x[i] for i in at) for x in (val.sample_names, val.files))
        return replace(val, sample_names=names, files=files)

    fitted = fit_score("wrong", network, some(0), scores="max_softmax,entropy")
    ranking, told, wrong = dm.metrics.Ranking(), [], []
    for prediction, label in Pairs(network, some(12)):
        p, positive, valid = fitted(prediction), prediction.classes != label, label >= 0
        ranking.update(p, positive, valid)
        told.append(p[valid])
        wrong.append(positive[valid])
    assert ranking.auroc() > 0.85
    mean, share = (float(torch.cat(part).double().mean()) for part in (told, wrong))
    assert mean == pytest.approx(share, abs=0.03)
