"""The docs say what the results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_tables_are_those_of_the_results():
    tables = runpy.run_path(str(ROOT / "scripts" / "write_tables.py"))
    text = (ROOT / "docs" / "main_job.md").read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
    assert tables["page"](text) == text
