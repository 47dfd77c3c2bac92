"""Made-up results for the tests of this room."""

from __future__ import annotations

from typing import Any

import numpy as np

from doubtmap.evaluation.results import Example, Results

CLASSES = ("sky", "road", "car")
SCORES = ("max_softmax", "entropy", "gradient(p=0.5,label=uniform)")


def figures() -> dict[str, Any]:
    return {
        "doubtmap": "0.1.0",
        "command": "doubtmap evaluate demo synthetic:3",
        "seed": 0,
        "model": {"source": "demo", "classes": 3},
        "data": {
            "name": "synthetic:3",
            "images": 3,
            "pixels": {"known": 900, "unknown": 100, "void": 10},
        },
        "segmentation": {
            "miou": 0.61,
            "miou_interval": [0.6, 0.62],
            "accuracy": 0.8,
            "iou": {"sky": 0.9, "road": 0.7, "car": None},
        },
        "calibration": {"ece": 0.03, "ece_per_image": 0.04, "mce": 0.2, "bins": 15},
        "scores": {
            name: {
                "unknown": {
                    "auprc": 0.4 + place / 10,
                    "auprc_bounds": [0.39 + place / 10, 0.41 + place / 10],
                    "auprc_interval": [0.3 + place / 10, 0.5 + place / 10],
                    "fpr95": 0.3 - place / 10,
                    "f1": None,
                },
                "wrong": {"auprc": 0.6 - place / 10, "auroc": 0.9, "aurc": 0.01}
                | ({"ece": 0.0321, "ece_interval": [0.031, 0.033]} if place < 2 else {})
                | ({"brier": 0.0571 + place / 100} if place < 2 else {}),
                "by_predicted_class": {
                    "mean": {"sky": 0.1 + place, "road": 0.25, "car": None},
                    "mean_of_classes": 0.175 + place / 2,
                }
                | ({"error": 0.0417, "against": "teachers: spread"} if place < 1 else {}),
            }
            for place, name in enumerate(SCORES)
        },
        "differences": [
            {
                "figure": "unknown.auprc",
                "scores": [SCORES[2], SCORES[1]],
                "difference": 0.1,
                "interval": [-0.01, 0.21],
            },
            {
                "figure": "unknown.fpr95",
                "scores": [SCORES[2], SCORES[1]],
                "difference": -0.1,
                "interval": [-0.2, -0.05],
            },
        ],
        "seconds": {"forward": 61.0, "total": 0.5},
        "notes": ["unknown.f1: no component is large enough", "segmentation.iou.car: no pixel"],
    }


def figures_by_class() -> dict[str, Any]:
    """Figures with two unknown classes, one of which has a name that tries to be HTML."""
    found = figures()
    found["data"]["unknown_classes"] = {
        "<b>dog": {"pixels": 80, "images": 2},
        "cone": {"pixels": 0, "images": 0},
    }
    for place, score in enumerate(found["scores"].values()):
        dog = {"auprc": 0.2 + place / 10, "auprc_interval": [0.1, 0.5], "recall": 0.5}
        score["unknown"]["by_class"] = {"<b>dog": dog, "cone": dict.fromkeys(dog)}
    found["notes"].append("unknown.by_class.cone: no pixel is labelled so")
    return found


def curves() -> dict[str, Any]:
    x = np.linspace(0, 1, 40).tolist()
    down = [1 - v for v in x]
    names = dict.fromkeys(SCORES)
    return {
        "precision_recall": {n: {"recall": x, "precision": down} for n in names},
        "roc": {n: {"fpr": x, "tpr": x} for n in names},
        "risk_coverage": {n: {"coverage": x, "risk": x} for n in names},
        "removal": {n: {"removed": x, "miou": x, "risk": down} for n in names},
        "sparsification": {n: {"removed": x, "error": down, "oracle": down} for n in names},
        "patches": {
            n: {
                "percentile": [100 * v for v in x],
                "p_accurate_certain": down,
                "p_uncertain_inaccurate": [None, *down[1:]],
                "pavpu": x,
            }
            for n in names
        },
        "reliability": diagram(),
        "wrong_reliability": {SCORES[0]: diagram(1e-6), SCORES[1]: diagram(0.1)},
    }


def diagram(more: float = 0.0) -> dict[str, Any]:
    return {
        "confidence": [None, 0.3, 0.9],
        "accuracy": [None, 0.5 + more, 0.8],
        "share": [0.0, 0.1, 0.9],
    }


def example(name: str = "street-1", reason: str = "most doubt") -> Example:
    rng = np.random.default_rng(0)
    return Example(
        name=name,
        reason=reason,
        detail="mean entropy 0.81",
        image=rng.integers(0, 256, (12, 20, 3), dtype=np.uint8),
        label=rng.integers(-3, 3, (12, 20)).astype(np.int16),
        predicted=rng.integers(0, 3, (12, 20)).astype(np.int16),
        doubt=rng.random((12, 20), dtype=np.float32),
        score="entropy",
    )


def results() -> Results:
    return Results(figures(), curves(), CLASSES, [example(), example("street-2", "most missed")])
