"""What the report says of classes and images."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_results import CLASSES, curves, example, figures
from PIL import Image

from doubtmap.evaluation.examples import _apart, telling
from doubtmap.evaluation.report import write_report
from doubtmap.evaluation.report_images import (
    MOST_CLASSES,
    MOST_IMAGES,
    confusions,
    image_rows,
    worst_images,
)
from doubtmap.evaluation.results import Results
from doubtmap.reports.pictures import STATE_COLOURS, state_picture

HOSTILE = "<script>alert(1)</script>"
COUNTS = [[8, 2, 0], [0, 5, 5], [0, 0, 0]]
IMAGES = [
    {"image": "a", "accuracy": 0.9, "miou": 0.8, "iou": [0.5, 0.1, None], "scores": {}},
    {"image": HOSTILE, "accuracy": 0.2, "miou": 0.1, "iou": [0.9, 0.3, None], "scores": {}},
]


class Named(list):
    """A data set of which names alone are asked."""

    def sample_name(self, index):
        return self[index]


def test_a_confusion_matrix_is_shares_of_labelled_classes():
    found = confusions(COUNTS, CLASSES)
    assert found.names == ["sky", "road", "car"]
    assert found.rows == [("sky", 10, [0.8, 0.2, 0.0]), ("road", 10, [0.0, 0.5, 0.5])]
    assert found.left_out == 0


def test_of_many_classes_those_with_most_wrong_pixels_are_shown():
    counts = np.diag(np.arange(1, 41))
    counts[39, 0] = counts[5, 0] = 7
    found = confusions(counts.tolist(), ())
    assert len(found.rows) == MOST_CLASSES
    assert {"39", "5"} <= {name for name, _, _ in found.rows}
    assert found.left_out == 10


@pytest.mark.parametrize("counts", [None, [], {}])
def test_without_counts_there_is_no_matrix(counts):
    assert confusions(counts, CLASSES) is None


def test_the_worst_images_of_a_class_are_those_of_lowest_iou():
    found = worst_images(IMAGES, CLASSES)
    assert [(each.name, each.images[0][0]) for each in found] == [("sky", "a"), ("road", "a")]
    assert [image for image, _ in found[0].images] == ["a", HOSTILE]


def test_images_are_listed_worst_first_and_no_more_than_a_page_takes():
    table = image_rows(IMAGES)
    assert [name for name, _ in table.rows] == [HOSTILE, "a"]
    assert table.columns == ["accuracy", "miou"]
    many = [{"image": str(at), "accuracy": at / 300, "scores": {}} for at in range(300)]
    table = image_rows(many)
    assert (len(table.rows), table.left_out) == (MOST_IMAGES, 200)
    assert table.rows[0][0] == "0"
    assert image_rows([]) is None
    assert image_rows([{"image": "a", "scores": {}}]) is None


def test_images_without_classes_are_ordered_by_what_was_missed():
    rows = [{"image": str(at), "scores": {"energy": {"missed": at / 10}}} for at in range(3)]
    assert [name for name, _ in image_rows(rows).rows] == ["2", "1", "0"]


def test_the_page_shows_them_and_escapes_names(tmp_path):
    mine = figures() | {"images": IMAGES}
    page = tmp_path / "report.html"
    write_report(Results(mine, curves() | {"confusion": COUNTS}, CLASSES, [example()]), page)
    text = page.read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    assert "sky taken for road: 20.00 %" in text
    assert text.index('id="examples"') < text.index('id="unknown"')
    assert re.search(r'<table class="sortable filtered">', text)
    assert "doubtmap view" in text


def test_pixels_are_painted_by_what_became_of_them():
    """Class right, class wrong, unknown, void, known without a class."""
    import base64
    import io

    labels = np.array([[0, 1, -1, -2, -3]], np.int16)
    picture = state_picture(labels, np.zeros((1, 5), np.int16))
    content = base64.b64decode(picture.split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert [tuple(pixel) for pixel in pixels[0]] == list(STATE_COLOURS.values())


def test_examples_are_of_different_sequences_first():
    names = ["a_01", "a_02", "a_03", "b_01", "b_02"]
    run = SimpleNamespace(dataset=Named(names))
    rows = [{"index": index} for index in (1, 0, 2, 4, 3)]
    assert [row["index"] for row in _apart(run, rows)] == [1, 4, 0, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_parts_keep_whatever_may_be_picked(count):
    """Of any two parts, what is picked among all images is among what each would keep."""
    random = np.random.default_rng(count)
    names = [f"{sequence}_{frame:02}" for sequence in "abc" for frame in range(4)]
    run = SimpleNamespace(dataset=Named(names), scores={"entropy": None})
    for _ in range(30):
        figures = random.permutation(12), random.permutation(12)
        rows = [
            {"index": at, "scores": {"entropy": {"missed": int(m), "mean": int(d)}}}
            for at, (m, d) in enumerate(zip(*figures))
        ]
        missed = _apart(run, sorted(rows, key=lambda r: -r["scores"]["entropy"]["missed"]))[:count]
        taken = {row["index"] for row in missed}
        doubt = sorted(rows, key=lambda row: -row["scores"]["entropy"]["mean"])
        picked = taken | {r["index"] for r in [r for r in doubt if r["index"] not in taken][:count]}
        half = random.random(12) < 0.5
        parts = ([r for r in rows if half[r["index"]] == side] for side in (True, False))
        kept = set().union(*(telling(run, SimpleNamespace(images=part), count) for part in parts))
        assert picked <= kept
