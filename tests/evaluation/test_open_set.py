"""Open-set segmentation of whole data sets, against all pixels at once."""

import numpy as np
import pytest
import torch
from photographs import box, photograph
from sklearn.metrics import jaccard_score
from torch import nn

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID, Pasted, Sample, open_outlines
from doubtmap.engine.run import Run
from doubtmap.evaluation.open_set import (
    MOST_PARTS,
    check_open_set,
    refused_figures,
    take_thresholds,
    thresholds_at,
)
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.metrics import OpenSet
from doubtmap.metrics.bootstrap import Weights, interval
from doubtmap.scores.parsing import parse_scores
from doubtmap.streets.synthetic import SyntheticStreets

SCORES = parse_scores("entropy,max_logit")


def open_set_figures(segmenter, dataset, threshold_from, scores, replicates=300):
    """As `evaluate` takes them, without its other figures."""
    check_open_set(segmenter, dataset, threshold_from, ())
    run = Run(segmenter, dataset, dict(scores), (), None)
    taken = take_thresholds(run, threshold_from)
    return refused_figures(run, threshold_from, taken, replicates=replicates)


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
        dm.evaluate(segmenter, streets, "entropy", open_set=["streethazards"])


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


U, V = UNKNOWN, VOID


class Towns:
    """Images of one row of pixels `(label, predicted class, confidence 0 to 255)`, by town."""

    class_names = ("land", "sea")
    component_sizes = None

    def __init__(self, *images, name="world"):
        self.name, self.images = name, images
        self.fields = tuple({"town": town, "frame": str(i)} for i, (town, _) in enumerate(images))

    def __len__(self):
        return len(self.images)

    def sample_name(self, index):
        return f"image{index}"

    def __getitem__(self, index):
        label, predicted, confidence = np.array(self.images[index][1], np.int16).T
        image = np.zeros((3, 1, len(label)), np.uint8)
        image[predicted, 0, range(len(label))] = confidence
        return Sample(
            self.sample_name(index), torch.from_numpy(image), torch.from_numpy(label[None])
        )


@pytest.fixture
def reader():
    """A network whose logits are the red and the green of a pixel, in [0, 1]."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False))
    network[0].weight.data = torch.eye(3)[:2, :, None, None].clone()
    return dm.load(network, classes=("land", "sea"), mean=(0, 0, 0), std=(1, 1, 1))


NORTH = [(0, 0, 200), (0, 0, 210), (0, 0, 50), (1, 1, 200), (1, 0, 200), (U, 1, 100), (U, 0, 20)]
SOUTH = [(0, 0, 90), (0, 0, 200), (1, 1, 200), (1, 1, 220), (U, 0, 60), (V, 1, 255), (V, 0, 0)]


def test_each_town_has_the_threshold_of_the_other(reader):
    """By hand: the south's unknown reach confidence 60, the north's 100, and all must be found.

    North, refusing up to 60: land 2 of 4 (one refused, one sea taken for it), sea 1 of 3 (one
    missed, one unknown taken for it). South, refusing up to 100: land 1 of 2, sea 2 of 2.
    """
    world = Towns(("south", SOUTH), ("north", NORTH), ("south", SOUTH), ("south", SOUTH))
    found = dm.evaluate(reader, world, "max_logit", replicates=20, open_set="town").figures
    opened = found["open_set"]
    north, south = opened["parts"]
    assert (north["name"], north["images"]) == ("world/north", 1)
    assert (south["name"], south["images"]) == ("world/south", 3)
    assert (north["threshold_from"], south["threshold_from"]) == ("world/south", "world/north")
    for part, confidence, closed, iou, refused in (
        (north, 60, 5 / 8, (2 / 4, 1 / 3), (1 / 2, 1 / 5)),
        (south, 100, 1, (1 / 2, 1), (1, 1 / 4)),
    ):
        figures = part["scores"]["max_logit"]
        assert figures["threshold"] == pytest.approx(-confidence / 255)
        assert part["closed_miou"] == pytest.approx(closed)
        assert figures["miou"] == pytest.approx(sum(iou) / 2)
        assert figures["iou"] == pytest.approx({"land": iou[0], "sea": iou[1]})
        assert (figures["found"], figures["false_alarms"]) == pytest.approx(refused)
    whole = opened["scores"]["max_logit"]
    assert whole["miou"] == pytest.approx((5 / 12 + 3 * 3 / 4) / 4)
    assert whole["iou"] == pytest.approx({"land": 1 / 2, "sea": (1 / 3 + 3) / 4})
    assert (whole["found"], whole["false_alarms"]) == pytest.approx((7 / 8, (1 / 5 + 3 / 4) / 4))
    assert opened["closed_miou"] == pytest.approx((5 / 8 + 3) / 4)
    assert found["segmentation"]["miou"] == pytest.approx((9 / 10 + 7 / 8) / 2)  # in one pot
    told = "TPR on the other parts by town, weighted by images (world/north 1, world/south 3): "
    assert f"{told}max_logit 0.6667; closed 0.9062." in found["notes"][-1]


def test_a_part_has_the_figures_of_the_command_for_one_direction(segmenter):
    streets = [Drawn(4, 3), Drawn(3, 8)]
    both = Drawn(4, 3)
    both.samples = [*streets[0].samples, *streets[1].samples]
    both.fields = [{"town": town} for town in "aaaabbb"]
    found = open_set_figures(segmenter, both, "town", SCORES, replicates=20)
    alone = [
        open_set_figures(segmenter, this, other, SCORES, replicates=20)
        for this, other in (streets, streets[::-1])
    ]
    for part, one in zip(found["parts"], alone, strict=True):
        assert part["closed_miou"] == one["closed_miou"]
        for name in SCORES:
            left, right = dict(part["scores"][name]), dict(one["scores"][name])
            for figures in (left, right):  # the draws go by the number in the whole
                low, high = figures.pop("miou_interval")
                assert low <= figures["miou"] <= high
            assert left == right
    for name, whole in found["scores"].items():
        for key in ("miou", "found", "false_alarms"):
            values = [one["scores"][name][key] for one in alone]
            assert whole[key] == pytest.approx((4 * values[0] + 3 * values[1]) / 7)
        low, high = whole["miou_interval"]
        assert low < whole["miou"] < high
    shape = {"threshold_from", "tpr", "closed_miou", "scores"}
    assert (set(alone[0]), set(found)) == (shape, shape | {"parts"})
    assert [set(part) for part in found["parts"]] == [shape | {"name", "images"}] * 2


def test_equal_parts_have_equal_thresholds_and_figures(reader):
    world = Towns(("a", NORTH), ("a", SOUTH), ("b", NORTH), ("b", SOUTH))
    found = open_set_figures(reader, world, "town", parse_scores("max_logit,entropy"))
    left, right = found["parts"]
    assert left["closed_miou"] == right["closed_miou"] == pytest.approx(found["closed_miou"])
    for name, whole in found["scores"].items():
        one, other = (dict(part["scores"][name], miou_interval=None) for part in (left, right))
        assert one == other
        assert {**whole, "threshold": one["threshold"], "miou_interval": None} == {
            key: pytest.approx(value) for key, value in one.items()
        }


def test_the_interval_is_of_weighted_replicates_drawn_by_the_number_in_the_whole(reader):
    random = np.random.default_rng(5)
    towns = ["a", "b", "a", "a", "b", "a", "b", "b", "a"]
    pixels = np.stack([random.integers(low, high, (9, 40)) for low, high in ((-2, 2), (0, 2))])
    rows = np.stack([*pixels, random.integers(1, 256, (9, 40))], -1)
    world = Towns(*zip(towns, rows))
    found = open_set_figures(reader, world, "town", parse_scores("max_logit"), replicates=50)
    weights, drawn = Weights(50), []
    for part in found["parts"]:
        surest = round(part["scores"]["max_logit"]["threshold"] * -255)
        total = np.zeros((50, 3, 3))
        for number in (i for i, town in enumerate(towns) if town == part["name"][-1]):
            label, predicted, confidence = rows[number].T
            image = OpenSet.empty(2)
            image.update(predicted, label, label == U, confidence <= surest, label != V)
            total += weights(number)[:, None, None] * image.counts
        drawn.append([OpenSet(counts).miou for counts in total])
    whole = found["scores"]["max_logit"]
    expected = interval(whole["miou"], (5 * np.array(drawn[0]) + 4 * np.array(drawn[1])) / 9)
    assert whole["miou_interval"] == pytest.approx(expected)
    assert expected[0] < whole["miou"] < expected[1]


def test_of_three_parts_each_has_the_threshold_of_the_two_others(reader):
    """Of two or three unknown pixels all must be found, so the surest of them decides."""
    east = [(0, 0, 200), (1, 1, 200), (U, 1, 150)]
    world = Towns(("north", NORTH), ("south", SOUTH), ("east", east))
    parts = open_set_figures(reader, world, "town", parse_scores("max_logit"))["parts"]
    found = {part["name"]: part["scores"]["max_logit"]["threshold"] * -255 for part in parts}
    expected = {"world/east": 100, "world/north": 150, "world/south": 150}
    assert found == pytest.approx(expected)
    assert parts[0]["threshold_from"] == "world/north, world/south"


def test_what_a_part_lacks_has_no_weighted_mean(reader):
    """One part labels no sea, and none is answered there: no IoU of it, and a mean over land."""
    lake = [(0, 0, 200), (U, 0, 60)]
    world = Towns(("lake", lake), ("north", NORTH))
    found = open_set_figures(reader, world, "town", parse_scores("max_logit"), replicates=20)
    own, whole = found["parts"][0]["scores"]["max_logit"], found["scores"]["max_logit"]
    assert own["iou"] == {"land": 1, "sea": None}
    assert whole["iou"]["sea"] is None
    assert whole["miou"] == pytest.approx((1 + 5 / 12) / 2)


def test_images_that_cannot_be_read_have_no_weight(reader):
    class Torn(Towns):
        def __getitem__(self, index):
            if index in (1, 4):
                raise dm.DataError(f"image{index}: torn")
            return super().__getitem__(index)

    world = Torn(*[("north", NORTH)] * 3, *[("south", SOUTH)] * 3)
    options = {"replicates": 20, "open_set": "town"}
    results = dm.evaluate(reader, world, "max_logit", skip_bad=True, **options).figures
    assert [part["images"] for part in results["open_set"]["parts"]] == [2, 2]
    assert set(results["data"]["skipped"]) == {"image1", "image4"}
    with pytest.raises(dm.DataError, match="torn"):
        dm.evaluate(reader, world, "max_logit", **options)
    gone = Towns(("north", NORTH), ("south", [(0, 0, 9), (1, 1, 9)]))
    with pytest.raises(dm.DataError, match="world/south: expected unknown and known pixels"):
        dm.evaluate(reader, gone, "max_logit", **options)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("towns", r"got towns, which is none of their fields\. Such are frame, town\."),
        ("country", r"got country, which has 1\. Such are frame, town\."),
        ("number", rf"2 to {MOST_PARTS} values, got number, which has 11"),
    ],
)
def test_a_field_must_part_the_images(reader, field, message):
    world = Towns(*[("ab"[i % 2], NORTH) for i in range(11)])
    world.fields = tuple(
        {**fields, "country": "x", "number": str(i), "frame": str(i % 3)}
        for i, fields in enumerate(world.fields)
    )
    with pytest.raises(dm.UsageError, match=message):
        dm.evaluate(reader, world, "max_logit", open_set=field)


def test_a_data_set_without_fields_has_no_parts(segmenter, streets):
    with pytest.raises(dm.UsageError, match=r"none of their fields\. There is no such field\."):
        dm.evaluate(segmenter, streets, "entropy", open_set="town")
    with pytest.raises(dm.UsageError, match="none of their fields"):
        open_set_figures(segmenter, streets, "town", SCORES)


def test_each_image_is_run_once_for_a_threshold_and_once_to_count(reader):
    class Counted(Towns):
        read = 0

        def __getitem__(self, index):
            self.read += 1
            return super().__getitem__(index)

    world = Counted(("north", NORTH), ("south", SOUTH), ("south", SOUTH))
    open_set_figures(reader, world, "town", parse_scores("max_logit,entropy"), replicates=20)
    assert world.read == 2 * 3


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_resumed_run_has_the_same_parts(reader, tmp_path):
    world = Towns(("north", NORTH), ("south", SOUTH), ("south", SOUTH))
    options = {"replicates": 20, "open_set": "town"}

    def killed(stage, done, total):
        if (stage, done) == ("open set", 1):
            raise Killed

    with pytest.raises(Killed):
        dm.evaluate(reader, world, "max_logit", out=tmp_path, progress=killed, **options)
    resumed = dm.evaluate(reader, world, "max_logit", out=tmp_path, resume=True, **options)
    unbroken = dm.evaluate(reader, world, "max_logit", **options)
    assert resumed.figures | {"seconds": 0} == unbroken.figures | {"seconds": 0}


def test_passes_are_parted_as_the_images_beneath(reader, tmp_path):
    photograph(tmp_path, "a", [(16, box(0, 0, 2, 1))])
    world = Towns(("north", NORTH), ("south", SOUTH))
    passes = [Pasted(world, open_outlines(str(tmp_path)), seed) for seed in (0, 1)]
    options = {"replicates": 20, "open_set": "town"}
    killed_at = []

    def killed(stage, done, total):
        killed_at.append(stage)
        if killed_at.count("open set") == 1:
            raise Killed

    with pytest.raises(Killed):
        evaluate_passes(reader, passes, "max_logit", out=tmp_path, progress=killed, **options)
    other = options | {"open_set": "frame"}
    with pytest.raises(dm.UsageError, match="--open-set differ"):
        evaluate_passes(reader, passes, "max_logit", out=tmp_path, resume=True, **other)
    found = evaluate_passes(reader, passes, "max_logit", out=tmp_path, resume=True, **options)
    names = [part["name"] for part in found.figures["open_set"]["parts"]]
    assert names == [f"{passes[0].name}/{town}" for town in ("north", "south")]
