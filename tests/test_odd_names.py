"""Files with names of any bytes, tables that spreadsheets open, and what decoders warn of."""

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm
from doubtmap.calibration import load_calibrator, save_calibrator
from doubtmap.calibration.temperature import Temperature
from doubtmap.files import cell, utf8
from doubtmap.segments import MetaModel
from doubtmap.segments.estimators import Line

ODD = os.fsdecode(b"caf\xe9")
FORMULA = "=1+1"


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """A data set in a folder whose name is no UTF-8, with images of odd names."""
    root = tmp_path_factory.mktemp("yard") / ODD
    try:
        root.mkdir()
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    draw = np.random.default_rng(0)
    for name in (ODD, FORMULA, "plain"):
        for folder, shape in (("images", (32, 48, 3)), ("labels", (32, 48))):
            (root / folder).mkdir(exist_ok=True)
            values = draw.integers(0, 8, shape).astype(np.uint8) * (31 if len(shape) == 3 else 1)
            Image.fromarray(values).save(root / folder / f"{name}.png")
    classes = "\n".join(f"{name} = {n}" for n, name in enumerate(dm.load("demo").class_names))
    (root / "doubtmap.toml").write_text(
        'name = "yard"\nimages = "images/{frame}.png"\nlabels = "labels/{frame}.png"\n'
        f"[classes]\n{classes}\n"
    )
    return root


def test_scores_of_odd_names_are_written(run, yard):
    asked = ("score", "demo", yard / "images", "--scores", "entropy", "--out", yard / "s")
    code, out, err = run(*asked)
    assert code == 0, err
    assert "caf\\udce9" in out
    assert (yard / "s" / "entropy" / f"{ODD}.png").exists()
    assert run(*asked, "--resume")[0] == 0


def test_an_evaluation_of_odd_names(run, yard):
    asked = ("evaluate", "demo", f"folder:{yard}", "--scores", "entropy", "--out", yard / "e")
    code, out, err = run(*asked, "--json")
    assert code == 0, err
    printed, written = (json.loads(t) for t in (out, (yard / "e" / "results.json").read_text()))
    assert printed["images"] == written["images"]
    assert any(ODD in row["image"] for row in written["images"])
    assert "Content-Security-Policy" in (yard / "e" / "report.html").read_text("utf-8")


def test_objects_of_odd_names(run, yard):
    asked = ("objects", "demo", yard / "images", "--scores", "entropy", "--threshold", "0")
    code, _, err = run(*asked, "--out", yard / "o")
    assert code == 0, err
    coco = json.loads((yard / "o" / "objects.json").read_text("utf-8"))
    assert any(ODD in image["file_name"] for image in coco["images"])
    cells(yard / "o" / "objects.csv")


def test_a_review_of_odd_names(run, yard):
    one = np.ones(1)
    line = Line(one, one, one, one, one, one)
    scores = {"entropy": dm.scores.entropy}
    model = MetaModel("linear", ("size",), ("entropy",), scores, line, line)
    model.save(yard / "segments")
    code, _, err = run(
        *("review", "demo", yard / "images", "--segments", yard / "segments", "--out", yard / "r")
    )
    assert code == 0, err
    for name in ("images.csv", "segments.csv"):
        cells(yard / "r" / name)
    assert "Content-Security-Policy" in (yard / "r" / "review.html").read_text("utf-8")


def cells(path):
    """The cells of a table, none of which is a formula."""
    rows = list(csv.reader(io.StringIO(path.read_text("utf-8"))))
    found = [each for row in rows for each in row if each and not number(each)]
    assert found and not [each for each in found if each[0] in "=+-@\t\r\n"]
    return found


def number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_fitted_files_lie_where_they_like(yard):
    save_calibrator(Temperature(temperature=2.0, channels=3), yard / "temperature")
    assert load_calibrator(yard / "temperature").temperature == 2


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(start):
    assert cell(f"{start}cmd|' /C calc'!A0")[0] == "'"
    assert cell(f"a{start}") == f"a{start}"


def test_odd_bytes_are_spelt_as_json_does():
    assert utf8(ODD) == b"caf\\udce9"
    assert json.loads(utf8(f'"{ODD}"')) == ODD


def test_decoders_speak_in_notes(run, tmp_path):
    exif = Image.Exif()
    exif[270] = "a" * 40
    Image.new("RGB", (48, 32)).save(tmp_path / "a.jpg", exif=exif.tobytes()[:24])
    code, _, err = run("score", "demo", tmp_path, "--scores", "entropy", "--out", tmp_path / "out")
    lines = [line for line in err.splitlines() if "a.jpg" in line]
    assert code == 0 and len(lines) == 1
    assert lines[0].startswith(f"note: {tmp_path / 'a.jpg'}: the image is read, but")
    assert "Warning" not in err
