"""Stage `vessels` of `benchmarks/segments.py`: retina vessels, labelled by two annotators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from segment_tables import PLAIN, extracted, judged
from sklearn.metrics import average_precision_score, roc_auc_score

import doubtmap as dm
from doubtmap.engine import Pairs
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps
from doubtmap.segments import MetaModel


def vessels_stage(work: Path, shared: Path, vessels: Path | None) -> Iterator[dict[str, Any]]:
    """Retina vessels: meta models, images, and whether doubt follows the two annotators."""
    folder = prepare_chase(work, shared)
    if vessels is None:
        print(f"vessels: left out; train a network on folder:{folder}:train, then --vessels FOLDER")
        return
    val, test = (
        extracted(
            work, f"chase-{split}", network_of(vessels), f"folder:{folder}:{split}", PLAIN, ()
        )
        for split in ("val", "test")
    )
    overlap = test.wrong.sum() / test.labelled.sum()
    for kind in ("linear", "boosting"):
        model = MetaModel.fit(val.table, kind)
        row = {"name": f"all: {kind}", "set": "chase test", "wrong_share": float(overlap)}
        yield row | judged(model, test.table)
    yield from disagreement(folder, vessels)


def network_of(vessels: Path) -> str:
    """The trained vessel network, with the code that makes it."""
    return f"python:{Path(__file__).parent / 'vessel_net.py'}:vessel_net@{vessels}"


def disagreement(folder: Path, vessels: Path) -> Iterator[dict[str, Any]]:
    """How scores rank the pixels about which two annotators disagree."""
    from PIL import Image

    segmenter, data = dm.load(network_of(vessels)), dm.open_dataset(f"folder:{folder}:test")
    scores = parse_scores(PLAIN)
    seen: dict[str, list[np.ndarray]] = {}
    for index, (prediction, label) in enumerate(Pairs(segmenter, data)):
        other = np.asarray(Image.open(second_label(folder, data.sample_name(index)))) > 0
        first = label[0].numpy() == 1
        wrong = prediction.classes[0].numpy() != label[0].numpy()
        maps = score_maps(prediction, scores)
        seen.setdefault("disagree", []).append(first != other)
        seen.setdefault("both wrong", []).append(wrong & (first == other))
        for name, values in maps.items():
            seen.setdefault(name, []).append(values.numpy())
    for name in PLAIN:
        for what in ("disagree", "both wrong"):
            truth = np.concatenate([x.reshape(-1) for x in seen[what]])
            values = np.concatenate([x.reshape(-1) for x in seen[name]])
            means = [[float(x.mean()) for x in seen[key]] for key in (what, name)]
            title = "annotators disagree" if what == "disagree" else "both say it is wrong"
            yield {
                "name": f"{name}: {title}",
                "set": "chase test",
                "share": float(truth.mean()),
                "auroc": float(roc_auc_score(truth, values)),
                "auprc": float(average_precision_score(truth, values)),
                "images_spearman": float(spearmanr(*means)[0]),
                "images": len(means[0]),
            }


def second_label(folder: Path, name: str) -> Path:
    """The second annotator's file of an image of the test split."""
    return folder / "labels2" / "test" / f"{Path(name).stem}.png"


def prepare_chase(work: Path, shared: Path) -> Path:
    """CHASE as a folder with splits by person, of links."""
    folder, source = (work / "chase").resolve(), (shared / "data" / "chasedb1").resolve()
    for person in range(1, 15):
        split = "train" if person <= 8 else "val" if person <= 10 else "test"
        for side in "LR":
            frame = f"Image_{person:02d}{side}"
            for to, origin, suffix in (
                ("images", "images", "jpg"),
                ("labels", "labels_annotator1", "png"),
                ("labels2", "labels_annotator2", "png"),
            ):
                link = folder / to / split / f"{frame}.{suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(source / origin / f"{frame}.{suffix}")
    (folder / "doubtmap.toml").write_text(
        'name = "chase"\nimages = "images/{split}/{frame}.jpg"\n'
        'labels = "labels/{split}/{frame}.png"\nsplit = "test"\n'
        "[classes]\nbackground = 0\nvessel = 1\n"
    )
    return folder
