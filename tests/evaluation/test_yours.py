"""Metrics of the user's own, and torchmetrics', beside ours."""

import json

import pytest
import torch

import doubtmap as dm
from doubtmap.engine.places import PartNumber, Place
from doubtmap.errors import ModelError, UsageError
from doubtmap.evaluation.asking import Options
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.evaluation.yours import OnPixels, named_metrics

FILE = '''
class Seen:
    """Images, pixels with a class, and the sum of a score."""

    def __init__(self, score="entropy"):
        self.score, self.images, self.pixels, self.total = score, 0, 0, 0.0

    def update(self, prediction, label, maps):
        self.images += len(prediction.native_logits)
        self.pixels += int((label >= 0).sum())
        self.total += float(maps[self.score].double().sum())

    def compute(self):
        return {"images": self.images, "pixels": self.pixels, "total": self.total}

class Raises(Seen):
    def update(self, *_):
        raise ZeroDivisionError("of mine")

def number():
    return 3
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def evaluated(segmenter, streets, metrics, **more):
    options = Options(examples=0, metrics=metrics)
    return dm.evaluate(
        segmenter, streets, "entropy", unknown="rest", replicates=20, options=options, **more
    )


def test_a_metric_sees_each_image_once_as_it_was_evaluated(segmenter, streets, file):
    found = evaluated(segmenter, streets, f"python:{file}:Seen").figures
    said = found["metrics"]["Seen"]
    pixels, total = 0, 0.0
    for index in range(len(streets)):
        sample = streets[index]
        total += float(dm.scores.entropy(segmenter(sample.image[None])).double().sum())
        pixels += int((sample.label >= 0).sum())
    assert said["images"] == len(streets) and said["total"] == pytest.approx(total, rel=1e-9)
    assert said["pixels"] == found["data"]["pixels"]["known"] <= pixels
    json.dumps(found["metrics"])


def test_a_run_that_goes_on_gives_it_all_images(segmenter, streets, file, tmp_path):
    whole = evaluated(segmenter, streets, f"python:{file}:Seen").figures["metrics"]

    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated(segmenter, streets, f"python:{file}:Seen", out=tmp_path, progress=stop)
    again = evaluated(segmenter, streets, f"python:{file}:Seen", out=tmp_path, resume=True)
    assert again.figures["metrics"] == whole


class Held:
    """Keeps what it is fed."""

    def __init__(self):
        self.preds, self.target = [], []

    def update(self, preds, target):
        self.preds.append(preds)
        self.target.append(target)

    def compute(self):
        return {
            "preds": [*torch.cat(self.preds).shape],
            "mean": torch.cat(self.target).float().mean(),
        }


@pytest.mark.parametrize(
    ("of", "target"), [("classes", "wrong"), ("entropy", "wrong"), ("entropy", "unknown")]
)
def test_pixels_are_those_that_our_figures_are_of(segmenter, streets, of, target):
    held = Held()
    results = evaluated(segmenter, streets, {"held": OnPixels(held, of, target)}).figures
    preds, truth = torch.cat(held.preds).numpy(), torch.cat(held.target).numpy()
    pixels = results["data"]["pixels"]
    assert results["metrics"]["held"]["preds"] == [len(truth)]
    if of == "classes":
        assert (preds == truth).mean() == pytest.approx(results["segmentation"]["accuracy"])
        return
    metrics = pytest.importorskip("sklearn.metrics")
    wanted = results["scores"]["entropy"][target]
    assert metrics.roc_auc_score(truth, preds) == pytest.approx(wanted["auroc"], abs=1e-6)
    assert len(truth) == pixels["known"] + (pixels["unknown"] if target == "unknown" else 0)


def test_objects_of_torchmetrics_are_taken_as_they_are(segmenter, streets):
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    classes = len(segmenter.class_names)
    made = [
        torchmetrics.classification.MulticlassCalibrationError(classes, n_bins=15),
        torchmetrics.classification.MulticlassAccuracy(classes, average="micro"),
    ]
    found = evaluated(segmenter, streets, made).figures
    said, ours = found["metrics"], found["segmentation"]["accuracy"]
    assert said["MulticlassAccuracy"] == pytest.approx(ours, abs=1e-6)
    assert said["MulticlassCalibrationError"] == pytest.approx(
        found["calibration"]["ece"], abs=1e-5
    )


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ([object()], "expected an object with update and compute, got object"),
        ([Held], "expected an object with update and compute, got type"),
        ("nothing", "expected python:FILE.py:CLASS, got nothing"),
        ([Held(), Held()], "Held is there twice"),
    ],
)
def test_what_is_no_metric(metrics, told):
    with pytest.raises(UsageError, match=told):
        named_metrics(metrics)


def test_intervals_need_replicates(segmenter, streets):
    with pytest.raises(UsageError, match="expected replicates from 1 on"):
        dm.evaluate(segmenter, streets, "entropy", replicates=0)


def test_errors_of_the_users_own_name_the_metric(segmenter, streets, file):
    with pytest.raises(ModelError, match="Raises raised ZeroDivisionError: of mine"):
        evaluated(segmenter, streets, f"python:{file}:Raises")
    with pytest.raises(UsageError, match="one of the scores entropy, got margin"):
        evaluated(segmenter, streets, [OnPixels(Held(), "margin")])
    with pytest.raises(UsageError, match="expected target wrong or unknown"):
        OnPixels(Held(), "entropy", "right")
    with pytest.raises(UsageError, match="expected an object with update and compute, got number"):
        named_metrics(f"python:{file}:number")


def test_it_goes_with_one_process_and_one_pass(segmenter, streets, file):
    metrics = f"python:{file}:Seen"
    for place in (Place(workers=2), Place(part=PartNumber(1, 2))):
        options = Options(metrics=metrics, place=place)
        with pytest.raises(UsageError, match="expected one process"):
            dm.evaluate(segmenter, streets, "entropy", options=options)
    with pytest.raises(UsageError, match="expected one pass"):
        evaluate_passes(segmenter, [streets, streets], "entropy", options=Options(metrics=metrics))


def test_the_command_tells_it_and_the_report_shows_it(run, file, tmp_path):
    line = ["evaluate", "demo", "synthetic:2", "--scores", "entropy", "--out", tmp_path / "out"]
    code, _, error = run(*line, "--metrics", f"python:{file}:Seen(score=entropy)")
    assert code == 0, error
    assert "metrics: Seen.images 2, Seen.pixels" in " ".join(error.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Your metrics" in page and "Seen.\u200bimages" in page.replace("<wbr>", "\u200b")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that brings metrics."""
    (tmp_path / "counting.py").write_text(FILE.replace("return 3", "raise OSError('no disk')"))
    about = tmp_path / "counting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[doubtmap.metrics]\nseen = counting:Seen\ngone = counting:gone\nbad = counting:number\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
def test_installed_packages_bring_metrics(segmenter, streets):
    said = evaluated(segmenter, streets, "seen").figures["metrics"]["seen"]
    assert said["images"] == len(streets)
    with pytest.raises(ModelError, match="gone is of an installed package, counting:gone"):
        named_metrics("gone")
    with pytest.raises(ModelError, match=r"bad is of .* raised OSError: no disk"):
        named_metrics("bad")
    with pytest.raises(UsageError, match="one of seen, gone, bad, which packages bring"):
        named_metrics("saw")
