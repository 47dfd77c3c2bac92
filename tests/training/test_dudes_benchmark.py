"""The figures of `benchmarks/dudes.py` are those of SciPy and scikit-learn."""

import importlib
import sys

import numpy as np
import pytest
import torch

from doubtmap.datasets.dataset import UNKNOWN, VOID
from doubtmap.metrics.bootstrap import Weights


@pytest.fixture(scope="module")
def figures():
    """The benchmark as a module."""
    yield importlib.import_module("dudes")
    del sys.modules["dudes"]


@pytest.fixture(scope="module")
def images():
    """Fourteen images: two maps, the classes of the ensemble, the network's and the labels."""
    torch.manual_seed(0)
    made = []
    for level in range(14):
        theirs = (torch.randn(24, 30) - 3 + 0.1 * level).sigmoid()
        own = (theirs.logit() + torch.randn(24, 30)).sigmoid()
        chosen, predicted, label = torch.randint(0, 3, (3, 24, 30))
        label = torch.where(own < 0.1, predicted, label)
        label[:4], label[4:6] = UNKNOWN, VOID
        made.append((own, theirs, chosen, predicted, label))
    return made


def counted():
    """How often each of fourteen images counts in each replicate."""
    return [Weights(300)(image) for image in range(14)]


def followed(figures, images):
    follow = figures.Following(3)
    for (own, theirs, chosen, _, _), weights in zip(images, counted()):
        follow.update(own, theirs, chosen, weights)
    return follow


def test_a_map_follows_another_as_scipy_says(figures, images):
    stats = pytest.importorskip("scipy.stats")
    follow = followed(figures, images)
    x, y, group = (np.concatenate([image[k].flatten() for image in images]) for k in range(3))
    for only in (None, 1):
        at = slice(None) if only is None else group == only
        found, a, b = follow.figures(only), x[at].astype(np.float64), y[at].astype(np.float64)
        assert found["pearson"] == pytest.approx(np.corrcoef(a, b)[0, 1])
        assert found["rmse"] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)))
        assert found["spearman"] == pytest.approx(stats.spearmanr(a, b).statistic, abs=2e-3)
        assert (found["mean"], found["mean_of_ensemble"]) == pytest.approx((a.mean(), b.mean()))


def test_intervals_are_percentiles_made_by_hand_moved_to_the_figure(figures, images):
    stats = pytest.importorskip("scipy.stats")
    coarse = [[figures.binned(part) // figures.COARSER for part in image[:2]] for image in images]
    exact = [[part.flatten().double().numpy() for part in image[:2]] for image in images]

    def drawn(maps, counts):
        return (np.concatenate([np.tile(m[k], c) for m, c in zip(maps, counts)]) for k in (0, 1))

    by_hand = {"pearson": [], "spearman": [], "rmse": []}
    for counts in np.stack(counted(), 1).astype(int):
        (x, y), ranked = drawn(exact, counts), drawn(coarse, counts)
        by_hand["pearson"].append(np.corrcoef(x, y)[0, 1])
        by_hand["rmse"].append(np.sqrt(np.mean((x - y) ** 2)))
        by_hand["spearman"].append(stats.spearmanr(*ranked).statistic)
    follow = followed(figures, images)
    row = follow.figures()
    figures.with_intervals({"a": row}, {"a": follow.replicates()})
    for name, values in by_hand.items():
        low, middle, high = np.percentile(values, (2.5, 50, 97.5))
        around = [row[name] + low - middle, row[name] + high - middle]
        assert row[f"{name}_interval"] == pytest.approx(around, abs=1e-6)
        assert high - low > 1e-3


def test_intervals_of_one_image_are_a_point(figures, images):
    drawn = followed(figures, [images[0]] * 14).replicates()
    for name in ("pearson", "rmse"):
        assert np.ptp(drawn[name]) < 1e-9


def test_what_a_map_is_worth_is_what_scikit_learn_says(figures, images):
    metrics = pytest.importorskip("sklearn.metrics")
    worth = figures.Worth(3)
    for (own, _, _, predicted, label), weights in zip(images, counted()):
        worth.update(own, predicted, label, weights)
    own, predicted, label = (np.concatenate([i[k].flatten() for i in images]) for k in (0, 3, 4))
    row, drawn, known = worth.figures(("a", "b", "c")), worth.replicates(), label >= 0
    either = known | (label == UNKNOWN)
    for kind, truth, valid in (
        ("unknown", label == UNKNOWN, either),
        ("wrong", label != predicted, known),
    ):
        exact = metrics.average_precision_score(truth[valid], own[valid])
        assert row[f"{kind}.auprc"] == pytest.approx(exact, abs=1e-4)
        assert drawn[f"{kind}.auprc"].std() > 0
    exact = metrics.jaccard_score(label[known], predicted[known], average="macro")
    assert row["miou"] == pytest.approx(exact)


def test_differences_are_paired(figures):
    student, camvid9 = "student: entropy", "camvid9: entropy"
    rows = {student: {"miou": 0.5}, camvid9: {"miou": 0.4}}
    draws = np.linspace(0, 0.2, 100)
    figures.with_intervals(rows, {student: {"miou": draws + 0.1}, camvid9: {"miou": draws}})
    assert rows[student]["miou_minus_camvid9"] == pytest.approx(0.1)
    assert rows[student]["miou_minus_camvid9_interval"] == pytest.approx([0.1, 0.1])
    low, high = rows[camvid9]["miou_interval"]
    assert low < 0.35 and high > 0.45 and "miou_minus_camvid9" not in rows[camvid9]
