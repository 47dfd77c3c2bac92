"""Feature density (DDU) against softmax entropy, dropout and ensembles, on CamVid.

    python benchmarks/ddu.py [--shared ../shared] [--spectral FOLDER] [--stages ...] [--work DIR]

Unknown: pedestrian and bicyclist. Fitted on train, chosen on val, reported on test. `FOLDER` is
what this wrote:

    doubtmap train camvid:../shared/data/camvid:train --recipe spectral --coefficient 3 \
        --validation camvid:../shared/data/camvid:val --model ../shared/models/camvid9 \
        --from-scratch --hold-out pedestrian,bicyclist --epochs 20 --batch 4 --crop 288x384 \
        --rate 2e-3 --class-weights 0.25 --validate-every 2 --seed 1 --out FOLDER

Writes `benchmarks/results/ddu.json`; a stage that is run again replaces its rows. Stages: `table`
(all methods on test), `ablation` (variants of the density on val and test), `time` (milliseconds,
on an idle machine).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import doubtmap as dm
from doubtmap.engine import Pairs
from doubtmap.fitting import fit_score
from doubtmap.models import MonteCarloDropout
from doubtmap.prediction import Segmenter
from doubtmap.scores import Density
from doubtmap.scores.gaussians import Gaussians
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import prepared

RESULTS = Path(__file__).parent / "results" / "ddu.json"
UNKNOWN = ["pedestrian", "bicyclist"]
AS_PUBLISHED = "density(layer=classifier,scale=none,certainty=0)"
FITS = {
    "default": "density",
    "as published": AS_PUBLISHED,
    "before activation": "density(scale=none,certainty=0)",
    "unit length": "density(certainty=0)",
    "certainty 1": "density(certainty=1)",
    "certainty 16": "density(certainty=16)",
    "certainty 256": "density(certainty=256)",
    "certainty 64, not unit length": "density(scale=none)",
    "certainty 64, after activation": "density(layer=classifier)",
}
READS = {
    "": "",
    "any": "at=any",
    "any, prior": "at=any,prior=true",
    "tied": "covariance=tied",
    "tied, any": "covariance=tied,at=any",
    "rank 16": "rank=16",
    "project 32": "project=32",
    "shrinkage 1e-4": "shrinkage=0.0001",
    "shrinkage 0.1": "shrinkage=0.1",
}
FIGURES = ("auprc", "auroc", "fpr95")


def fitted(work: Path, shared: Path, model: Path, name: str, wanted: str) -> Path:
    """Fit on train, once."""
    options = hashlib.sha256(f"{wanted} {Density.FIT_OPTIONS}".encode()).hexdigest()[:8]
    file = work / f"{model.parent.name}-{model.name}-{name}-{options}.safetensors".replace(" ", "_")
    if not file.exists():
        train = dm.open_dataset(f"camvid:{shared}/data/camvid:train")
        fit_score(wanted, dm.load(model), train, out=file)
    return file


def rows_of(segmenter: Segmenter, shared: Path, split: str, names: dict[str, str]) -> list[Any]:
    """Evaluate scores; a row each, named as `names` has it."""

    def show(stage: str, done: int, total: int) -> None:
        print(f"\r{split}: {stage} {done}/{total}   ", end="", flush=True)

    data = dm.open_dataset(f"camvid:{shared}/data/camvid:{split}")
    scores = parse_scores(list(names))
    results = dm.evaluate(
        segmenter, data, dict(zip(names.values(), scores.values())), unknown=UNKNOWN, progress=show
    )
    print()
    figures = results.figures
    rows = []
    for name, found in figures["scores"].items():
        row: dict[str, Any] = {"name": name, "set": f"camvid {split}"}
        row["miou"] = figures["segmentation"]["miou"]
        wrong = found["wrong"]
        row |= {k: v for k, v in wrong.items() if k.endswith("_area")}
        row |= {f"{k}_per_pixel": v for k, v in wrong["per_pixel"].items() if k.endswith("_area")}
        for kind in ("unknown", "wrong"):
            for figure in FIGURES:
                row[f"{kind}.{figure}"] = found[kind][figure]
                row[f"{kind}.{figure}_interval"] = found[kind][f"{figure}_interval"]
        rows.append(row)
    return rows


def table(work: Path, shared: Path, spectral: Path | None, only: str) -> list[Any]:
    """Every method on test, or those networks whose titles `only` has."""
    models = shared / "models"
    camvid9, members = (
        models / "camvid9",
        [models / "camvid9-ensemble" / str(i) for i in range(1, 6)],
    )
    single = ["max_softmax", "entropy", "divergence"]
    several = ["entropy", "mutual_information", "member_entropy", "member_spread"]

    def named(title: str, scores: list[str]) -> dict[str, str]:
        return {score: f"{title}: {score}" for score in scores}

    def with_density(title: str, model: Path) -> dict[str, str]:
        names = named(title, single)
        default = fitted(work, shared, model, "default", FITS["default"])
        published = fitted(work, shared, model, "as published", AS_PUBLISHED)
        names[f"density:{default}"] = f"{title}: density"
        names[f"density(at=any):{default}"] = f"{title}: density, any class"
        names[f"mahalanobis:{published}"] = f"{title}: mahalanobis, as published"
        names[f"mahalanobis(relative=true):{published}"] = f"{title}: relative mahalanobis"
        names[f"density(at=any,covariance=full):{published}"] = f"{title}: density, as published"
        return names

    singles = {"camvid9": camvid9, "member 1": members[0]}
    singles |= {"spectral": spectral} if spectral is not None else {}
    sampled = "camvid9, 5 passes, dropout 0.2 added"
    several_of: dict[str, Callable[[], Segmenter]] = {
        sampled: lambda: MonteCarloDropout(dm.load(camvid9), 5, 0.2),
        "ensemble of 3": lambda: dm.load(",".join(map(str, members[:3]))),
        "ensemble of 5": lambda: dm.load(",".join(map(str, members))),
    }
    rows = []
    for title, model in singles.items():
        if not only or title in only.split(";"):
            rows += rows_of(dm.load(model), shared, "test", with_density(title, model))
    for title, opened in several_of.items():
        if not only or title in only.split(";"):
            rows += rows_of(opened(), shared, "test", named(title, several))
    return rows


def ablation(work: Path, shared: Path, model: Path, title: str) -> list[Any]:
    """Variants of the density, one change at a time, on val (to choose) and test (to report)."""
    names = {"entropy": f"{title}: entropy"}
    for name, wanted in FITS.items():
        file = fitted(work, shared, model, name, wanted)
        reads = READS if name == "default" else {"": "", "any": "at=any"}
        for read, options in reads.items():
            key = f"density({options}):{file}" if options else f"density:{file}"
            names[key] = f"{title}: {name}{', ' if read else ''}{read}"
    return [row for split in ("val", "test") for row in ranked(model, shared, split, names)]


def ranked(model: Path, shared: Path, split: str, names: dict[str, str]) -> list[Any]:
    """Ranking figures of many scores in one pass, without intervals."""
    scores = parse_scores(list(names))
    segmenter = prepared(dm.load(model), scores)
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:{split}")
    kinds = ("unknown", "wrong")
    rankings = {(name, kind): dm.metrics.Ranking(1 << 19) for name in scores for kind in kinds}

    def show(stage: str, done: int, total: int) -> None:
        print(f"\r{split}: {stage} {done}/{total}   ", end="", flush=True)

    for prediction, label in Pairs(segmenter, data, tuple(UNKNOWN), progress=show):
        for name, score in scores.items():
            values = score(prediction)
            rankings[name, "unknown"].update(values, label == -1, label >= -1)
            rankings[name, "wrong"].update(values, prediction.classes != label, label >= 0)
    print()
    rows = []
    for name, title in zip(scores, names.values()):
        row: dict[str, Any] = {"name": title, "set": f"camvid {split}"}
        for kind in kinds:
            found = rankings[name, kind]
            row[f"{kind}.auprc"] = float(found.average_precision())
            row[f"{kind}.auroc"] = float(found.auroc())
            row[f"{kind}.fpr95"] = float(found.fpr_at_tpr(0.95))
        rows.append(row)
    return rows


def times(work: Path, shared: Path) -> list[Any]:
    """Milliseconds for an image, all ways in turn, and the ratio to the plain network."""
    models = shared / "models"
    members = [models / "camvid9-ensemble" / str(i) for i in range(1, 6)]
    file = fitted(work, shared, models / "camvid9", "default", FITS["default"])
    data = dm.open_dataset(f"camvid:{shared}/data/camvid:test")
    images = [data[index].image[None] for index in range(0, 200, 10)]
    plain = dm.load(models / "camvid9")
    density = Density.load(file)
    listening = dm.load(models / "camvid9").listening(density.layers)  # type: ignore[attr-defined]
    ensembles = {n: dm.load(",".join(map(str, members[:n]))) for n in (3, 5)}
    sampled = MonteCarloDropout(plain, 5, 0.2)
    scored: dict[str, Callable[[Tensor], object]] = {
        "plain network": lambda x: plain(x),
        "entropy": lambda x: dm.scores.entropy(plain(x)),
        "density": lambda x: density(listening(x)),
        "density, any class": lambda x: replace(density, at="any")(listening(x)),
        "dropout, 5 passes": lambda x: dm.scores.mutual_information(sampled(x)),
        "ensemble of 3": lambda x: dm.scores.mutual_information(ensembles[3](x)),
        "ensemble of 5": lambda x: dm.scores.mutual_information(ensembles[5](x)),
    }
    return _timed(scored, images, "camvid9, 480x360, 64 features, 9 classes")


def budget() -> list[Any]:
    """The density beside a SegFormer-B0 at 512 x 1024: 256 features, 19 classes."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19)).eval()
    plain = dm.load(network)
    image = torch.rand(1, 3, 512, 1024)
    features = plain(image).features
    assert features is not None
    channels = features.shape[1]
    factor = torch.randn(19, channels, channels, dtype=torch.float64) / 16
    covariance = factor @ factor.mT + torch.eye(channels, dtype=torch.float64)
    count = torch.full((19,), 10_000)
    mean = torch.randn(19, channels, dtype=torch.float64)
    gaussians = Gaussians(count, count.double(), count.double(), mean, covariance)
    variants = {
        "density": Density(gaussians),
        "density, tied": Density(gaussians, covariance="tied"),
        "density, project 32": Density(gaussians, project=32),
        "density, project 32, any class": Density(gaussians, at="any", project=32),
        "density, rank 16, any class": Density(gaussians, at="any", rank=16),
        "density, any class": Density(gaussians, at="any"),
    }
    scored: dict[str, Callable[[Tensor], object]] = {"plain network": lambda x: plain(x)}
    for name, density in variants.items():
        scored[name] = lambda x, density=density: density(plain(x))
    return _timed(scored, [image] * 4, f"SegFormer-B0, 512x1024, {channels} features, 19 classes")


def _timed(
    scored: dict[str, Callable[[Tensor], object]], images: list[Tensor], where: str
) -> list[Any]:
    for way in scored.values():
        way(images[0])
    seconds: dict[str, list[float]] = {name: [] for name in scored}
    for image in images:
        for name, way in scored.items():
            start = time.perf_counter()
            way(image)
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name, values in seconds.items():
        ratios = [own / base for own, base in zip(values, seconds["plain network"])]
        rows.append(
            {
                "name": name,
                "set": where,
                "milliseconds": 1000 * middle[name],
                "ratio": statistics.median(ratios),
            }
        )
        print(f"{where}: {name}: {1000 * middle[name]:.0f} ms, {rows[-1]['ratio']:.3f} x")
    return rows


def merged(before: list[Any], after: list[Any]) -> list[Any]:
    """Rows in their old order, those that were measured anew in their new state."""
    rows = {(row["stage"], row["set"], row["name"]): row for row in before}
    rows |= {(row["stage"], row["set"], row["name"]): row for row in after}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--spectral", type=Path)
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work"))
    parser.add_argument("--stages", default="table,ablation,time")
    parser.add_argument("--only", default="", help="Of the table: titles of networks, between ;")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    work, shared, spectral = arguments.work, arguments.shared, arguments.spectral
    stages: dict[str, Callable[[], list[Any]]] = {
        "table": lambda: table(work, shared, spectral, arguments.only),
        "ablation": lambda: ablation(work, shared, shared / "models" / "camvid9", "camvid9"),
        "time": lambda: [*times(work, shared), *budget()],
    }
    content: dict[str, Any] = {"command": "", "version": "", "conditions": {}, "rows": []}
    if RESULTS.exists():
        content = json.loads(RESULTS.read_text())
    for stage in arguments.stages.split(","):
        rows = [{"stage": stage} | row for row in stages[stage]()]
        content["rows"] = merged(content["rows"], rows)
        content["command"] = "python benchmarks/ddu.py --spectral FOLDER"
        content["version"] = dm.__version__
        content["conditions"]["unknown"] = UNKNOWN
        content["conditions"][f"threads of {stage}"] = torch.get_num_threads()
        RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
