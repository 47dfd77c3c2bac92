"""`doubtmap labels`, and `review` with a budget, from the command line; then in the viewer."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm
from doubtmap.files import Origin
from doubtmap.segments import MetaModel
from doubtmap.segments.estimators import Line
from doubtmap.viewer import gather, open_run
from doubtmap.viewer.contents import image_content
from doubtmap.viewer.verdicts import Verdicts

SIZE = (96, 144)
EVIL = "=<img src=x>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Streets on disk; in one of them, what the demo network sees as road is labelled sky."""
    from doubtmap.streets.synthetic import SyntheticStreets

    place = tmp_path_factory.mktemp("streets")
    streets = SyntheticStreets(3, seed=3, size=SIZE)
    values = "\n".join(f'"{name}" = {k}' for k, name in enumerate(streets.class_names))
    for index in range(3):
        sample = streets[index]
        label = sample.label.numpy().copy()
        if index == 1:
            label[-24:, 30:110] = streets.class_names.index("sky")
        for kind, pixels in (
            ("images", sample.image.permute(1, 2, 0).numpy()),
            ("labels", np.where(label < 0, 255, label).astype(np.uint8)),
        ):
            (place / kind).mkdir(exist_ok=True)
            name = f"{EVIL}_{index}" if index == 1 else f"street_{index}"
            Image.fromarray(pixels).save(place / kind / f"{name}.png")
    (place / "doubtmap.toml").write_text(
        'name = "streets"\nimages = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n'
        f"[classes]\n{values}\nvoid = 255\n"
    )
    return place


@pytest.fixture
def labelled(run, folder, tmp_path):
    out = tmp_path / "out"
    asked = ("labels", "demo", f"folder:{folder}", "--thinnest", "3", "--out", out)
    code, said, err = run(*asked, "--to", "coco,cvat", "--first", "5")
    assert code == 0, err
    return out, said


def test_labels_lists_what_is_wrong_and_shows_it(labelled):
    out, said = labelled
    rows = [*csv.DictReader(io.StringIO((out / "label_errors.csv").read_text()))]
    assert rows[0]["labelled"] == "sky"
    assert rows[0]["image"] == f"'{EVIL}_1"
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    page = (out / "labels.html").read_text()
    assert "Content-Security-Policy" in page
    assert "<img src=x>" not in page
    assert page.count('alt="prediction of') == min(5, len(rows))
    about = json.loads((out / "labels.json").read_text())
    assert (about["data"], about["command"][:8]) == ("streets", "doubtmap")
    assert len(about["label_errors"]) == len(rows)
    assert f"denied at {len(rows)} places of 3 images" in said
    assert (out / "coco" / "annotations.json").exists()
    images = [*csv.DictReader(io.StringIO((out / "images.csv").read_text()))]
    assert images[0]["image"] == f"'{EVIL}_1"


def test_the_viewer_shows_wrong_labels_and_keeps_verdicts(labelled):
    out, _ = labelled
    found = open_run(out)
    assert (found.kind, found.title) == ("labels", "labels of streets by demo")
    assert found.names[0] == f"{EVIL}_1"
    assert found.table["denied"][0] >= 1
    gathered = gather([out])
    drawn = json.loads(image_content(gathered, "objects/0/0.json"))["objects"]
    assert drawn[0]["lines"]
    assert "sky" in {each["labelled_class"] for each in drawn}
    assert image_content(gathered, "thumbs/0.jpg")
    verdicts = Verdicts.of(gathered)
    verdicts.judge(gathered.names[0], {"verdict": "label wrong"})
    assert json.loads((out / "verdicts.json").read_text())["verdicts"][gathered.names[0]]


def test_images_in_no_file_are_kept(run, tmp_path):
    out = tmp_path / "out"
    code, _, err = run("labels", "demo", "synthetic:2", "--out", out, "--to", "fiftyone")
    assert code == 0, err
    assert len([*(out / "images").iterdir()]) == 2
    assert open_run(out).image_file(0).exists()


@pytest.mark.parametrize(
    "more,code,said",
    [
        (("--to", "paint"), 2, "--to: expected some of label-studio"),
        (("--smallest", "0"), 2, "got --smallest 0 and --thinnest 5"),
        (("--surest", "2"), 2, "got --surest 2.0"),
    ],
)
def test_bad_options_are_one_sentence(run, tmp_path, more, code, said):
    found, _, err = run("labels", "demo", "synthetic:2", "--out", tmp_path / "o", *more)
    assert found == code
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "labels.json").exists()


def test_images_without_labels_are_refused(run, folder, tmp_path):
    code, _, err = run("labels", "demo", f"folder:{folder / 'images'}", "--out", tmp_path / "o")
    assert code in (1, 2)
    assert err.count("\n") <= 3
    assert "Traceback" not in err


@pytest.fixture
def meta(tmp_path):
    one = np.ones(1)
    line = Line(one, one, one, one, one, one)
    scores = {"entropy": dm.scores.entropy}
    model = MetaModel("linear", ("size",), ("entropy",), scores, line, line)
    model.save(tmp_path / "segments")
    return model, tmp_path / "segments"


def test_a_meta_model_adds_its_probability(run, folder, meta, tmp_path):
    asked = ("labels", "demo", f"folder:{folder}", "--thinnest", "3", "--segments", meta[1])
    code, _, err = run(*asked, "--out", tmp_path / "o")
    assert code == 0, err
    rows = [*csv.DictReader(io.StringIO((tmp_path / "o" / "label_errors.csv").read_text()))]
    assert all(0 <= float(row["probability_right"]) <= 1 for row in rows)


def test_a_review_gives_a_budget_of_unlike_images_to_tools(run, folder, meta, tmp_path):
    asked = ("review", "demo", folder / "images", "--segments", meta[1], "--out", tmp_path / "r")
    code, said, err = run(*asked, "--budget", "2", "--diverse", "--by", "mass", "--to", "coco")
    assert code == 0, err
    about = json.loads((tmp_path / "r" / "review.json").read_text())
    assert (len(about["chosen"]), about["diverse"], about["ranked_by"]) == (2, True, "mass")
    rows = [*csv.DictReader(io.StringIO((tmp_path / "r" / "images.csv").read_text()))]
    assert sorted(row["chosen"] for row in rows) == ["", "1", "2"]
    coco = json.loads((tmp_path / "r" / "coco" / "annotations.json").read_text())
    assert len(coco["images"]) == 2
    assert "annotations.json" in said
    assert open_run(tmp_path / "r").table["chosen"]


@pytest.mark.parametrize("error,told", [(0.109, False), (0.03, True)])
def test_the_expected_miou_is_told_with_its_error_or_not(run, folder, meta, tmp_path, error, told):
    """Known errors: of what was expected of held-out images, and of always their mean, 0.051."""
    origin = Origin(facts={"errors": {"miou": [error, 0.051]}})
    replace(meta[0], origin=origin).save(tmp_path / "known")
    out = tmp_path / "r"
    asked = ("review", "demo", folder / "images", "--segments", tmp_path / "known", "--out", out)
    code, _, err = run(*asked)
    assert code == 0, err
    assert ("The expected mIoU is left out: on held-out images it was 0.109 off" in err) != told
    rows = [*csv.DictReader(io.StringIO((out / "images.csv").read_text()))]
    assert all((row["expected_miou"] != "") == told for row in rows)
    page = (out / "review.html").read_text()
    assert ("</b> ± 0.03, " in page) == told
    assert ("expected: mIoU" in page) == told


def test_diverse_asks_for_a_budget(run, folder, meta, tmp_path):
    asked = ("review", "demo", folder / "images", "--segments", meta[1], "--out", tmp_path / "r")
    code, _, err = run(*asked, "--diverse")
    assert (code, "--diverse: expected --budget with it" in err) == (2, True)
