import numpy as np
import pytest
import torch

from doubtmap.datasets import (
    KNOWN,
    UNKNOWN,
    VOID,
    Pasted,
    match_labels,
    open_dataset,
    open_outlines,
    read_image,
    read_label,
)

pytestmark = pytest.mark.real_data
SPLITS = ("train", "val", "test")


def test_camvid(shared):
    dataset = open_dataset(f"camvid:{shared}/camvid:test")
    assert len(dataset) == 233
    assert len(open_dataset(f"camvid:{shared}/camvid:train")) == 367
    assert len(open_dataset(f"camvid:{shared}/camvid:val")) == 101
    lacking = ("pedestrian", "bicyclist")
    model = [name for name in dataset.class_names if name not in lacking]
    matching = match_labels(dataset.class_names, model, ("rest",), channels=9)
    counts = torch.zeros(12, dtype=torch.int64)
    for _, path in dataset.files:
        label = torch.from_numpy(dataset.layout.values.translate(read_label(path), path))
        counts += torch.bincount(matching.apply(label).flatten().int() - KNOWN, minlength=12)
    assert counts[UNKNOWN - KNOWN] == 331_452
    assert counts[0] == 0
    assert counts.sum() == 233 * 480 * 360
    assert (counts[3:] > 0).all()
    sample = dataset[0]
    assert sample.image.shape[1:] == sample.label.shape == (360, 480)


@pytest.mark.parametrize(
    ("text", "count"), [("smiyc:{}/roadanomaly21", 10), ("fishyscapes:{}/fishyscapes_static", 30)]
)
def test_anomaly_sets(shared, text, count):
    dataset = open_dataset(text.format(shared))
    assert len(dataset) == count
    assert dataset.class_names == ()
    assert dataset.component_sizes.predicted == 500
    sample = dataset[0]
    assert set(np.unique(sample.label)) <= {KNOWN, UNKNOWN, VOID}
    assert (sample.label == UNKNOWN).any() or "fishyscapes" in text


def test_aerial_photographs_are_split_by_tile(shared):
    counts = {split: len(open_dataset(f"dubai:{shared}/dubai_aerial:{split}")) for split in SPLITS}
    assert counts == {"train": 45, "val": 9, "test": 18}
    for split in ("val", "test"):
        dataset = open_dataset(f"dubai:{shared}/dubai_aerial:{split}")
        found = set()
        for _, path in dataset.files:
            found |= set(np.unique(dataset.layout.values.translate(read_label(path), path)))
        assert found - {VOID} == {0, 1, 2, 3, 4}


def test_objects_of_coco(shared):
    outlines = open_outlines(f"{shared}/coco128")
    assert len(outlines) == 929
    assert len(outlines.only(["person"])) == 254
    halves = [open_outlines(f"{shared}/coco128:{half}") for half in ("train", "test")]
    assert sum(map(len, halves)) == 929
    images = [{outline.image for outline in half.outlines} for half in halves]
    assert not images[0] & images[1]
    assert len(images[0] | images[1]) == 126
    for index in range(0, 929, 40):
        outline, cut_out = outlines.outlines[index], outlines[index]
        mask, top, left = outline.mask()
        height, width = mask.shape
        whole = read_image(outline.image)
        assert cut_out.image.equal(whole[:, top : top + height, left : left + width])
        assert cut_out.mask[0].any() and cut_out.mask[:, -1].any()


def test_objects_of_coco_in_camvid(shared):
    dataset = open_dataset(f"camvid:{shared}/camvid:test")
    outlines, note = open_outlines(f"{shared}/coco128:test").foreign_to(dataset.class_names[:9])
    assert "car, bus, truck, traffic light, stop sign, potted plant" in note
    pasted = Pasted(dataset, outlines, seed=5)
    for index in range(0, 233, 29):
        host, found = dataset[index], pasted[index]
        mask = found.label == UNKNOWN
        assert 0.007 * mask.numel() <= mask.sum() < mask.numel() / 2
        assert found.label[~mask].equal(host.label[~mask])
        assert found.image[:, ~mask].equal(host.image[:, ~mask])
        assert (found.image[:, mask] != host.image[:, mask]).float().mean() > 0.9
