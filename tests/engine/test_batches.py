"""Several images through the network at once: each has the prediction that it has alone."""

import pickle
from collections import Counter
from functools import partial
from typing import ClassVar

import pytest
import torch
from echoing import Filling
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import doubtmap as dm
from doubtmap.calibration import Calibrated, Temperature
from doubtmap.datasets.dataset import Sample
from doubtmap.engine import Pairs
from doubtmap.engine.batches import in_batches, singles
from doubtmap.engine.places import Place
from doubtmap.engine.pool import AHEAD, WINDOW, by_workers, window_of
from doubtmap.engine.spread import Spread, looked_at
from doubtmap.evaluation.asking import Options, asked_of
from doubtmap.evaluation.first_look import FirstLook
from doubtmap.images import write_scores
from doubtmap.models import Ensemble
from doubtmap.scores.parsing import parse_scores
from doubtmap.streets.synthetic import SyntheticStreets


class Exact:
    """Its arithmetic is pixel by pixel, so the same to the last bit whatever goes beside.

    Args:
        refuse: told of the images first.
    """

    class_names = SyntheticStreets(1).class_names
    description: ClassVar[dict[str, object]] = {"name": "exact"}

    def __init__(self, refuse=None):
        self.calls, self.refuse = [], refuse

    def __call__(self, images):
        self.calls.append(len(images))
        if self.refuse:
            self.refuse(images)
        classes = torch.arange(len(self.class_names))[:, None, None]
        seen = images[:, :1, ::4, ::4].float() - 16 * classes
        return dm.Prediction(-seen.abs() / 8, tuple(images.shape[-2:]))


class Sizes:
    """Synthetic streets whose images are of these heights; those of 0 cannot be read."""

    name = "streets of sizes"
    component_sizes = None

    def __init__(self, heights):
        self.heights = heights
        self.streets = SyntheticStreets(len(heights), seed=2, size=(64, 96))
        self.class_names = self.streets.class_names

    def __len__(self):
        return len(self.heights)

    def sample_name(self, index):
        return self.streets.sample_name(index)

    def __getitem__(self, index):
        sample, height = self.streets[index], self.heights[index]
        if not height:
            raise dm.DataError(f"{sample.name}: damaged")
        return Sample(sample.name, sample.image[:, :height], sample.label[:height])


def evaluated(network, dataset, batch=1, **more):
    options = Options(place=Place(batch=batch), examples=0)
    figures = dm.evaluate(
        *(network, dataset, "entropy,energy"), replicates=20, options=options, **more
    ).figures
    return {name: value for name, value in figures.items() if name != "seconds"}


def test_an_evaluation_in_batches_is_that_of_single_images():
    dataset, network = Sizes([64, 64, 64, 64, 48, 64, 64, 32, 32, 32]), Exact()
    single = evaluated(Exact(), dataset)
    assert evaluated(network, dataset, 3) == single
    assert network.calls == [3, 1, 1, 1, 2, 3]  # the second looks at the first again, to compare


@given(
    heights=st.lists(st.sampled_from([16, 24]), max_size=12),
    most=st.integers(1, 5),
)
def test_batches_are_of_one_size_in_order_and_no_larger_than_asked(heights, most):
    images = [torch.full((3, height, 8), 1.0 * k) for k, height in enumerate(heights)]
    seen = []

    exact = Exact(lambda images: seen.append(len(images)))
    for k, (network, image) in enumerate(in_batches(exact, iter(images), most, lambda x: x)):
        assert image is images[k]
        assert network(image[None]).native_logits[0, 0].unique().tolist() == [-k / 8]
    runs, at = [], 0
    while at < len(heights):
        length = 1
        while at + length < len(heights) and heights[at + length] == heights[at]:
            length += 1
        runs += [min(most, length - k) for k in range(0, length, most)]
        at += length
    compared = [1] if max(runs, default=1) > 1 else []
    assert Counter(seen) == Counter(runs + compared)


def test_one_that_cannot_be_used_is_named_and_the_others_of_its_batch_count():
    dataset = Sizes([64] * 6)
    bad = dataset[4].image

    def refuse(images):
        if any(torch.equal(image, bad) for image in images):
            raise dm.DataError("Prediction: expected finite logits, got NaN or infinity.")

    network = Exact(refuse)
    with pytest.raises(dm.DataError, match=f"^{dataset.sample_name(4)}: Prediction: expected fin"):
        evaluated(network, dataset, 3)
    single, batched = (evaluated(network, dataset, batch, skip_bad=True) for batch in (1, 3))
    assert batched == single and len(batched["images"]) == 5
    dataset.heights[1] = 0
    single, batched = (evaluated(network, dataset, batch, skip_bad=True) for batch in (1, 3))
    assert batched == single and len(batched["images"]) == 4


class Exploding(nn.Module):
    """Its logits of dark images are infinite; it notes how many images it is given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.given, self.classifier = [], nn.Conv2d(3, 4, 1)

    def forward(self, x):
        self.given.append(len(x))
        dark = x.mean((1, 2, 3), keepdim=True) < 0.1
        return self.classifier(torch.where(dark, torch.inf, x))


def alone_and_beside(network, images, most):
    """Predictions of each image alone, and as a batch gives them; None where there is none."""

    def predicted(segmenter, image):
        try:
            return segmenter(image[None])
        except dm.DataError:
            return None

    alone = [predicted(network, image) for image in images]
    beside = in_batches(network, iter(images), most, lambda image: image)
    return alone, [predicted(segmenter, image) for segmenter, image in beside]


@pytest.mark.parametrize("bad", [0, 2, 3])
def test_one_that_cannot_be_used_goes_alone_and_the_others_of_its_batch_stay_together(bad):
    module, images = Exploding(), [0.5 + torch.rand(3, 16, 24) / 2 for _ in range(4)]
    network = dm.load(module, classes=list("abcd"), mean=(0, 0, 0), std=(1, 1, 1))
    network(images[1][None])
    images[bad] *= 0
    module.given.clear()
    alone, beside = alone_and_beside(network, images, 4)
    assert module.given[len(images) :] == [4, 3, 1, 1]  # one of three looks at the first again
    for k, (one, other) in enumerate(zip(alone, beside, strict=True)):
        assert (one is None) == (other is None) == (k == bad)
        assert one is None or torch.allclose(one.native_logits, other.native_logits)


@pytest.mark.parametrize("divisor", [None, 32])
def test_images_that_the_network_sees_in_one_size_go_together(divisor):
    """Each has the logits, the size and the place in it that it has alone."""
    module = Exploding()
    more = {"mean": (0, 0, 0), "std": (1, 1, 1), "input_size": (40, 56), "divisor": divisor}
    network = dm.load(module, classes=list("abcd"), **more)
    sizes = [(40, 56), (64, 96), (50, 41), (64, 96), (33, 77)]
    images = [0.5 + torch.rand(3, *size) / 2 for size in sizes]
    network(images[0][None])
    module.given.clear()
    alone, beside = alone_and_beside(network, images, 4)
    assert [given for given in module.given if given > 1] == [4]
    for one, other, size in zip(alone, beside, sizes, strict=True):
        assert one.size == other.size == size
        torch.testing.assert_close(one.native_logits, other.native_logits)
        torch.testing.assert_close(one.probabilities, other.probabilities)


class Mixing(nn.Module):
    """Its images act on each other, as by statistics of the batch."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.classifier(x - x.mean((0, 2, 3), keepdim=True))


def test_what_cannot_go_in_batches_is_a_sentence():
    dataset = Sizes([64] * 4)
    names = list(dataset.class_names)[:4]
    mixing = dm.load(Mixing(), classes=names)
    with pytest.raises(dm.ModelError, match=r"alone and beside others, but .* Leave --batch out"):
        evaluated(mixing, dataset, 2)

    def one(kind, images):
        if len(images) > 1:
            raise kind("expected one image, got several.")

    for kind in (dm.ModelError, ValueError, AssertionError):
        told = r"with 2 it says: expected one image, got several\. Lea"
        with pytest.raises(dm.ModelError, match=told):
            evaluated(Exact(partial(one, kind)), dataset, 2)

    def full(images):
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(dm.UsageError, match=r"with 4 images of 96 x 64 .* such as --batch 2"):
        evaluated(Exact(full), dataset, 4, skip_bad=True)
    with pytest.raises(dm.UsageError, match="expected 1 image or more at once, got 0"):
        Place(batch=0)


def test_singles_are_the_predictions_of_images_alone(segmenter):
    images = torch.stack([SyntheticStreets(3, seed=2, size=(64, 96))[k].image for k in range(3)])
    segmenter(images[:1])
    listening = segmenter.listening([segmenter.description["classifier"]])
    for network in (listening, Ensemble([segmenter, segmenter])):
        found = singles(network(images))
        assert len(found) == 3
        for k, one in enumerate(found):
            alone = network(images[k : k + 1])
            torch.testing.assert_close(one.native_logits, alone.native_logits)
            assert (one.features is None) == (alone.features is None)
            for name, values in alone.layers.items():
                torch.testing.assert_close(one.layers[name], values)
            if alone.members:
                torch.testing.assert_close(one.members.entropy, alone.members.entropy)
                torch.testing.assert_close(one.members.spread, alone.members.spread)


def test_a_calibrated_networks_singles_keep_its_classes():
    streets = SyntheticStreets(3, seed=2, size=(64, 96))
    calibrated = Calibrated(Exact(), Temperature(temperature=2.0), "c")
    images = torch.stack([streets[k].image for k in range(3)])
    for k, one in enumerate(singles(calibrated(images))):
        alone = calibrated(images[k : k + 1])
        assert one.classes_of is not None and torch.equal(one.classes, alone.classes)
        assert torch.equal(one.native_logits, alone.native_logits)


def test_all_other_passes_take_batches_here_and_by_workers():
    dataset = Sizes([64, 64, 64, 48, 64, 64, 64])
    network = Exact()
    single = [prediction.native_logits for prediction, _ in Pairs(network, dataset)]
    for place in (Place(batch=3), OneWorker(workers=1, batch=3)):
        network.calls.clear()
        pairs = Pairs(Spread(network, place), dataset)
        for (prediction, _), logits in zip(pairs, single, strict=True):
            assert torch.equal(prediction.native_logits, logits)
        assert place.elsewhere or network.calls == [3, 1, 1, 3]


class OneWorker(Place):
    """A worker without a process."""

    def look(self, work, numbers, done, ordered=False):
        yield from pickle.loads(pickle.dumps(work)).open(0)(iter(numbers), done)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_worker_is_given_what_it_must_have_to_fill_its_batches(batch):
    """It asks for so many before it says that the first is done; with fewer it would wait."""
    dataset, place = Sizes([16] * 24), Place(workers=1, batch=batch)
    options = Options(place=place, examples=0)
    asked = asked_of(Exact(), dataset, "entropy", replicates=1, options=options)
    look = pickle.loads(pickle.dumps(FirstLook(asked, Exact, None, 0, None, 0))).open(0)
    asked_for, done, most = 0, [], 0

    def numbers():
        nonlocal asked_for, most
        for asked_for in range(1, 25):
            most = max(most, asked_for - len(done))
            yield asked_for - 1

    list(look(numbers(), done.append))
    assert batch + AHEAD <= most <= window_of(batch)
    assert len(done) == 24 and window_of(1) == WINDOW


def test_workers_fill_their_batches_and_end_though_none_may_be_far_ahead():
    found = by_workers(Filling(5), range(63), 2, 0, 1, lambda n: None, True, window_of(5))
    assert sorted(number for covered, _ in found for number in covered) == [*range(63)]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("--batch 2 --tile 64", "--batch: expected images that the network sees whole, but they"),
        ("--batch 0", "--batch: expected 1 image or more at once, got 0"),
        ("--batch 2 --dropout-passes 2 --dropout-rate 0.5", "alone and beside others"),
    ],
)
def test_commands_refuse_batches_that_make_no_sense(run, tmp_path, more, told):
    asked = f"evaluate demo synthetic:3 --scores entropy --replicates 20 --out {tmp_path} {more}"
    code, _, err = run(*asked.split())
    assert code in (1, 2) and told in " ".join(err.split())


def test_maps_scored_in_batches_are_those_of_single_images(tmp_path):
    for index, sample in enumerate(SyntheticStreets(5, size=(64, 96))):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    paths, scores = sorted(tmp_path.glob("*.png")), parse_scores("entropy,energy")
    for batch in (1, 2):
        network = Spread(Exact(), Place(batch=batch))
        write_scores(network, paths, scores, tmp_path / str(batch))
    one, other = (sorted((tmp_path / str(batch)).rglob("*.png")) for batch in (1, 2))
    assert len(one) >= 15
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_parts_of_an_image_and_images_turned_are_not_taken_for_it():
    image = torch.arange(3 * 16 * 16, dtype=torch.uint8).reshape(3, 16, 16)
    for network, each in in_batches(Exact(), iter([image, image + 1]), 2, lambda image: image):
        for part in (each[:, :8], each[:, :, :8], each.transpose(1, 2), each):
            alone, found = Exact()(part[None]), network(part[None])
            assert torch.equal(found.native_logits, alone.native_logits)
        several = torch.stack([each, each + 3])
        assert torch.equal(network(several).native_logits, Exact()(several).native_logits)


def test_a_pass_over_images_with_their_fingerprints_takes_batches_and_needs_no_image():
    dataset, network = Sizes([64] * 6), Exact()

    def read(index):
        return str(index), None if index == 3 else dataset[index]

    def look(segmenter, index, found):
        return found[1] and segmenter(found[1].image[None]).native_logits

    single = list(looked_at(Exact(), range(6), read, look))
    batched = list(looked_at(Spread(network, Place(batch=4)), range(6), read, look))
    assert network.calls == [3, 1, 2]  # the second looks at the first again, to compare
    for one, other in zip(single, batched, strict=True):
        assert one is other is None or torch.equal(one, other)
