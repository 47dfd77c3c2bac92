"""The page on calibration says what the results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tables_are_those_of_the_results():
    tables = runpy.run_path(str(ROOT / "scripts" / "write_calibration_tables.py"))
    text = (ROOT / "docs" / "calibration.md").read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
    assert tables["page"](text) == text
