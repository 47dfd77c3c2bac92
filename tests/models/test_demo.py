"""The demo network: its weights load, it knows the streets, and it doubts what it does not know."""

import pytest
import torch

from doubtmap.datasets.dataset import UNKNOWN
from doubtmap.models.demo import (
    DEMO_CLASSES,
    DEMO_MEAN,
    DEMO_STD,
    DEMO_WEIGHTS,
    build_demo_network,
    demo_network,
)
from doubtmap.streets.synthetic import SyntheticStreets

MIOU_FLOOR = 0.6
SCENES = 8


def logits(network, image):
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (DEMO_MEAN, DEMO_STD))
    with torch.no_grad():
        return network(((image.float() / 255 - mean) / std)[None])[0]


@pytest.fixture(scope="module")
def judged():
    """Labels and logits of scenes that training never saw, pixel by pixel."""
    network, streets = demo_network(), SyntheticStreets(SCENES)
    samples = [streets[i] for i in range(SCENES)]
    outputs = [logits(network, sample.image).flatten(1) for sample in samples]
    labels = [sample.label.flatten().long() for sample in samples]
    return torch.cat(labels), torch.cat(outputs, dim=1)


def test_names_the_classes_of_the_streets():
    assert SyntheticStreets(1).class_names == DEMO_CLASSES


def test_the_weights_are_small():
    assert DEMO_WEIGHTS.stat().st_size <= 2_000_000


def test_is_ready_to_use():
    assert not demo_network().training
    assert build_demo_network().training


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (101, 64)])
def test_runs_at_odd_sizes(size):
    out = logits(demo_network(), torch.zeros(3, *size, dtype=torch.uint8))
    assert out.shape == (len(DEMO_CLASSES), *size)
    assert out.isfinite().all()


def test_knows_the_streets(judged):
    label, output = judged
    known, predicted = label >= 0, output.argmax(0)
    ious = []
    for number in range(len(DEMO_CLASSES)):
        labelled, named = (label == number) & known, (predicted == number) & known
        ious.append(float((labelled & named).sum() / (labelled | named).sum()))
    assert MIOU_FLOOR < sum(ious) / len(ious) < 0.98


def test_doubts_unknown_things(judged):
    label, output = judged
    log_probs = output.log_softmax(0)
    entropy = -(log_probs.exp() * log_probs).sum(0)
    assert entropy[label == UNKNOWN].mean() > entropy[label >= 0].mean()
