"""A watch from its reference to its verdict: what is expected, ranked and said of images."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from lit_scenes import Scenes, replace_copy

from doubtmap.datasets.pasting import Part
from doubtmap.engine.run import Skipped
from doubtmap.errors import DataError, UsageError
from doubtmap.kernels.steps import steps
from doubtmap.prediction import Prediction
from doubtmap.scores.softmax import entropy, max_softmax
from doubtmap.watching import Watch
from doubtmap.watching.judging import ranks
from doubtmap.watching.looking import (
    BINS,
    SHIFT,
    Glance,
    expected_miou,
    expected_table,
    expected_wrong,
)
from doubtmap.watching.promise import open_promise


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


def test_workers_are_sent_what_they_need(segmenter, promise):
    opened, scenes = open_promise(segmenter, promise), Scenes(1, 0)
    glance = Glance(opened.name, opened.score, opened.wrong, None)
    sent = pickle.loads(pickle.dumps(glance))
    here, there = (each(segmenter, 0, ("mark", scenes[0])) for each in (glance, sent))
    assert (here.mark, here.doubt) == (there.mark, there.doubt)
    assert np.array_equal(here.table, there.table)


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


def test_an_image_that_comes_twice_counts_once(begun):
    twice = Part(Scenes(3, 2), [0, 1, 0, 2, 1], "twice")
    assert (begun.update(twice).images, begun.again) == (3, 2)
