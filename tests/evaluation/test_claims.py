"""Scores that claim to be the probability that a pixel is wrong, held to the labels."""

import functools

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

import doubtmap as dm
from doubtmap.calibration import METHODS, parse_method
from doubtmap.datasets import KNOWN, Sample
from doubtmap.engine import journal as journal_module
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.tally import Tally, observe
from doubtmap.fitting import fit_score
from doubtmap.metrics import BinaryReliability, Reliability
from doubtmap.metrics.bootstrap import Weights, interval
from doubtmap.prediction import Prediction
from doubtmap.scores import Wrong
from doubtmap.scores.parsing import open_scores
from doubtmap.scoring import is_probability, score_maps
from doubtmap.streets.synthetic import SyntheticStreets

KEYS = ("ece", "ece_interval", "brier", "brier_interval")


@pytest.fixture
def file(segmenter, streets, tmp_path):
    """A fitted `wrong`, on other streets than those of the tests."""
    others = SyntheticStreets(4, seed=9, size=(64, 96))
    path = tmp_path / "wrong.safetensors"
    fit_score("wrong", segmenter, others, scores="max_softmax,entropy", out=path)
    return path


def pixels_of(segmenter, streets, score):
    """Of each image, the score and whether wrong, of the pixels with a class."""
    for index in range(len(streets)):
        sample = streets[index]
        prediction = segmenter(sample.image[None])
        known = sample.label >= 0
        values = score(prediction)[0][known].numpy().astype(np.float64)
        yield values, (prediction.classes[0] != sample.label)[known].numpy()


def sums_of(p, wrong, bins):
    """`(bins, 3)`: pixels, wrong ones and summed probability, by one minus the probability."""
    at = np.clip(np.ceil((1 - p) * bins).astype(int) - 1, 0, bins - 1)
    return np.stack([np.bincount(at, weights, bins) for weights in (None, wrong, p)], 1)


def ece_of(sums):
    return np.abs(sums[:, 1] - sums[:, 2]).sum() / sums[:, 0].sum()


@pytest.mark.parametrize("bins", [5, 15])
def test_figures_and_intervals_are_those_of_all_pixels_in_one_pot(segmenter, streets, file, bins):
    score = Wrong.load(file, open_scores)
    results = dm.evaluate(
        segmenter, streets, f"wrong:{file}", replicates=50, options=Options(bins=bins), seed=4
    )
    found = results.figures["scores"]["wrong"]["wrong"]
    images = list(pixels_of(segmenter, streets, score))
    p, wrong = map(np.concatenate, zip(*images))
    each = np.stack([sums_of(*image, bins) for image in images])
    assert found["ece"] == pytest.approx(ece_of(each.sum(0)), rel=1e-6)
    assert found["brier"] == pytest.approx(brier_score_loss(wrong, p), rel=1e-6)
    weights = np.stack([Weights(50, seed=4)(index) for index in range(len(images))], 1)
    drawn = np.array([ece_of(np.tensordot(w, each, 1)) for w in weights])
    assert found["ece_interval"] == pytest.approx(interval(found["ece"], drawn, (0, 1)), rel=1e-6)
    losses = np.array([[len(p), ((p - wrong) ** 2).sum()] for p, wrong in images])
    drawn = (weights @ losses)[:, 1] / (weights @ losses)[:, 0]
    expected = interval(found["brier"], drawn, (0, 1))
    assert found["brier_interval"] == pytest.approx(expected, rel=1e-6)
    diagram = results.curves["wrong_reliability"]["wrong"]
    assert len(diagram["share"]) == bins
    assert sum(diagram["share"]) == pytest.approx(1)
    gaps = [
        share * abs(accuracy - confidence)
        for confidence, accuracy, share in zip(*diagram.values())
        if share
    ]
    assert sum(gaps) == pytest.approx(found["ece"], rel=1e-9)


def near_edges(p, bins):
    """Share of the pixels whose confidence is so near to a bin's edge that rounding decides."""
    place = (1 - p) * bins
    return (np.abs(place - np.round(place)) < 1e-6 * bins).mean()


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("bins", [8, 15])
def test_of_max_softmax_it_is_the_ece_of_the_calibration(segmenter, streets, members, bins):
    if members > 1:
        torch.manual_seed(7)
        other = torch.nn.Conv2d(3, len(segmenter.class_names), 1)
        segmenter = dm.models.Ensemble([segmenter, dm.load(other, classes=segmenter.class_names)])
    results = dm.evaluate(
        segmenter, streets, "max_softmax", replicates=20, options=Options(bins=bins)
    )
    p = np.concatenate([p for p, _ in pixels_of(segmenter, streets, dm.scores.max_softmax)])
    tolerance = 1e-6 + 2 * near_edges(p, bins)
    assert tolerance < 1e-3
    found, calibration = (
        results.figures["scores"]["max_softmax"]["wrong"],
        results.figures["calibration"],
    )
    assert found["ece"] == pytest.approx(calibration["ece"], abs=tolerance)
    assert found["ece_interval"] == pytest.approx(calibration["ece_interval"], abs=3 * tolerance)
    assert found["brier"] < calibration["brier"]


@pytest.mark.parametrize("method", METHODS)
def test_so_it_is_whatever_has_calibrated_the_softmax(method):
    generator = torch.Generator().manual_seed(0)

    def pair():
        logits = 2 * torch.randn(1, 4, 24, 32, generator=generator)
        honest = (0.5 * logits).softmax(1)[0].flatten(1).T
        label = torch.multinomial(honest, 1, generator=generator).view(1, 24, 32)
        features = torch.randn(1, 3, 24, 32, generator=generator)
        return Prediction(logits, (24, 32), features=features), label

    calibrator = parse_method(method)([pair() for _ in range(3)])
    whole, claimed = Reliability(4, 12), BinaryReliability.empty(12)
    near = []
    for prediction, label in [pair() for _ in range(3)]:
        after = calibrator(prediction)
        doubt = dm.scores.max_softmax(after)
        whole.update(after.logits, label, classes=after.classes)
        claimed.update(doubt, after.classes != label)
        near.append(near_edges(doubt.double().numpy(), 12))
    assert claimed.ece == pytest.approx(whole.ece, abs=1e-6 + 2 * np.mean(near))


def test_scores_that_claim_nothing_have_no_such_figures(segmenter, streets):
    results = dm.evaluate(segmenter, streets, "all", replicates=20)
    claiming = [n for n, s in results.figures["scores"].items() if {*KEYS} & {*s["wrong"]}]
    assert claiming == list(results.curves["wrong_reliability"]) == ["max_softmax"]
    assert {*KEYS} < {*results.figures["scores"]["max_softmax"]["wrong"]}


class Constant:
    """A score that says the same everywhere."""

    def __init__(self, value, claims=True):
        self.value, self.probability_of_wrong = value, claims

    def __call__(self, prediction):
        return torch.full((1, *prediction.size), self.value)


def test_a_score_of_ones_own_may_claim_it_and_the_rate_of_wrong_is_calibrated(segmenter, streets):
    wrong = np.concatenate([w for _, w in pixels_of(segmenter, streets, dm.scores.entropy)])
    scores = {"rate": Constant(wrong.mean()), "always": Constant(1.0), "mute": Constant(7.0, False)}
    figures = dm.evaluate(segmenter, streets, scores, replicates=20).figures["scores"]
    rate, always = figures["rate"]["wrong"], figures["always"]["wrong"]
    assert rate["ece"] == pytest.approx(0, abs=1e-7)
    assert rate["brier"] == pytest.approx(wrong.mean() * (1 - wrong.mean()), abs=1e-7)
    assert always["ece"] == always["brier"] == pytest.approx(1 - wrong.mean(), abs=1e-12)
    assert not {*KEYS} & {*figures["mute"]["wrong"]}


def test_a_claim_is_seen_through_partial():
    def guess(prediction, factor):
        return factor * dm.scores.max_softmax(prediction)

    assert not is_probability(functools.partial(guess, factor=0.5))
    guess.probability_of_wrong = True
    assert is_probability(functools.partial(functools.partial(guess), factor=0.5))
    assert [is_probability(getattr(dm.scores, n)) for n in ("max_softmax", "margin")] == [
        True,
        False,
    ]


@pytest.mark.parametrize(("value", "text"), [(-1e-6, "-1e-06 to -1e-06"), (1.5, "1.5 to 1.5")])
def test_a_claim_outside_of_0_and_1_is_refused_by_name(segmenter, streets, tmp_path, value, text):
    with pytest.raises(dm.DataError, match=rf"guess: expected values in \[0, 1\].*got {text}"):
        dm.evaluate(segmenter, streets, {"guess": Constant(value)}, out=tmp_path)
    silent = {"guess": Constant(value, claims=False)}
    dm.evaluate(segmenter, streets, silent, replicates=20, out=tmp_path / "silent")


class Frames:
    """Some samples of a data set, with other labels."""

    component_sizes = None

    def __init__(self, dataset, indices, class_names=(), relabel=lambda label: label):
        self.dataset, self.indices, self.relabel = dataset, indices, relabel
        self.name, self.class_names = "frames", class_names

    def __len__(self):
        return len(self.indices)

    def sample_name(self, index):
        return self.dataset.sample_name(self.indices[index])

    def __getitem__(self, index):
        sample = self.dataset[self.indices[index]]
        return Sample(sample.name, sample.image, self.relabel(sample.label))


def test_without_classes_the_figures_are_null_and_a_note_says_why(segmenter, streets):
    binary = Frames(streets, [0, 1], relabel=lambda label: label.where(label < 0, KNOWN))
    figures = dm.evaluate(segmenter, binary, "max_softmax", replicates=20).figures
    found = figures["scores"]["max_softmax"]["wrong"]
    assert [found[key] for key in KEYS] == [None] * 4
    assert any("wrong: no pixel has a class" in note for note in figures["notes"])


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["camvid9", "camvid9-overconfident"])
def test_on_real_frames_it_is_the_ece_of_the_calibration(shared, name):
    camvid = dm.datasets.open_dataset(f"camvid:{shared}/data/camvid:test")
    frames = Frames(camvid, [3, 200], camvid.class_names)
    segmenter = dm.load(shared / "models" / name)
    figures = dm.evaluate(
        segmenter, frames, "max_softmax", replicates=20, options=Options(examples=0)
    ).figures
    found = figures["scores"]["max_softmax"]["wrong"]
    assert found["ece"] == pytest.approx(figures["calibration"]["ece"], abs=1e-5)
    assert 0.005 < found["ece"] < found["brier"] < 0.2


class Killed(Exception):
    """Stands for the end of the process."""


def killed(stage, done, total):
    if (stage, done) == ("pixels", 4):
        raise Killed


@pytest.mark.parametrize("largest", [1, 1 << 31])
def test_a_resumed_run_has_the_same_figures(
    segmenter, streets, file, tmp_path, monkeypatch, largest
):
    monkeypatch.setattr(journal_module, "LARGEST", largest)
    scores = f"max_softmax,entropy,wrong:{file}"
    run = functools.partial(dm.evaluate, segmenter, streets, scores, replicates=20)
    unbroken = run()
    with pytest.raises(Killed):
        run(out=tmp_path / "run", progress=killed)
    told = []
    resumed = run(out=tmp_path / "run", resume=True, progress=lambda *now: told.append(now[:2]))
    assert told[0] == ("pixels", 4)
    for name in ("max_softmax", "wrong"):
        before, after = (r.figures["scores"][name]["wrong"] for r in (unbroken, resumed))
        for key in KEYS:  # but for the last bits of PyTorch's exp
            assert after[key] == pytest.approx(before[key], rel=1e-6)
        before, after = (r.curves["wrong_reliability"][name] for r in (unbroken, resumed))
        assert after["share"] == pytest.approx(before["share"], abs=1e-4)


def test_a_run_does_not_go_on_where_a_score_has_taken_its_claim_back(segmenter, streets, tmp_path):
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, {"a": Constant(0.5)}, out=tmp_path, progress=killed)
    taken_back = {"a": Constant(0.5, claims=False)}
    with pytest.raises(dm.UsageError, match="claims differ"):
        dm.evaluate(segmenter, streets, taken_back, out=tmp_path, resume=True)


def test_the_sums_do_not_grow_with_the_images(segmenter, streets):
    def sizes(tally):
        state = tally.scores["max_softmax"].state()
        return {name: array.shape for name, array in state.items() if name.startswith("claim")}

    tally, found = Tally(["max_softmax"], 20, bins=6, claims=["max_softmax"]), []
    for index in range(3):
        sample = streets[index]
        prediction = segmenter(sample.image[None])
        maps = score_maps(prediction, {"max_softmax": dm.scores.max_softmax})
        tally.take(observe(index, str(index), prediction, sample.label, maps, 6))
        found.append(sizes(tally))
    assert found[0] == found[2] == sizes(Tally.from_state(tally.state()))
    assert set(found[0].values()) == {(1, 6, 3), (1, 2), (20, 6, 3), (20, 2)}
