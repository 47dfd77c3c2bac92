"""Real objects pasted into CamVid: how well each score finds them, and what refusing them costs.

    python benchmarks/pasting.py [--shared ../shared] [--model MODEL --name NAME]

Objects of the half `test` of coco128 that the network has no class for, one in each of the 233
test images, in three passes with other draws (seeds 0 to 2). Pedestrians and bicyclists of CamVid,
which the network was not taught, are void, as are the data set's void pixels. Figures are means
over the passes, `NAME_deviation` their deviation with divisor 2; the interval of the AUPRC is that
of the first pass, from the bootstrap over images, moved to the mean. `open_miou`, of the first
pass, refuses pixels above the threshold that finds 95 % of the pixels of objects of the half
`train` in the 101 images of val; `found` and `false_alarms` are what it finds and refuses in test.
Writes `benchmarks/results/pasting.json`; rows of the same name are replaced.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import doubtmap as dm
from doubtmap.datasets import pasted_passes
from doubtmap.engine.run import Run
from doubtmap.evaluation.evaluate import Options
from doubtmap.evaluation.open_set import refused_figures, take_thresholds
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.scores.parsing import parse_scores

RESULTS = Path(__file__).parent / "results" / "pasting.json"
SCORES = "max_softmax,entropy,max_logit,divergence"
PASSES = 3


def rows_of(name: str, figures: dict[str, Any], opened: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each score."""
    passes = figures["passes"]
    rows = []
    for score, groups in passes["scores"].items():
        title = score if name == "camvid9" else f"{name} {score}"
        row: dict[str, Any] = {"name": title, "set": passes["data"][0].split("@")[0]}
        first = figures["scores"][score]["unknown"]
        for key in ("auprc", "fpr95", "auroc"):
            row[f"unknown.{key}"] = groups["unknown"][key]["mean"]
            row[f"unknown.{key}_deviation"] = groups["unknown"][key]["deviation"]
        shift = row["unknown.auprc"] - first["auprc"]
        row["unknown.auprc_interval"] = [bound + shift for bound in first["auprc_interval"]]
        found = opened["scores"][score]
        row["miou"], row["open_miou"] = opened["closed_miou"], found["miou"]
        row["open_miou_interval"] = found["miou_interval"]
        row["found"], row["false_alarms"] = found["found"], found["false_alarms"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", default=None)
    parser.add_argument("--name", default="camvid9")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = dm.load(chosen.model or chosen.shared / "models" / "camvid9")
    objects = chosen.shared / "data" / "coco128"
    sets = {
        split: pasted_passes(
            dm.open_dataset(f"camvid:{chosen.shared / 'data' / 'camvid'}:{split}"),
            f"{objects}:{half}",
            segmenter.class_names,
            passes=PASSES,
        )
        for split, half in (("val", "train"), ("test", "test"))
    }
    passes, notes = sets["test"]
    results = evaluate_passes(segmenter, passes, SCORES, options=Options(notes=notes, examples=0))
    run, others = Run(segmenter, passes[0], parse_scores(SCORES), (), None), sets["val"][0][0]
    opened = refused_figures(run, others, take_thresholds(run, others))
    old = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    rows = rows_of(chosen.name, results.figures, opened)
    replaced = {row["name"] for row in rows}
    content = {
        "command": "python benchmarks/pasting.py",
        "version": dm.__version__,
        "conditions": {
            "passes": PASSES,
            "pixels": results.figures["data"]["pixels"],
            "images": len(passes[0]),
            "objects": notes,
            "torch": torch.__version__,
        },
        "rows": [row for row in old if row["name"] not in replaced] + rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['name']:24} "
            + " ".join(
                f"{k} {row[k]:.4f}"
                for k in row
                if k not in ("name", "set") and isinstance(row[k], float)
            )
        )


if __name__ == "__main__":
    main()
