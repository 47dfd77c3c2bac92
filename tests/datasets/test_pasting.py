import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import box, photograph

from doubtmap.datasets import (
    KNOWN,
    UNKNOWN,
    VOID,
    Corrupted,
    CutOut,
    Dataset,
    Pasted,
    Placed,
    Sample,
    draw_cut_out,
    fingerprints,
    open_dataset,
    open_outlines,
    paste,
    pasted_passes,
)
from doubtmap.errors import DataError, UsageError

CLASSES = ("road", "sky", "car")


class Hosts:
    """Images of random pixels and labels, each of its own size."""

    class_names = CLASSES
    component_sizes = None
    name = "hosts"

    def __init__(self, names, sizes=((24, 40),)):
        self.names, self.sizes = names, sizes

    def __len__(self):
        return len(self.names)

    def sample_name(self, index):
        return self.names[index]

    def __getitem__(self, index):
        name = self.names[index]
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        size = self.sizes[index % len(self.sizes)]
        image = torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)
        label = torch.randint(KNOWN, 3, size, generator=generator, dtype=torch.int16)
        return Sample(name, image, label)


@pytest.fixture
def objects(tmp_path):
    """A dog of 9 x 8, a cat of 5 x 6, a bird of 2 x 2 and a cow of 30 x 50."""
    lines = [(16, box(3, 4, 9, 8)), (15, box(20, 10, 5, 6)), (14, box(0, 0, 2, 2))]
    photograph(tmp_path, "a", lines)
    photograph(tmp_path, "b", [(19, box(0, 0, 50, 30))], size=(40, 60))
    return tmp_path


@pytest.fixture
def outlines(objects):
    return open_outlines(str(objects))


def same(a, b):
    return a.name == b.name and a.image.equal(b.image) and a.label.equal(b.label)


NAMES = [f"frame{index}" for index in range(12)]


def test_a_data_set_of_the_same_images_with_unknown_objects(outlines):
    hosts = Hosts(NAMES)
    pasted = Pasted(hosts, outlines, seed=3)
    assert isinstance(pasted, Dataset)
    assert len(pasted) == 12
    assert pasted.name == f"hosts+{outlines.name}@3"
    assert pasted.class_names == CLASSES
    assert pasted.sample_name(2) == pasted[2].name == "frame2"
    assert (pasted[0].image.dtype, pasted[0].label.dtype) == (torch.uint8, torch.int16)


@pytest.mark.parametrize("seed", range(3))
def test_the_objects_pixels_are_exactly_its_own_and_all_others_untouched(outlines, seed):
    hosts = Hosts(NAMES, ((24, 40), (60, 80)))
    pasted = Pasted(hosts, outlines, seed)
    for index in range(12):
        host, found = hosts[index], pasted[index]
        height, width = host.label.shape
        placed = pasted.placed(host.name, (height, width))
        mask = torch.zeros(height, width, dtype=torch.bool)
        rows, columns = placed.cut_out.mask.shape
        window = (slice(placed.top, placed.top + rows), slice(placed.left, placed.left + columns))
        mask[window] = placed.cut_out.mask
        assert mask.sum() >= 0.007 * height * width
        assert (found.label[mask] == UNKNOWN).all()
        assert found.label[~mask].equal(host.label[~mask])
        assert found.image[:, ~mask].equal(host.image[:, ~mask])
        inside = placed.cut_out.image[:, placed.cut_out.mask]
        assert found.image[:, mask].equal(inside)


def test_image_and_seed_settle_the_draw_whatever_the_order(outlines):
    pasted = Pasted(Hosts(NAMES), outlines, seed=1)
    forwards = [pasted[index] for index in range(12)]
    backwards = [pasted[index] for index in reversed(range(12))][::-1]
    assert all(map(same, forwards, backwards))
    part = Pasted(Hosts(NAMES[5:7]), outlines, seed=1)
    assert same(part[0], forwards[5]) and same(part[1], forwards[6])
    travelled = pickle.loads(pickle.dumps(Pasted(dataset_of(2), outlines, seed=1)))
    assert same(travelled[1], Pasted(dataset_of(2), outlines, seed=1)[1])


def dataset_of(count):
    return open_dataset(f"synthetic:{count}")


def test_another_seed_is_another_pass(outlines):
    a, b = (Pasted(Hosts(NAMES), outlines, seed) for seed in (0, 1))
    assert not all(same(a[index], b[index]) for index in range(12))
    places = {(p.cut_out.name, p.top, p.left) for p in (a.placed(n, (24, 40)) for n in NAMES)}
    assert len(places) > 8


def test_every_suitable_object_and_every_place_is_equally_likely(outlines):
    """In 10 x 12 the cow does not fit and the bird with 4 of 120 pixels is too small at 5 %."""
    random = np.random.default_rng(0)
    drawn = [draw_cut_out(outlines, (10, 12), random, 0.05) for _ in range(600)]
    by_class = {name: [p for p in drawn if p.cut_out.class_name == name] for name in ("dog", "cat")}
    assert len(by_class["dog"]) + len(by_class["cat"]) == 600
    assert abs(len(by_class["dog"]) - 300) < 5 * np.sqrt(150)
    for name, places in (("dog", (3, 4)), ("cat", (5, 8))):
        counts = np.zeros(places)
        for placed in by_class[name]:
            counts[placed.top, placed.left] += 1
        expected = counts.sum() / counts.size
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - counts.size) < 5 * np.sqrt(2 * counts.size)


@pytest.mark.parametrize(("pixels", "fits"), [(572, False), (571, True), (300, True)])
def test_seven_thousandths_of_the_image_are_enough(outlines, pixels, fits):
    """The bird's 4 pixels are 0.7 % of 571.4."""
    bird = outlines.only(["bird"])
    random = np.random.default_rng(0)
    if fits:
        assert draw_cut_out(bird, (1 * 2, pixels // 2), random).cut_out.class_name == "bird"
    else:
        with pytest.raises(DataError, match=r"covers at least 0\.70% of them, found none among 1"):
            draw_cut_out(bird, (2, pixels // 2), random)


def test_objects_larger_than_the_image_are_drawn_again_or_refused(outlines):
    random = np.random.default_rng(0)
    drawn = {draw_cut_out(outlines, (29, 50), random, 0).cut_out.class_name for _ in range(60)}
    assert drawn == {"dog", "cat", "bird"}
    drawn = {draw_cut_out(outlines, (30, 50), random, 0).cut_out.class_name for _ in range(60)}
    assert drawn == {"dog", "cat", "bird", "cow"}
    whole = draw_cut_out(outlines.only(["cow"]), (30, 50), random)
    assert (whole.top, whole.left) == (0, 0)
    with pytest.raises(DataError, match=r"fits into 49 x 30 pixels .* found none among 1"):
        Pasted(Hosts(["a"], ((30, 49),)), outlines.only(["cow"]))[0]


def test_void_stays_void_unless_it_shall_count(outlines):
    hosts = Hosts(NAMES)
    ours, published = Pasted(hosts, outlines), Pasted(hosts, outlines, void_known=True)
    label = hosts[0].label
    assert (label == VOID).any()
    assert (ours[0].label == VOID).any()
    changed = torch.where(ours[0].label == VOID, KNOWN, ours[0].label)
    assert published[0].label.equal(changed)
    assert published[0].label.dtype == torch.int16


def test_pixels_of_a_float_image_are_scaled(outlines):
    hosts = Hosts(NAMES)
    sample = hosts[0]
    placed = Pasted(hosts, outlines).placed("frame0", (24, 40))
    whole, _ = paste(sample.image, sample.label, placed)
    image, label = paste(sample.image.double() / 255, sample.label.long(), placed, meaning=7)
    assert image.dtype == torch.float64 and label.dtype == torch.int64
    assert torch.allclose(image * 255, whole.double())
    assert (label == 7).sum() == placed.cut_out.mask.sum()
    assert same(sample, hosts[0])


@settings(max_examples=40, deadline=None)
@given(st.integers(-3, 8), st.integers(-3, 8))
def test_a_box_beyond_the_image_is_refused(top, left):
    thing = CutOut("", "dog", torch.zeros(3, 4, 3, dtype=torch.uint8), torch.ones(4, 3).bool())
    image, label = torch.full((3, 6, 7), 9, dtype=torch.uint8), torch.zeros(6, 7)
    if 0 <= top <= 2 and 0 <= left <= 4:
        assert (paste(image, label, Placed(thing, top, left))[0] == 0).sum() == 36
    else:
        with pytest.raises(UsageError, match="expected the box 4 x 3"):
            paste(image, label, Placed(thing, top, left))


def test_it_is_the_same_picture_to_those_who_ask_what_was_fitted_on(outlines):
    hosts = Hosts(NAMES)
    pasted = Pasted(hosts, outlines)
    assert fingerprints(pasted) == fingerprints(hosts)
    assert fingerprints(Corrupted(pasted, "fog", 1)) == fingerprints(hosts)
    assert not Corrupted(pasted, "fog", 1)[0].image.equal(pasted[0].image)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"smallest": 1.5}, r"in \[0, 1\]"), ({"smallest": -0.1}, "smallest"), ({"seed": -1}, "seed")],
)
def test_what_cannot_be(outlines, options, message):
    with pytest.raises(UsageError, match=message):
        Pasted(Hosts(NAMES), outlines, **options)


def test_passes_leave_out_what_the_network_knows(objects):
    photograph(objects, "c", [(2, box(0, 0, 9, 9))])
    hosts = Hosts(NAMES)
    passes, notes = pasted_passes(hosts, str(objects), CLASSES, seed=4, passes=3)
    assert [each.seed for each in passes] == [4, 5, 6]
    assert len(passes[0].outlines) == 4
    assert notes == [
        f"{objects.name}: 1 of 5 objects were left out, since the network knows their classes: car."
    ]
    (only,), notes = pasted_passes(hosts, str(objects), CLASSES, only=["car", "dog"])
    assert only.outlines.class_names == ("car", "dog")
    assert len(notes) == 1 and "(car) are pasted as unknown because you asked" in notes[0]
    assert pasted_passes(hosts, str(objects), ("road", "sky"))[1] == []
    with pytest.raises(UsageError, match="at least 1 pass"):
        pasted_passes(hosts, str(objects), CLASSES, passes=0)


def test_a_part_has_the_fields_and_fingerprints_of_its_images():
    from doubtmap.datasets import Corrupted, fingerprints, open_dataset
    from doubtmap.datasets.pasting import Part, image_fields

    whole = open_dataset("synthetic:4")
    part = Part(Corrupted(whole, "fog", 1), [3, 1], "some")
    marks = fingerprints(whole)
    assert fingerprints(part) == (marks[3], marks[1])
    assert fingerprints(part, [1]) == (marks[1],)
    assert image_fields(part) == ()
    part.dataset.dataset.fields = [{"town": name} for name in "abcd"]
    assert image_fields(part) == [{"town": "d"}, {"town": "b"}]
