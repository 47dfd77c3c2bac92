"""The report is one page that stands alone, tells the truth and runs nobody's code."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from made_up_results import CLASSES, SCORES, curves, example, figures, figures_by_class, results
from read_page import Page

from doubtmap.evaluation.report import write_report
from doubtmap.evaluation.report_tables import difference_tables
from doubtmap.evaluation.results import Results
from doubtmap.reports.digits import MISSING


def render(tmp_path, found):
    write_report(found, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text("utf-8")


@pytest.fixture
def html(tmp_path):
    return render(tmp_path, results())


def test_the_page_is_well_formed_and_has_all_sections(html):
    page = Page(html)
    sections = [value for tag, key, value in page.attributes if (tag, key) == ("section", "id")]
    assert sections == [
        "examples", "unknown", "wrong", "differences", "segmentation", "calibration", "curves",
        "conditions",
    ]  # fmt: skip
    links = [v for tag, key, v in page.attributes if (tag, key) == ("a", "href")]
    assert links == [f"#{name}" for name in sections]
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_each_of_several_unknown_classes_has_its_rows(tmp_path, html):
    assert "Each unknown class" not in html
    page = Page(render(tmp_path, replace(results(), figures=figures_by_class())))
    assert "unknown-classes" in page.values("id")
    kinds = [f"{name} {score}" for name in ("<b>dog", "cone") for score in SCORES]
    assert page.values("data-filter") == kinds
    assert "b" not in page.tags
    assert "unknown.by_class.cone: no pixel is labelled so" in page.values("title")


def test_means_by_predicted_class_say_what_they_were_held_against(html):
    page = Page(html)
    assert "means-h" in page.values("id") and "mIoU of what is left" in page.words
    assert (
        "max_softmax is off by 0.0417 in the mean over classes from teachers: spread." in page.words
    )
    titles = [v for tag, key, v in page.attributes if (tag, key) == ("td", "title")]
    assert titles.count("no pixel is taken for it") == len(SCORES)
    assert {"0.1", "1.1", "2.1", "0.175", "0.675", "1.175"} <= {*titles}


def test_the_page_needs_nothing_from_anywhere(html):
    page = Page(html)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert ("script", "src") not in {(tag, key) for tag, key, _ in page.attributes}
    assert "link" not in page.tags
    assert not re.search(r"url\(|@import|https?://", html)


def test_the_page_says_the_figures_and_their_reading(html):
    words = Page(html).words
    for text in (
        *("demo on synthetic:3", "0.600", f"0.500 {MISSING} 0.700", "no clear difference"),
        *("street-2", "doubtmap evaluate demo synthetic:3", "1 min 1 s", "FPR95"),
    ):
        assert text in words
    assert (
        f"{SCORES[2]} separates unknown objects best (AUPRC 0.600 [0.500 {MISSING} 0.700]" in words
    )
    assert f"no clear difference from {SCORES[1]}" in words
    assert "max_softmax finds wrong pixels best (AUPRC 0.600)" in words


def test_a_missing_figure_is_a_dash_with_its_reason(html):
    titles = [v for tag, key, v in Page(html).attributes if (tag, key) == ("td", "title")]
    assert titles.count("unknown.f1: no component is large enough") == len(SCORES)
    assert '<span class="missing" aria-label="missing: unknown.f1' in html


def test_bounds_stand_in_the_tooltip(html):
    assert any("exact value within [0.39, 0.41]" in v for v in Page(html).values("title"))


def test_curves_have_hover_titles_and_one_style_for_a_score(html):
    page = Page(html)
    for name in SCORES:
        assert f"{name}: AUPRC" in page.words
    groups = re.findall(r'<g class="curve hue(\d) dash(\d)[^>]*data-style="(\d+)"', html)
    assert len(groups) == 8 * len(SCORES)
    assert all(hue == style for hue, _, style in groups)


def test_names_and_notes_cannot_inject_anything(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{ 7*7 }}"
    mine = json.loads(json.dumps(figures()).replace("entropy", "ENTROPY"))
    mine["scores"][evil] = mine["scores"].pop("ENTROPY")
    mine["segmentation"]["iou"] = {evil: 0.5}
    mine |= {"notes": [evil, f"scores.{evil}.unknown.f1"], "command": evil, "doubtmap": evil}
    mine["model"] = {"source": evil, evil: evil}
    mine["data"]["name"] = evil
    mine["differences"][0] |= {"figure": evil, "scores": [evil, evil]}
    lines = {kind: {evil: rows.get("entropy")} for kind, rows in curves().items()}
    shown = replace(example(evil, evil), detail=evil, score=evil)
    html = render(tmp_path, Results(mine, lines, (evil, "b", "c"), [shown]))
    page = Page(html)
    assert page.tags.count("script") == 1
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert "{{ 7*7 }}" in page.words
    assert "49" not in re.findall(r"`(\d+)", page.words)


def test_only_the_pages_own_script_may_run(html):
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(v for v in Page(html).values("content") if v.startswith("default-src"))
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("missing", [*figures(), None])
def test_any_section_may_be_missing_or_null(tmp_path, missing):
    mine = figures()
    if missing is None:
        mine = {}
    else:
        del mine[missing]
        Page(render(tmp_path, Results(mine, curves(), CLASSES, [example()])))
        mine[missing] = None
    Page(render(tmp_path, Results(mine, curves(), CLASSES, [example()])))


@pytest.mark.parametrize("kind", curves())
@pytest.mark.parametrize("value", [None, {}, {"entropy": {}}, {"entropy": None}])
def test_any_curve_may_be_missing_or_empty(tmp_path, kind, value):
    Page(render(tmp_path, Results(figures(), curves() | {kind: value})))


def test_nothing_at_all_is_still_a_page(tmp_path):
    page = Page(render(tmp_path, Results({})))
    assert "No figure could be computed" in page.words


def test_figures_that_are_not_finite_do_not_break_the_page(tmp_path):
    mine = figures()
    mine["scores"]["entropy"]["unknown"] |= {
        "auprc": float("nan"), "auprc_bounds": [None, 1], "fpr95": float("inf"),
    }  # fmt: skip
    lines = curves()
    lines["roc"]["entropy"]["tpr"][3] = float("nan")
    page = Page(render(tmp_path, Results(mine, lines, CLASSES)))
    assert "nan" not in [word.lower() for word in page.words.split()[:80]]


def test_unknown_only_data_have_no_wrong_section(tmp_path):
    mine = figures()
    for groups in mine["scores"].values():
        groups["wrong"] = None
    mine["segmentation"] = None
    ids = Page(render(tmp_path, Results(mine))).values("id")
    assert "unknown" in ids
    assert "wrong" not in ids


def test_many_scores_and_long_curves_stay_small(tmp_path):
    x = np.linspace(0, 1, 20_000)
    lines = {"roc": {f"score{n}": {"fpr": x, "tpr": x ** (1 / (n + 1))} for n in range(13)}}
    html = render(tmp_path, Results(figures(), lines))
    Page(html)
    assert len(html) < 120_000


def test_differences_are_told_from_the_best_score(tmp_path):
    mine = figures()
    first, second, third = SCORES
    mine["differences"] = [
        {"figure": "unknown.auprc", "scores": pair, "difference": d, "interval": [d - 0.05, d]}
        for pair, d in (([first, second], -0.1), ([first, third], -0.2), ([second, third], -0.1))
    ]
    turned, kept = difference_tables(mine)[0].leading, difference_tables(mine)[0].others
    assert [(row.difference.first, row.difference.second) for row in turned] == [
        (third, first),
        (third, second),
    ]
    assert [row.difference.value for row in turned] == [0.2, 0.1]
    assert turned[0].difference.ends == pytest.approx((0.2, 0.25))
    assert {row.verdict for row in turned} == {f"{third} is better"}
    assert [row.verdict for row in kept] == [f"{second} is better"]
    assert "Other pairs (1)" in Page(render(tmp_path, Results(mine))).words


@pytest.mark.parametrize("row", [None, 3, {}, {"figure": 1}, {"scores": ["a"], "difference": 1}])
def test_a_difference_that_is_none_is_left_out(row):
    assert difference_tables({"differences": [row]}) == []


def test_figures_per_image_wait_behind_the_pooled_ones(tmp_path):
    mine = figures()
    mine["scores"]["entropy"]["unknown"]["auprc_per_image"] = 0.123
    html = render(tmp_path, Results(mine))
    assert html.index("<details>") < html.index("0.123")
    assert "AUPRC, per image" in Page(html).words


@pytest.mark.parametrize(
    ("source", "title"),
    [("../models/camvid9/", "camvid9"), ("a/x.onnx,b/y.onnx", "x.onnx, y.onnx"), ("demo", "demo")],
)
def test_the_title_names_the_model_without_its_path(tmp_path, source, title):
    html = render(tmp_path, Results(figures() | {"model": {"source": source}}))
    assert f"<title>{title} on synthetic:3: doubtmap</title>" in html


def part_of(html, start, end):
    return html[html.index(start) : html.index(end)]


def test_claims_to_be_a_probability_have_a_table_and_diagrams_of_their_own(html):
    words = Page(part_of(html, '<h3 id="claims-h"', '</section>\n<section id="curves"')).words
    for text in (*SCORES[:2], "0.0321", f"0.0310 {MISSING} 0.0330", "0.0671", "in 15 bins"):
        assert text in words
    assert SCORES[2] not in words
    table = part_of(html, '<section id="wrong"', '<section id="differences"')
    assert "ECE" not in table and "Brier" not in table


def test_a_diagram_that_is_that_of_the_confidence_is_not_drawn_again(tmp_path, html):
    assert html.count('aria-label="Reliability diagram') == 2
    assert f"The diagram of {SCORES[0]} is the one above." in Page(html).words
    assert f"Reliability of {SCORES[1]}: accuracy" in Page(html).words
    other = curves() | {"reliability": None}
    html = render(tmp_path, Results(figures(), other))
    assert html.count('aria-label="Reliability diagram') == 2
    assert "is the one above" not in html


def test_without_such_scores_there_is_no_such_part(tmp_path):
    mine = figures()
    for groups in mine["scores"].values():
        for key in ("ece", "brier"):
            groups["wrong"].pop(key, None)
    lines = curves() | {"wrong_reliability": {}}
    assert "claims-h" not in render(tmp_path, Results(mine, lines))
    null = figures()
    null["scores"] = {"wrong": {"wrong": {"ece": None, "brier": None}}}
    assert "claims-h" not in render(tmp_path, Results(null, lines))


@pytest.mark.parametrize("missing", ["confidence", "accuracy", "share"])
@pytest.mark.parametrize("value", [None, [], [0.5], np.array([0.1, 0.2, 0.3])])
def test_diagrams_that_are_not_whole_do_not_break_the_page(tmp_path, missing, value):
    lines = curves()
    lines["wrong_reliability"]["entropy"][missing] = value
    Page(render(tmp_path, Results(figures(), lines)))
