"""The main job on real images, where they are at hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from stages import read

import doubtmap as dm
from doubtmap.datasets import UNKNOWN, VOID

EXACT = {
    "max_softmax": (0.0468, 0.3738, 0.8707, 0.5001, 0.4355, 0.8607),
    "entropy": (0.0577, 0.3500, 0.8941, 0.4824, 0.4394, 0.8536),
    "max_logit": (0.0381, 0.3899, 0.8669, 0.4301, 0.6261, 0.8017),
    "energy": (0.0288, 0.3970, 0.8451, 0.3676, 0.6818, 0.7713),
    "margin": (0.0323, 0.3863, 0.8496, 0.4789, 0.4357, 0.8587),
    "divergence": (0.0574, 0.2861, 0.9043, 0.4184, 0.5783, 0.8025),
    "gradient(p=0.5,label=predicted,variant=exact)": (
        *(0.0284, 0.4208, 0.8357, 0.4458, 0.4731, 0.8377),
    ),
    "gradient(p=2,label=uniform,variant=exact)": (
        *(0.0489, 0.4738, 0.8622, 0.4126, 0.8238, 0.7766),
    ),
}
"""All 233 CamVid test images, computed by others from all pixels at once: AUPRC, FPR95, AUROC of
unknown pixels, then of wrong ones."""


class Some:
    """A few samples of a data set."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, indices
        self.name, self.class_names = dataset.name, dataset.class_names
        self.component_sizes = dataset.component_sizes

    def __len__(self):
        return len(self.indices)

    def sample_name(self, index):
        return self.dataset.sample_name(self.indices[index])

    def __getitem__(self, index):
        return self.dataset[self.indices[index]]


@pytest.mark.real_data
def test_camvid_figures_are_those_of_scikit_learn(shared):
    segmenter = dm.load(shared / "models" / "camvid9")
    dataset = Some(dm.open_dataset(f"camvid:{shared / 'data' / 'camvid'}:test"), [0, 60, 200])
    results = dm.evaluate(
        segmenter, dataset, "entropy", unknown=["pedestrian", "bicyclist"], replicates=20
    )
    found = results.figures["scores"]["entropy"]["unknown"]
    names = dataset.class_names
    unknown_ids = [names.index(name) for name in ("pedestrian", "bicyclist")]
    doubts, labels = [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        doubts.append(dm.scores.entropy(segmenter(sample.image[None]))[0].numpy().ravel())
        label = sample.label.numpy().ravel()
        labels.append(np.where(np.isin(label, unknown_ids), UNKNOWN, label))
    doubt, label = np.concatenate(doubts), np.concatenate(labels)
    keep = label != VOID
    exact = average_precision_score(label[keep] == UNKNOWN, doubt[keep])
    assert found["auprc_bounds"][0] <= exact <= found["auprc_bounds"][1]
    exact = roc_auc_score(label[keep] == UNKNOWN, doubt[keep])
    assert found["auroc_bounds"][0] <= exact <= found["auroc_bounds"][1]


@pytest.mark.parametrize("score", EXACT)
def test_the_benchmark_agrees_with_the_reference_figures(score):
    rows = read("main_job")["rows"]
    (row,) = [row for row in rows if (row["set"], row["name"]) == ("camvid", score)]
    found = [
        row[f"{kind}.{key}"] for kind in ("unknown", "wrong") for key in ("auprc", "fpr95", "auroc")
    ]
    assert found == pytest.approx(EXACT[score], abs=1.5e-4)


def test_the_benchmark_bounds_are_at_most_a_ten_thousandth_wide():
    conditions = read("main_job")["conditions"]
    assert all(found["widest_bounds"] <= 1e-4 for found in conditions.values())


OF_FIVE = {
    "entropy": (0.0555, 0.3524, 0.8842, 0.4770, 0.4451, 0.8401),
    "mutual_information": (0.0137, 0.5854, 0.7049, 0.3514, 0.5433, 0.7784),
    "member_entropy": (0.0627, 0.3432, 0.8924, 0.4776, 0.4493, 0.8392),
    "member_spread": (0.0114, 0.6226, 0.6544, 0.3298, 0.5352, 0.7655),
}
"""Exact figures of the ensemble of five, from the models' README: all pixels sorted at once."""


@pytest.mark.parametrize("score", OF_FIVE)
def test_the_ensemble_agrees_with_the_reference_figures(score):
    rows = read("ddu")["rows"]
    (row,) = [row for row in rows if row["name"] == f"ensemble of 5: {score}"]
    found = [
        row[f"{kind}.{key}"] for kind in ("unknown", "wrong") for key in ("auprc", "fpr95", "auroc")
    ]
    assert found == pytest.approx(OF_FIVE[score], abs=1.5e-4)
