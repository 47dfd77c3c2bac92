"""The docs say what the results say."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLES = runpy.run_path(str(ROOT / "scripts" / "tables.py"))


@pytest.mark.parametrize("name", TABLES["PAGES"])
def test_tables_are_those_of_the_results(name):
    text = (ROOT / "docs" / "measured" / name).read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
    assert TABLES["page"](name, text) == text
