"""Several images through the network at once: each has the prediction that it has alone."""

import pickle
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import doubtmap as dm
from doubtmap.calibration import Calibrated, fit_calibrator
from doubtmap.datasets.dataset import Sample
from doubtmap.engine import Pairs
from doubtmap.engine.batches import in_batches, singles
from doubtmap.engine.places import Place
from doubtmap.engine.pool import WINDOW, by_workers, window_of
from doubtmap.engine.spread import Spread
from doubtmap.evaluation.asking import Options
from doubtmap.streets.synthetic import SyntheticStreets


class Watched:
    """A network that counts how many images it is given, each call."""

    def __init__(self, segmenter, refuse=None):
        self.segmenter, self.calls, self.refuse = segmenter, [], refuse
        self.class_names, self.description = segmenter.class_names, segmenter.description

    def __call__(self, images):
        self.calls.append(len(images))
        if self.refuse:
            self.refuse(images)
        return self.segmenter(images)


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


@pytest.fixture(autouse=True)
def _one_thread():
    """With one, PyTorch's convolutions say the same to the last bit whatever goes beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_evaluation_in_batches_is_that_of_single_images(segmenter):
    dataset = Sizes([64, 64, 64, 64, 48, 64, 64, 32, 32, 32])
    single = evaluated(segmenter, dataset)
    watched = Watched(segmenter)
    assert evaluated(watched, dataset, 3) == single
    # the first is seen alone by `all` and once more to be compared; then runs of one size
    assert [n for n in watched.calls if n > 1] == [3, 2, 3]


@given(
    heights=st.lists(st.sampled_from([16, 24]), max_size=12),
    most=st.integers(1, 5),
)
def test_batches_are_of_one_size_in_order_and_no_larger_than_asked(heights, most):
    images = [torch.full((3, height, 8), 1.0 * k) for k, height in enumerate(heights)]
    seen = []

    class Network:
        class_names, description = (), {}

        def __call__(self, images):
            seen.append(len(images))
            logits = images[:, :2, ::4, ::4] * torch.tensor([1.0, -1.0])[:, None, None]
            return dm.Prediction(logits, tuple(images.shape[-2:]))

    for k, (network, image) in enumerate(in_batches(Network(), iter(images), most, lambda x: x)):
        assert image is images[k]
        assert network(image[None]).native_logits.unique().tolist() == sorted({-1.0 * k, 1.0 * k})
    assert max(seen, default=1) <= most
    runs, at = [], 0
    while at < len(heights):
        length = 1
        while at + length < len(heights) and heights[at + length] == heights[at]:
            length += 1
        runs += [min(most, length - k) for k in range(0, length, most)]
        at += length
    compared = [1] if max(runs, default=1) > 1 else []
    assert Counter(seen) == Counter(runs + compared)


def test_one_that_cannot_be_used_is_named_and_the_others_of_its_batch_count(segmenter):
    dataset = Sizes([64] * 6)
    bad = dataset[4].image

    def refuse(images):
        if any(torch.equal(image, bad) for image in images):
            raise dm.DataError("Prediction: expected finite logits, got NaN or infinity.")

    network = Watched(segmenter, refuse)
    with pytest.raises(dm.DataError, match=f"^{dataset.sample_name(4)}: Prediction: expected fin"):
        evaluated(network, dataset, 3)
    single, batched = (evaluated(network, dataset, batch, skip_bad=True) for batch in (1, 3))
    assert batched == single and len(batched["images"]) == 5
    dataset.heights[1] = 0
    single, batched = (evaluated(network, dataset, batch, skip_bad=True) for batch in (1, 3))
    assert batched == single and len(batched["images"]) == 4


class Mixing(nn.Module):
    """Its images act on each other, as by statistics of the batch."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.classifier(x - x.mean((0, 2, 3), keepdim=True))


def test_what_cannot_go_in_batches_is_a_sentence(segmenter):
    dataset = Sizes([64] * 4)
    names = list(dataset.class_names)[:4]
    mixing = dm.load(Mixing(), classes=names)
    with pytest.raises(dm.ModelError, match=r"alone and beside others, but .* Leave --batch out"):
        evaluated(mixing, dataset, 2)

    def one(images):
        if len(images) > 1:
            raise dm.ModelError("expected one image, got several.")

    with pytest.raises(dm.ModelError, match="with 2 it says: expected one image, got several. Lea"):
        evaluated(Watched(segmenter, one), dataset, 2)

    def full(images):
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(dm.UsageError, match=r"with 4 images of 96 x 64 .* such as --batch 2"):
        evaluated(Watched(segmenter, full), dataset, 4, skip_bad=True)
    with pytest.raises(dm.UsageError, match="expected 1 image or more at once, got 0"):
        Place(batch=0)


def test_singles_are_the_predictions_of_images_alone(segmenter):
    images = torch.stack([SyntheticStreets(3, seed=2, size=(64, 96))[k].image for k in range(3)])
    listening = segmenter.listening([segmenter.description["classifier"]])
    for network in (listening, dm.load([segmenter, segmenter])):
        found = singles(network(images))
        assert len(found) == 3
        for k, one in enumerate(found):
            alone = network(images[k : k + 1])
            assert torch.equal(one.native_logits, alone.native_logits)
            assert torch.equal(one.classes, alone.classes)
            assert (one.features is None) == (alone.features is None)
            for name, values in alone.layers.items():
                assert torch.equal(one.layers[name], values)
            if alone.members:
                assert torch.equal(one.members.entropy, alone.members.entropy)
            again = pickle.loads(pickle.dumps(one))  # as workers send it: without the others
            assert torch.equal(again.native_logits, alone.native_logits)


def test_a_calibrated_networks_singles_keep_its_classes(segmenter):
    streets = SyntheticStreets(3, seed=2, size=(64, 96))
    calibrated = Calibrated(segmenter, fit_calibrator("vector", Pairs(segmenter, streets)))
    images = torch.stack([streets[k].image for k in range(3)])
    for k, one in enumerate(singles(calibrated(images))):
        alone = calibrated(images[k : k + 1])
        assert one.classes_of is not None and torch.equal(one.classes, alone.classes)
        assert torch.equal(one.native_logits, alone.native_logits)


def test_all_other_passes_take_batches_here_and_by_workers(segmenter):
    dataset = Sizes([64, 64, 64, 48, 64, 64, 64])
    watched = Watched(segmenter)
    single = [prediction.native_logits for prediction, _ in Pairs(segmenter, dataset)]
    for place in (Place(batch=3), OneWorker(workers=1, batch=3)):
        watched.calls.clear()
        pairs = Pairs(Spread(watched, place), dataset)
        for (prediction, _), logits in zip(pairs, single, strict=True):
            assert torch.equal(prediction.native_logits, logits)
        assert place.elsewhere or [n for n in watched.calls if n > 1] == [3, 3]


class OneWorker(Place):
    """A worker without a process."""

    def look(self, work, numbers, done, ordered=False):
        yield from pickle.loads(pickle.dumps(work)).open(0)(iter(numbers), done)


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_a_worker_is_given_no_more_than_it_must_have_to_fill_its_batches(segmenter, batch):
    """What it needs before it says that the first image of a batch is done."""
    dataset = Sizes([64] * 40)
    options = Options(place=Place(workers=1, batch=batch), examples=0)
    from doubtmap.evaluation.asking import asked_of
    from doubtmap.evaluation.first_look import FirstLook

    asked = asked_of(segmenter, dataset, "entropy", replicates=20, options=options)
    look = FirstLook(asked, lambda: segmenter, None, 0, None, 0)
    given, done, most = 0, [], 0

    def numbers():
        nonlocal given, most
        for number in range(40):
            given += 1
            most = max(most, given - len(done))
            yield number

    opened = pickle.loads(pickle.dumps(look.__getstate__()["asked"]))
    assert opened.options.place.batch == batch
    list(look.open(0)(numbers(), done.append))
    assert most <= window_of(batch)
    assert window_of(1) == WINDOW
