"""Our metrics in loops of torchmetrics: the figures of one process, of several too."""

import pickle

import numpy as np
import pytest
import torch

from doubtmap.metrics import Confusion, Ranking, Reliability

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
from doubtmap.metrics.torchmetric import Merged  # noqa: E402


def batches(count, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(count):
        size = int(random.integers(5, 400))
        score = random.normal(size=size).astype(np.float32)
        yield torch.from_numpy(score), torch.from_numpy(random.random(size) < 0.3)


def test_its_figure_is_the_accumulators_and_of_a_batch_alone_in_forward():
    metric, whole = Merged(Ranking, "auroc"), Ranking()
    for scores, wrong in batches(3):
        alone = Ranking()
        alone.update(scores, wrong)
        whole.update(scores, wrong)
        assert float(metric(scores, wrong)) == float(alone.auroc())
    assert float(metric.compute()) == float(whole.auroc())
    metric.reset()
    scores, wrong = next(batches(1, seed=5))
    metric.update(scores, wrong)
    assert float(metric.compute()) == float(alone_of(scores, wrong).auroc())


def alone_of(scores, wrong):
    found = Ranking()
    found.update(scores, wrong)
    return found


def test_two_processes_have_the_figure_of_one_to_the_last_bit():
    """A rank whose `gather` gives what the other has sent, of another length."""
    ranks = [Merged(Ranking, "average_precision") for _ in range(2)]
    whole = Ranking()
    for number, (scores, wrong) in enumerate(batches(7, seed=1)):
        ranks[number % 3 == 0].update(scores, wrong)
        whole.update(scores, wrong)
    other = torch.frombuffer(bytearray(pickle.dumps(ranks[1]._sums)), dtype=torch.uint8)
    first = Merged(
        Ranking,
        "average_precision",
        dist_sync_fn=lambda x, group: [x, other],
        distributed_available_fn=lambda: True,
    )
    first._sums = ranks[0]._sums
    first._update_count = 1
    assert float(first.compute()) == float(whole.average_precision())
    assert first.sent == [] and not first._is_synced  # and goes on alone
    first.update(*next(batches(1)))


def test_it_is_a_metric_among_others():
    classes, labels = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])
    confusion = Merged(lambda: Confusion.empty(3), "accuracy")
    theirs = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
    both = torchmetrics.MetricCollection({"ours": confusion, "theirs": theirs})
    for metric, given in ((both["ours"], (classes, labels)), (both["theirs"], (classes, labels))):
        metric.update(*given)
    assert both["ours"].compute() == pytest.approx(float(both["theirs"].compute()))
    reliability = Merged(lambda: Reliability(3), lambda sums: sums.ece())
    assert reliability.higher_is_better is None
