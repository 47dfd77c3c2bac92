"""Open-set segmentation of whole data sets, against all pixels at once."""

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID
from doubtmap.datasets.synthetic import SyntheticStreets
from doubtmap.engine import open_set_figures
from doubtmap.engine.open_set import thresholds_at
from doubtmap.engine.run import Run
from doubtmap.scores.parsing import parse_scores

SCORES = parse_scores("entropy,max_logit")


def all_pixels(segmenter, dataset, score):
    parts = []
    for index in range(len(dataset)):
        sample = dataset[index]
        prediction = segmenter(sample.image[None])
        maps = (score(prediction)[0], prediction.classes[0], sample.label)
        parts.append([m.numpy().ravel() for m in maps])
    return map(np.concatenate, zip(*parts))


class Drawn:
    """Streets that are drawn once."""

    def __init__(self, count, seed):
        streets = SyntheticStreets(count, seed=seed, size=(64, 96))
        self.name, self.class_names = streets.name, streets.class_names
        self.component_sizes = streets.component_sizes
        self.samples = [streets[index] for index in range(count)]

    def __len__(self):
        return len(self.samples)

    def sample_name(self, index):
        return self.samples[index].name

    def __getitem__(self, index):
        return self.samples[index]


@pytest.fixture(scope="module")
def streets():
    return Drawn(4, 3)


@pytest.fixture(scope="module")
def other():
    return Drawn(3, 8)


def test_figures_are_those_of_all_pixels_in_one_pot(segmenter, streets, other):
    found = open_set_figures(segmenter, streets, other, SCORES, replicates=20)
    assert (found["threshold_from"], found["tpr"]) == (other.name, 0.95)
    for name, score in SCORES.items():
        doubt, _, label = all_pixels(segmenter, other, score)
        figures = found["scores"][name]
        strange = doubt[label == UNKNOWN]
        assert (strange > figures["threshold"]).mean() >= 0.95
        assert (strange > figures["threshold"] + 1e-3).mean() < 0.96
        doubt, classes, label = all_pixels(segmenter, streets, score)
        counts = label != VOID
        truth = np.where(label == UNKNOWN, 8, label)[counts]
        answer = np.where(doubt > figures["threshold"], 8, classes)[counts]
        there = np.intersect1d(np.union1d(truth, answer), range(8))
        iou = jaccard_score(truth, answer, labels=there, average=None)
        assert figures["miou"] == pytest.approx(iou.mean())
        assert figures["found"] == pytest.approx((answer[truth == 8] == 8).mean())
        assert figures["false_alarms"] == pytest.approx((answer[truth < 8] == 8).mean())
        low, high = figures["miou_interval"]
        assert low <= figures["miou"] <= high
        names = [segmenter.class_names[index] for index in there]
        assert [figures["iou"][n] for n in names] == pytest.approx(iou.tolist())


def test_evaluate_writes_it_beside_the_closed_one(segmenter, streets, other):
    results = dm.evaluate(segmenter, streets, "entropy", replicates=20, open_set=other)
    found = results.figures["open_set"]
    assert found["closed_miou"] == results.figures["segmentation"]["miou"]
    assert found["scores"]["entropy"]["miou"] < found["closed_miou"]
    assert any("Open-set mIoU" in note for note in results.figures["notes"])


def test_thresholds_need_unknown_objects(segmenter, streets):
    without = SyntheticStreets(2, seed=1, size=(64, 96), unknowns=False)
    with pytest.raises(dm.DataError, match="expected unknown and known pixels"):
        thresholds_at(Run(segmenter, without, SCORES, (), None))
    with pytest.raises(dm.UsageError, match="expected a data set"):
        dm.evaluate(segmenter, streets, "entropy", open_set="streethazards")


def test_images_with_both_kinds_are_counted(segmenter):
    mixed = Drawn(4, 3)
    both = [i for i in (0, 3) if (mixed[i].label == UNKNOWN).any()]
    mixed[1].label[mixed[1].label == UNKNOWN] = VOID
    mixed[2].label[:] = UNKNOWN
    results = dm.evaluate(segmenter, mixed, "entropy", replicates=20)
    assert "open_set" not in results.figures
    assert results.figures["data"]["images_with_both"] == len(both) > 0
    note = f"means over the {len(both)} of 4 images that have both"
    assert any(note in told for told in results.figures["notes"])
    rows = [row["scores"]["entropy"] for row in results.figures["images"]]
    figures = [row["unknown"]["auprc"] for row in rows if "unknown" in row]
    assert len(figures) == len(both)
    per_image = results.figures["scores"]["entropy"]["unknown"]["auprc_per_image"]
    assert per_image == pytest.approx(np.mean(figures))
