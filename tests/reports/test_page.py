"""Every page has one frame: it stands alone, runs nothing, and escapes what it is given."""

import base64
import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from read_page import Page

import doubtmap
from doubtmap.reports.charts import Plane, drawing
from doubtmap.reports.page import framed, header, page_table, plain_table, stand_alone
from doubtmap.studies.analyses import write_analysis

EVIL = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


def policy(page):
    (found,) = [v for v in page.values("content") if v.startswith("default-src")]
    return dict(part.split(" ", 1) for part in found.split("; "))


def test_a_page_escapes_whatever_is_no_markup():
    table = page_table(EVIL, [["", EVIL], [EVIL, EVIL]], {EVIL})
    html = framed(EVIL, header(EVIL, EVIL, EVIL), table, version=EVIL).decode()
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert page.words.count("alert(1)") == 2 * 7  # title, command, heading, text; three cells
    assert 'class="taken"' in html


def test_a_page_without_a_script_may_run_none():
    page = Page(framed("A", Markup("<p>a</p>")).decode())
    assert "script" not in page.tags
    assert policy(page) == {
        "default-src": "'none'", "img-src": "data:", "style-src": "'unsafe-inline'",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_a_page_may_run_its_own_script_alone():
    script = "const a = 1 < 2 && '</b>';"
    html = framed("A", script=script).decode()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy(Page(html))["script-src"] == f"'sha256-{digest}'"
    assert re.search(r"<script>(.*)</script>", html, re.S)[1] == script


def test_no_other_module_writes_a_frame_or_a_style():
    """One frame and one style, so that a page more is dark, printable and safe as well.

    The viewer is no page of one file: its frame loads its own scripts.
    """
    folder = Path(doubtmap.__file__).parent
    sources = {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.suffix in (".py", ".html", ".js")
    }
    framing = [name for name, text in sources.items() if re.search("(?i)<!doctype|<style", text)]
    assert sorted(framing) == ["reports/page.py", "viewer/page/index.html"]


def test_the_style_serves_dark_screens_phones_and_paper_and_loads_nothing():
    html = framed("A").decode()
    for query in ("(prefers-color-scheme: dark)", "(max-width:", "print"):
        assert f"@media {query}" in html
    assert not re.search(r"url\(|@import|https?://", html)
    declared = set(re.findall(r"(--[\w]+):", html))
    assert set(re.findall(r"var\((--[\w]+)\)", html)) <= declared


def test_an_analysis_is_such_a_page(tmp_path):
    row = {"ece": 0.1, "miou": 0.5, "accuracy": None}
    row |= {"confidence_right": [0.2, 0.8], "confidence_wrong": [0.5, 0.5]}
    write_analysis("crop", {EVIL: row}, tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert set(policy(page)) == {
        *("default-src", "img-src", "style-src", "base-uri", "form-action")
    }
    assert not {"script", "img"} & set(page.tags)
    assert page.tags.count("svg") == 2
    assert [cell in page.words for cell in ("0.1000", "0.5000", "ECE against mIoU")] == [True] * 3


def test_a_plain_table_stands_in_columns():
    rows = [["", "long heading"], ["name", "1"], ["n", ""]]
    assert plain_table(rows).split("\n") == [
        "      long heading",
        "name             1",
        "n",
    ]


def test_rows_of_other_lengths_are_no_table():
    with pytest.raises(ValueError, match="zip"):
        plain_table([["a", "b"], ["c"]])


def test_a_drawing_that_stands_alone_is_xml_with_its_colours():
    plane = Plane("a", "b")
    text = stand_alone(drawing(9, 9, EVIL, plane.ground()), ".own { fill: none }").decode()
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["aria-label"] == EVIL
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert "prefers-color-scheme: dark" in style and ".own" in style
