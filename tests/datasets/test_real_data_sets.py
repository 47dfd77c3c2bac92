import numpy as np
import pytest
import torch

from doubtmap.datasets import KNOWN, UNKNOWN, VOID, match_labels, open_dataset, read_label

pytestmark = pytest.mark.real_data


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
