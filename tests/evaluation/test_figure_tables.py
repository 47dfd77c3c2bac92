"""The headline table says the same in the terminal, as text and as CSV."""

import csv
import io

from made_up_results import SCORES, figures, figures_by_class
from rich.console import Console

from doubtmap.evaluation.table import figures_csv, figures_table, figures_text, runs_table


def printed(figures):
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    console.print(figures_table(figures))
    return console.file.getvalue()


def test_the_table_has_the_headline_figures():
    shown = printed(figures())
    for text in (*SCORES, "AUPRC ↑", "FPR95 ↓", "0.600", "mIoU 0.610", "ECE 0.0300"):
        assert text in shown


def test_the_best_figure_is_bold():
    table = figures_table(figures())
    column = list(table.columns[1].cells)
    assert [cell.style for cell in column] == ["", "", "bold"]


def test_names_are_no_markup_and_no_control_characters():
    evil = "[red]x[/red]\x1b[2J\n"
    mine = figures()
    mine["scores"] = {evil: mine["scores"]["entropy"]}
    shown = printed(mine)
    assert "[red]x[/red]" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in figures_text(mine)


def test_a_group_without_figures_is_left_out():
    mine = figures()
    for groups in mine["scores"].values():
        groups["unknown"] = None
    assert "unknown" not in printed(mine)
    assert "unknown" not in figures_text(mine)


def test_text_and_csv_have_a_row_for_each_score():
    text = figures_text(figures())
    assert [line.split()[0] for line in text.splitlines()[1:4]] == list(SCORES)
    rows = list(csv.DictReader(io.StringIO(figures_csv(figures()))))
    assert [row["score"] for row in rows] == list(SCORES)
    assert float(rows[1]["unknown.auprc"]) == figures()["scores"]["entropy"]["unknown"]["auprc"]
    assert rows[1]["unknown.f1"] == ""
    assert [row["wrong.ece"] for row in rows] == ["0.0321", "0.0321", ""]


def test_csv_and_tables_have_the_figures_of_each_unknown_class():
    found = figures_by_class()
    rows = list(csv.DictReader(io.StringIO(figures_csv(found))))
    assert [row["unknown.<b>dog.auprc"] for row in rows] == ["0.2", "0.30000000000000004", "0.4"]
    assert [row["unknown.cone.auprc"] for row in rows] == [""] * len(SCORES)
    assert not any("by_class" in name for name in rows[0])
    line = runs_table({"": found}, "markdown", ["unknown.<b>dog.auprc"]).splitlines()
    assert r"unknown \<b\>dog AUPRC" in line[0]
    assert "**0.400** (" in line[-1] and "**" not in line[-2]


def test_no_figures_are_no_error():
    assert printed({}).strip() == "score"
    assert figures_csv({}) == "score\n"
    assert figures_text({}).startswith("score")
