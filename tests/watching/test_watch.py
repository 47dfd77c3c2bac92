"""A watch from its reference to its verdict: what is kept, going on, labels, page, bad input."""

import json
import math
import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.calibration import Temperature, save_calibrator
from doubtmap.datasets import fingerprints
from doubtmap.datasets.dataset import Sample
from doubtmap.datasets.pasting import Part
from doubtmap.decisions.file import Threshold, save_threshold
from doubtmap.decisions.sets import fit_sets
from doubtmap.decisions.several import RISKS, Risks
from doubtmap.engine import Pairs
from doubtmap.engine.run import Skipped
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.files import Origin
from doubtmap.fitting import fit_score
from doubtmap.kernels.steps import steps
from doubtmap.metrics.missed import place_of, threshold_at
from doubtmap.prediction import Prediction
from doubtmap.scores.softmax import entropy, max_softmax
from doubtmap.watching import Watch, write_watch
from doubtmap.watching.bound import mean_bounds
from doubtmap.watching.judging import ranks
from doubtmap.watching.looking import (
    BINS,
    SHIFT,
    Glance,
    expected_miou,
    expected_table,
    expected_wrong,
)
from doubtmap.watching.page import summary, watch_page
from doubtmap.watching.promise import ONLY, open_promise
from doubtmap.watching.state import State

CLASSES = ("road", "pavement", "building", "vegetation", "sky", "pole", "sign", "vehicle")
CHOSEN = Threshold("entropy", 0.5, "wrong", "risk", 0.1)


class Scenes:
    """Patches of eight classes, each with a colour of its own, in light of that scene; seeded."""

    class_names, component_sizes, name = CLASSES, None, "scenes"

    def __init__(self, count, seed, light=1.0):
        self.count, self.seed, self.light = count, seed, light

    def __len__(self):
        return self.count

    def sample_name(self, index):
        return f"scene_{index}"

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError
        generator = np.random.default_rng([self.seed, index])
        label = generator.integers(0, 8, (4, 6)).repeat(8, 0).repeat(8, 1)
        colours = np.random.default_rng(0).integers(0, 200, (8, 3))
        bright = self.light * generator.uniform(0.8, 1.2)
        image = bright * (colours[label] + generator.normal(0, 8, (32, 48, 3)))
        pixels = torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1)
        return Sample(self.sample_name(index), pixels, torch.from_numpy(label).short())


@pytest.fixture
def promise(tmp_path):
    save_threshold(CHOSEN, tmp_path / "t.json")
    return tmp_path / "t.json"


@pytest.fixture
def begun(fresh_segmenter, promise):
    return Watch.begin(fresh_segmenter(), promise, Scenes(24, 1))


def random_prediction(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Prediction(4 * torch.randn(1, 5, 6, 8, generator=generator), size=(12, 16))


def test_what_is_expected_of_probabilities_is_their_sum():
    prediction = random_prediction()
    table = expected_table(prediction, max_softmax(prediction)[0])
    assert table[[0, 2]].sum(1) == pytest.approx([1, 1])
    assert table[2] == pytest.approx(prediction.probabilities[0].mean((1, 2)).numpy(), abs=1e-6)
    assert expected_wrong(table) == pytest.approx(float(max_softmax(prediction).mean()), abs=1e-6)


def test_what_is_expected_of_a_sure_network_is_what_it_says():
    prediction = Prediction(100 * torch.eye(3)[None, :, :, None].expand(1, 3, 3, 4), size=(3, 4))
    table = expected_table(prediction, torch.zeros(3, 4))
    assert table == pytest.approx(np.full((3, 3), 1 / 3))
    assert (float(expected_wrong(table)), float(expected_miou(table))) == (0, 1)
    half = expected_table(prediction, torch.full((3, 4), 0.5))
    assert half.sum(1) == pytest.approx([1, 0.5, 1])


def test_the_expected_miou_is_that_of_labels_drawn_as_the_probabilities_say():
    prediction = random_prediction(1)
    p, classes = prediction.probabilities[0].double(), prediction.classes[0]
    table = expected_table(prediction, max_softmax(prediction)[0])
    draws = torch.multinomial(p.reshape(5, -1).T, 4000, replacement=True).T.reshape(-1, 12, 16)
    hits = torch.stack([((draws == k) & (classes == k)).sum() for k in range(5)])
    union = torch.stack([((draws == k) | (classes == k)).sum() for k in range(5)])
    assert float(expected_miou(table)) == pytest.approx(float((hits / union).mean()), abs=0.002)


def test_a_class_that_is_never_predicted_does_not_count():
    table = np.array([[0.5, 0.5, 0.0], [0.4, 0.5, 0.0], [0.4, 0.5, 0.1]])
    assert float(expected_miou(table)) == pytest.approx((0.4 / 0.5 + 1) / 2)


def test_a_look_keeps_means_and_a_histogram(segmenter, promise):
    opened = open_promise(segmenter, promise)
    image = Scenes(1, 0)[0].image
    prediction = segmenter(image[None])
    found = Glance(opened.name, opened.score, opened.wrong, None).of(prediction, image, "mark")
    assert found.doubt == pytest.approx(float(entropy(prediction).mean()), rel=1e-6)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    grey = (image.double() / 255 * weights).sum(0)
    assert found.brightness == pytest.approx(float(grey.mean()), rel=1e-6)
    assert found.contrast == pytest.approx(float(grey.std(correction=0)), rel=1e-5)
    assert found.scores.shape == (BINS,) and found.scores.sum() == pytest.approx(1)


def test_images_like_the_reference_give_no_alarm_and_others_do(begun):
    usual = begun.update(Scenes(20, 2))
    assert (usual.images, usual.alarm, usual.alarm_at) == (20, False, None)
    assert usual.wrong[0].interval[0] < usual.wrong[0].value < usual.wrong[0].interval[1]
    found = begun.update(Scenes(20, 3, 0.3))
    assert found.alarm and 20 < found.alarm_at <= 40
    assert found.changes[0].name in ("brightness", "contrast", "doubt")
    assert found.p <= 0.001
    assert f"alarm True, alarm after {found.alarm_at} images" in repr(found)
    assert repr(begun).endswith("reference 24, new 40, labelled 0)")
    again = begun.update(Scenes(20, 3, 0.3))
    assert (again.images, begun.again) == (40, 20)
    assert again.alarm_at == found.alarm_at


def test_ten_and_ten_are_twenty(begun, fresh_segmenter, tmp_path):
    images = Scenes(20, 2)
    parts = replace_copy(begun)
    parts.update(Part(images, range(10), "first"))
    parts.save(tmp_path / "state.json")
    resumed = Watch.resume(tmp_path / "state.json", fresh_segmenter())
    half = resumed.update(Part(images, range(10, 20), "second")).figures
    whole = begun.update(images).figures
    assert half.pop("looks") == 2 and whole.pop("looks") == 1
    assert half == whole
    resumed.save(tmp_path / "parts.json")
    begun.state = replace(begun.state, looks=2)
    begun.save(tmp_path / "whole.json")
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def replace_copy(watch):
    return Watch(watch.promise, watch.state)


def test_distances_are_ranked_among_images_that_they_do_not_know(begun):
    begun.update(Scenes(4, 2))
    state = begun.state
    (doubts, new), (distances, away) = ranks(state.reference, state.new, seed=3)
    assert [len(each) for each in (doubts, new, distances, away)] == [24, 4, 12, 4]
    halves = np.random.default_rng(3).permutation(24) < 12
    usual = np.stack([one.logits for one in state.reference])[halves]
    scaled = (usual - usual.mean(0)) / usual.std(0)
    covariance = 0.8 * np.cov(scaled.T, bias=True) + 0.2 * np.eye(8)
    row = (state.new[1].logits - usual.mean(0)) / usual.std(0)
    assert away[1] == pytest.approx(row @ np.linalg.solve(covariance, row))
    blocks = ranks(state.reference, state.new, 2, 3)
    assert blocks[0][1] == pytest.approx(new.reshape(2, 2).mean(1))


def test_blocks_wait_until_they_are_full(fresh_segmenter, promise):
    watch = Watch.begin(fresh_segmenter(), promise, Scenes(60, 1), block=3)
    found = watch.update(Scenes(7, 2))
    assert (found.images, len(found.evidence)) == (7, 2)
    dark = watch.update(Scenes(30, 3, 0.3))
    assert dark.alarm_at % 3 == 0


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


def test_workers_are_sent_what_they_need(segmenter, promise):
    opened, scenes = open_promise(segmenter, promise), Scenes(1, 0)
    glance = Glance(opened.name, opened.score, opened.wrong, None)
    sent = pickle.loads(pickle.dumps(glance))
    here, there = (each(segmenter, 0, ("mark", scenes[0])) for each in (glance, sent))
    assert (here.mark, here.doubt) == (there.mark, there.doubt)
    assert np.array_equal(here.table, there.table)


def test_an_image_without_anything_to_lose_says_nothing(segmenter, promise):
    opened = open_promise(segmenter, promise)
    prediction = segmenter(Scenes(1, 0)[0].image[None])
    assert opened.loss(prediction, prediction.classes) is None
    counting = replace(opened, threshold=replace(CHOSEN, empty=True))
    assert counting.loss(prediction, prediction.classes) == 0
    assert counting.loss(prediction, torch.full_like(prediction.classes, -2)) is None


def test_the_folder_goes_on_and_its_page_says_so(fresh_segmenter, promise, tmp_path):
    out, segmenter = tmp_path / "watch", fresh_segmenter()
    first = {"promise": promise, "reference": Scenes(24, 1)}
    verdict, notes = write_watch(segmenter, None, out, **first)
    assert (verdict.images, verdict.p, notes) == (0, None, [])
    write_watch(segmenter, Scenes(10, 2), out)
    verdict, notes = write_watch(segmenter, Scenes(15, 3, 0.3), out, **first)
    assert json.loads((out / "watch.json").read_text()) == json.loads(json.dumps(verdict.figures))
    page = (out / "watch.html").read_text()
    assert "<h1>Alarm</h1>" in page and "What changed" in page and page.count("<svg") == 1
    verdict, notes = write_watch(segmenter, Scenes(10, 2), out, labelled=Scenes(3, 7))
    assert notes == ["10 images had been seen before, and are left out."]
    assert verdict.figures["risk"]["images"] == 3
    assert (out / "watch.html").read_text().count("<svg") == 2


def test_images_that_cannot_be_used_are_counted(begun, monkeypatch):
    dataset, read = Scenes(4, 2), Scenes.__getitem__

    def damaged(self, index):
        if self is dataset and index == 1:
            raise DataError("scene: is damaged.")
        return read(self, index)

    monkeypatch.setattr(Scenes, "__getitem__", damaged)
    with pytest.raises(DataError, match="is damaged"):
        replace_copy(begun).update(dataset)
    skipped = Skipped()
    assert begun.update(dataset, skipped=skipped).images == 3
    assert list(skipped.reasons.values()) == ["scene: is damaged."]
    with pytest.raises(DataError, match="none of the 1 images"):
        begun.update(Part(dataset, [1], "one"), skipped=Skipped())


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"rate": 1.0}, UsageError, "between 0 and 1, got 1.0"),
        ({"block": 0}, UsageError, "1 image or more"),
        ({"block": 2}, DataError, "at least 40 images in blocks of 2, got 24"),
    ],
)
def test_settings_that_cannot_be(fresh_segmenter, promise, how, error, said):
    with pytest.raises(error, match=said):
        Watch.begin(fresh_segmenter(), promise, Scenes(24, 1), **how)


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


def test_states_of_something_else(begun, fresh_segmenter, tmp_path, promise):
    file, segmenter = tmp_path / "state.json", fresh_segmenter()
    begun.save(file)
    other = dm.load(torch.nn.Conv2d(3, 8, 1), classes=CLASSES)
    with pytest.raises(ModelError, match="the network that it watches"):
        Watch.resume(file, other)
    save_threshold(replace(CHOSEN, threshold=0.25), promise)
    with pytest.raises(UsageError, match="the promise that it watches"):
        Watch.resume(file, segmenter)
    with pytest.raises(DataError, match="Begin anew with: doubtmap watch"):
        State.load(promise)


@pytest.mark.parametrize(
    "damage",
    [
        {"rate": 2},
        {"reference": []},
        {"new": [["mark", 1.0]]},
        {"losses": [["mark", {"loss": "much"}]]},
        {"losses": [["mark", {"other": 0.1}]]},
        {"limits": {"loss": 2}},
        {"scores": [{}, {"9999": 1.0}]},
        {"looks": None},
    ],
)
def test_damaged_states_are_one_sentence(begun, tmp_path, damage):
    file = tmp_path / "state.json"
    begun.save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(DataError, match="expected the state of a watch"):
        State.load(file)


def test_a_folder_keeps_to_what_it_was_begun_with(begun, promise, tmp_path):
    out, segmenter = tmp_path / "out", begun.promise.segmenter
    with pytest.raises(UsageError, match=r"no --reference; there is no"):
        write_watch(segmenter, Scenes(1, 2), out, promise=promise)
    out.mkdir()
    begun.save(out / "state.json")
    with pytest.raises(UsageError, match=r"--false-alarms 0.05"):
        write_watch(segmenter, Scenes(1, 2), out, rate=0.01)
    with pytest.raises(UsageError, match=r"--block 1"):
        write_watch(segmenter, Scenes(1, 2), out, block=2)
    with pytest.raises(UsageError, match="with other images"):
        write_watch(segmenter, Scenes(1, 2), out, reference=Scenes(24, 9))


def test_labelled_images_must_be_others(begun, fresh_segmenter, tmp_path):
    dataset = Scenes(4, 5)
    origin = Origin(images=fingerprints(dataset))
    save_threshold(replace(CHOSEN, origin=origin), tmp_path / "u.json")
    watch = Watch.begin(fresh_segmenter(), tmp_path / "u.json", Scenes(20, 1))
    with pytest.raises(UsageError, match=r"4 of 4 images .* were used for the threshold. Give oth"):
        watch.check(dataset)


def test_the_command_ends_with_three_on_alarm(run, tmp_path, promise):
    def written(folder, dataset):
        (tmp_path / folder).mkdir()
        for at in range(len(dataset)):
            pixels = dataset[at].image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / folder / f"{at}.png")
        return tmp_path / folder

    usual, dark = written("usual", Scenes(30, 1)), written("dark", Scenes(20, 3, 0.3))
    out = tmp_path / "watch"
    code, said, err = run("watch", "demo", "--promise", promise, "--out", out)
    assert (code, said) == (2, "") and "expected new images, --reference" in err
    code, said, err = run("watch", "demo", "--promise", promise, "--reference", usual, "--out", out)
    assert (code, said) == (0, f"{out}: a reference of 30 images, and no new image yet\n"), err
    code, said, err = run("watch", "demo", dark, "--out", out, "--json")
    assert code == 3, err
    assert said.count("\n") == 1 and json.loads(said)["alarm"]
    assert math.isfinite(json.loads(said)["evidence"])
    code, said, _ = run("watch", "demo", dark, "--out", out)
    assert code == 3 and said.startswith(f"{out}: ALARM after ")


def test_the_scores_of_pixels_are_compared_by_their_histograms(begun):
    scores = np.zeros((2, BINS))
    one, two = (int(steps(torch.tensor(value)) >> SHIFT) for value in (1.0, 2.0))
    scores[0, one], scores[1, [one, two]] = 4, (1, 3)
    begun.state = replace(begun.state, scores=scores, new=begun.state.reference[:1])
    found = begun.verdict
    assert found.distance == pytest.approx(0.75)
    assert two - one == 8
    for share, before, now in found.quantiles:
        assert 1 <= before < 1.125 and 2 <= now < 2.25, share


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


def test_risks_without_their_levels_are_no_promise(fresh_segmenter, tmp_path):
    save_threshold(Threshold("entropy", 0.5, "wrong", "risks", 0.1), tmp_path / "t.json")
    with pytest.raises(DataError, match="the levels that its risks are kept at"):
        open_promise(fresh_segmenter(), tmp_path / "t.json")


class Ends(Part):
    """A data set whose pass is ended from outside at one of its images."""

    def __init__(self, dataset, at):
        super().__init__(dataset, range(len(dataset)), "ends")
        object.__setattr__(self, "at", at)

    def __getitem__(self, index):
        if index == self.at:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.mark.parametrize("stops", [[7], [0], [3, 3, 11]])
def test_what_is_stopped_goes_on_to_the_same_evidence(begun, fresh_segmenter, tmp_path, stops):
    images, place = Scenes(14, 2), tmp_path / "state.json"
    begun.save(place)
    for at in stops:
        watch = Watch.resume(place, fresh_segmenter())
        with pytest.raises(KeyboardInterrupt):
            watch.update(Ends(images, at), place=place)
        assert len(State.load(place).new) == at
    watch = Watch.resume(place, fresh_segmenter())
    found, whole = watch.update(images, place=place), begun.update(images)
    assert watch.again == stops[-1]
    assert np.array_equal(found.evidence, whole.evidence)
    assert found.figures | {"looks": 1} == whole.figures
    assert np.array_equal(State.load(place).scores, begun.state.scores)


def test_a_killed_watch_has_what_was_written_while_images_came(begun, tmp_path, monkeypatch):
    place, written = tmp_path / "state.json", []
    monkeypatch.setattr("doubtmap.watching.watch.SECONDS", 0.0)
    monkeypatch.setattr("doubtmap.watching.watch.monotonic", lambda: 0.0)

    def look(*_):
        written.append(len(State.load(place).new))

    begun.update(Scenes(4, 2), place=place, progress=look)
    assert written == [1, 2, 3, 4]


def test_labels_that_were_looked_at_stay_too(begun, fresh_segmenter, tmp_path):
    labelled, place = Scenes(5, 6), tmp_path / "state.json"
    with pytest.raises(KeyboardInterrupt):
        begun.check(Ends(labelled, 3), place=place)
    watch = Watch.resume(place, fresh_segmenter())
    assert len(watch.state.losses) == 3
    assert watch.check(labelled).risk.losses == 5


def test_an_image_that_comes_twice_counts_once(begun):
    twice = Part(Scenes(3, 2), [0, 1, 0, 2, 1], "twice")
    assert (begun.update(twice).images, begun.again) == (3, 2)


def test_frames_of_a_film_are_watched(run, tmp_path, promise):
    pytest.importorskip("av", reason="PyAV is not installed")
    from doubtmap.films.frames import write_film

    def filmed(name, dataset):
        frames = (each.image.permute(1, 2, 0).numpy() for each in dataset)
        write_film(tmp_path / name, frames, Fraction(10))
        return tmp_path / name

    out, usual = tmp_path / "watch", tmp_path / "usual"
    usual.mkdir()
    for at, each in enumerate(Scenes(30, 1)):
        Image.fromarray(each.image.permute(1, 2, 0).numpy()).save(usual / f"{at}.png")
    begin = ("watch", "demo", "--promise", promise, "--reference", usual, "--out", out)
    film = filmed("drive.mp4", Scenes(24, 3, 0.3))
    code, _, err = run(*begin, film, "--every", "2", "--limit", "5", "--json")
    assert code in (0, 3), err
    code, said, err = run("watch", "demo", film, "--out", out, "--json")
    assert code == 3, err
    assert json.loads(said)["images"] == 24 and "5 images had been seen before" in err
    found = []
    for batch in ("1", "4"):
        asked = (*begin[:-1], tmp_path / batch, film, "--every", "3", "--batch", batch, "--json")
        code, said, err = run(*asked)
        assert code in (0, 3), err
        found.append(json.loads(said))
    assert found[0]["images"] == found[1]["images"] == 8
    one, other = (each["expected_wrong"]["new"] for each in found)
    assert other["value"] == pytest.approx(one["value"], rel=1e-4)
    assert other["interval"] == pytest.approx(one["interval"], rel=1e-4)
    code, _, err = run("watch", "demo", film, usual, "--out", out)
    assert code == 2 and "expected films or other images, got both" in err
    code, _, err = run("watch", "demo", usual, "--every", "2", "--out", out)
    assert code == 2 and "expected no --every with images" in err
    code, _, err = run("watch", "demo", film, "--workers", "2", "--out", out)
    assert code == 2 and "expected no --workers with films" in err
