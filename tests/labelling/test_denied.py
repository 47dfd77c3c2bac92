"""Parts that labels deny, what speaks against a label, and a data set gone through for them."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

import doubtmap as dm
from doubtmap.datasets.dataset import VOID, Sample
from doubtmap.labelling import DenialRule, denied_parts, label_probability, soft_min
from doubtmap.labelling.find import evidence, find_label_errors
from doubtmap.prediction import Prediction

PLAIN = DenialRule(smallest=1, thinnest=1, surest=0)
NAMES = ("road", "car", "sky")


def parts_of(classes, label, rule=PLAIN):
    found, predicted = denied_parts(torch.tensor(classes), torch.tensor(label), rule)
    return found.numpy(), predicted.tolist()


class TestParts:
    def test_a_thing_that_labels_lack_is_one_part_whatever_lies_under_it(self):
        classes = np.zeros((20, 20), int)
        classes[5:15, 5:15] = 1
        label = np.zeros((20, 20), int)
        label[:, 10:] = 2
        classes[:, 10:][classes[:, 10:] == 0] = 2
        found, predicted = parts_of(classes, label)
        assert predicted == [1]
        assert ((found == 0) == (classes == 1)).all()
        assert (found[classes != 1] == -1).all()

    def test_of_two_things_that_touch_the_one_without_a_label_is_found(self):
        classes = np.zeros((20, 40), int)
        classes[5:15, 5:35] = 1
        label = classes.copy()
        label[:, 20:] = 0
        found, predicted = parts_of(classes, label)
        assert predicted == [1]
        assert found[10, 25] == 0
        assert found[10, 10] == -1

    def test_void_denies_nothing(self):
        classes, label = np.ones((9, 9), int), np.full((9, 9), VOID)
        assert parts_of(classes, label)[1] == []

    @pytest.mark.parametrize("thinnest", [2, 3, 4, 5])
    def test_strips_are_cut_off_and_squares_stay(self, thinnest):
        classes, label = np.zeros((40, 40), int), np.zeros((40, 40), int)
        classes[10 : 10 + thinnest - 1] = 1  # a strip along a border
        classes[20 : 20 + thinnest, 20 : 20 + thinnest] = 1
        found, predicted = parts_of(classes, label, DenialRule(1, thinnest, 0))
        assert predicted == [1]
        expected = np.zeros((40, 40), bool)
        expected[20 : 20 + thinnest, 20 : 20 + thinnest] = True
        assert ((found == 0) == expected).all()

    def test_a_strip_along_the_edge_of_the_image_goes_on_beyond_it(self):
        classes, label = np.zeros((30, 30), int), np.zeros((30, 30), int)
        classes[:, :3] = 1
        assert parts_of(classes, label, DenialRule(1, 5, 0))[1] == [1]

    @settings(max_examples=40, deadline=None)
    @given(
        arrays(np.int64, (14, 17), elements=st.integers(0, 2)),
        arrays(np.int64, (14, 17), elements=st.integers(-2, 2)),
        st.integers(1, 4),
    )
    def test_parts_are_the_openings_of_each_class(self, classes, label, thinnest):
        """SciPy's opening is the oracle, on a map that goes on beyond its border."""
        found, predicted = parts_of(classes, label, DenialRule(1, thinnest, 0))
        seen = np.zeros(classes.shape, bool)
        for cls in range(3):
            denied = (classes == cls) & (label >= 0) & (label != cls)
            wide = np.pad(denied, 8, mode="edge")
            opened = ndimage.binary_opening(wide, np.ones((thinnest, thinnest)))[8:-8, 8:-8]
            assert predicted.count(cls) == ndimage.label(opened, np.ones((3, 3)))[1]
            own = np.isin(found, [k for k, each in enumerate(predicted) if each == cls])
            assert (own == opened).all()
            seen |= opened
        assert ((found >= 0) == seen).all()

    def test_small_ones_are_left_out(self):
        classes, label = np.zeros((9, 9), int), np.zeros((9, 9), int)
        classes[0, 0] = classes[4:6, 4:6] = 1
        found, predicted = parts_of(classes, label, DenialRule(4, 1, 0))
        assert predicted == [1]
        assert (found >= 0).sum() == 4

    def test_maps_of_other_sizes_are_refused(self):
        with pytest.raises(dm.UsageError, match="of one image"):
            denied_parts(torch.zeros(3, 4), torch.zeros(4, 3), PLAIN)

    @pytest.mark.parametrize("bad", [{"smallest": 0}, {"thinnest": 0}, {"surest": 1.1}])
    def test_rules_that_cannot_be_are_refused(self, bad):
        with pytest.raises(dm.UsageError, match="expected"):
            DenialRule(**bad)


class TestQuality:
    def test_the_probability_of_labels_is_that_of_the_softmax(self):
        logits = 3 * torch.randn(1, 5, 7, 9, generator=torch.Generator().manual_seed(0))
        prediction = Prediction(logits, (28, 36))
        label = torch.randint(-2, 5, (28, 36), generator=torch.Generator().manual_seed(1))
        found = label_probability(prediction, label)
        expected = prediction.probabilities[0].gather(0, label.clamp(min=0)[None])[0]
        torch.testing.assert_close(found[label >= 0], expected[label >= 0], atol=1e-5, rtol=1e-4)
        assert (found[label < 0] == 1).all()

    def test_labels_of_a_class_that_the_network_lacks_are_refused(self):
        with pytest.raises(dm.UsageError, match="3 classes"):
            label_probability(Prediction(torch.zeros(1, 3, 4, 4), (4, 4)), torch.full((4, 4), 3))

    def test_the_soft_minimum_lies_between_minimum_and_mean(self):
        values = torch.tensor([0.9, 0.8, 0.1, 1.0])
        assert 0.1 < soft_min(values) < float(values.mean())
        assert soft_min(values, 1e6) == pytest.approx(float(values.mean()), abs=1e-6)
        assert soft_min(values, 1e-3) == pytest.approx(0.1, abs=1e-6)
        with pytest.raises(dm.UsageError):
            soft_min(torch.zeros(0))

    def test_the_soft_minimum_is_that_of_cleanlab(self):
        """Its own code is the oracle: 'softmin' of `cleanlab.segmentation.rank`."""
        rank = pytest.importorskip("cleanlab.segmentation.rank", reason="needs cleanlab")
        random = np.random.default_rng(0)
        logits = 2 * random.normal(size=(3, 4, 8, 10))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = random.integers(0, 4, (3, 8, 10))
        theirs, _ = rank.get_label_quality_scores(labels, p, verbose=False)
        for image in range(3):
            own = np.take_along_axis(p[image], labels[image][None], 0)[0]
            assert soft_min(torch.from_numpy(own)) == pytest.approx(theirs[image], rel=1e-6)

    def test_evidence_is_the_odds_times_the_surprise(self):
        doubt, own = torch.tensor([0.1, 0.5]), torch.tensor([0.05, 0.5])
        expected = [math.log(9) - math.log(0.05), -math.log(0.5)]
        torch.testing.assert_close(evidence(doubt, own), torch.tensor(expected))
        assert torch.isfinite(evidence(torch.zeros(1), torch.zeros(1))).all()


class Painted:
    """Images whose grey says their class; labels of some are wrong."""

    name, class_names, component_sizes = "painted", NAMES, None

    def __init__(self, labels, truth):
        self.labels, self.truth = labels, truth

    def __len__(self):
        return len(self.labels)

    def sample_name(self, index):
        return f"image_{index}"

    def __getitem__(self, index):
        image = (self.truth[index] * 60 + 30).to(torch.uint8)[None].expand(3, -1, -1)
        return Sample(self.sample_name(index), image, self.labels[index].to(torch.int16))


class Seer(torch.nn.Module):
    """Sees the class that the grey says, with logits of 4."""

    def forward(self, x):
        seen = ((x[:, 0] * 255 - 30) / 60).round().long()
        return 4.0 * torch.nn.functional.one_hot(seen, 3).permute(0, 3, 1, 2).float()


@pytest.fixture
def seer():
    return dm.load(Seer(), classes=NAMES, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def painted():
    """Three images; the second lacks a car, and in the third some sky is labelled road."""
    truth = [torch.zeros(32, 48, dtype=torch.long) for _ in range(3)]
    for one in truth:
        one[:8] = 2
        one[14:26, 10:30] = 1
    labels = [one.clone() for one in truth]
    labels[1][labels[1] == 1] = 0
    labels[2][:8, :10] = 0
    labels[0][-1] = VOID
    return Painted(labels, truth)


def test_wrong_labels_are_found_and_ranked(seer, painted):
    found = find_label_errors(seer, painted)
    said = {(part.image, part.predicted, part.labelled, part.area) for part in found.parts}
    assert said == {(1, 1, 0, 240), (2, 2, 0, 80)}
    p, q = np.exp([4, 0]) / (np.exp(4) + 2)
    for part in found.parts:
        assert part.score == pytest.approx(np.log(p / (1 - p) / q), rel=1e-3)
        assert part.mask.all()
    assert found.parts[0].iou + found.parts[1].iou < 1
    qualities = [image.quality for image in found.images]
    assert qualities[0] == max(qualities)
    assert [image.denied for image in found.images] == [0, 1, 1]
    assert found.images[1].denied_share == pytest.approx(240 / (32 * 48))


def test_only_the_likeliest_are_kept(seer, painted):
    found = find_label_errors(seer, painted, most=1)
    assert (len(found.parts), found.found) == (1, 2)
    assert not find_label_errors(seer, painted, rule=DenialRule(surest=1)).parts


def test_labels_without_classes_are_refused(seer, painted):
    painted.class_names = ()
    with pytest.raises(dm.UsageError, match="only tell known from unknown"):
        find_label_errors(seer, painted)


def test_a_network_that_was_trained_on_these_labels_says_so(seer, tmp_path):
    from doubtmap.datasets import fingerprints
    from doubtmap.engine.seen import notes_of_training
    from doubtmap.models.folders import images_trained_on

    streets = dm.open_dataset("synthetic:2")
    (tmp_path / "training").mkdir()
    marks = {f"image {k}": f"{mark} labels" for k, mark in enumerate(fingerprints(streets, [0]))}
    settings_of = json.dumps({"data": {"content": marks}})
    (tmp_path / "training" / "settings.json").write_text(settings_of)

    class Trained:
        description = {"source": str(tmp_path)}  # noqa: RUF012

    (said,) = notes_of_training(Trained(), streets)
    assert "trained on 1 of 2 images" in said
    assert images_trained_on(str(tmp_path / "elsewhere")) == []
    assert not [*notes_of_training(seer, streets)]
