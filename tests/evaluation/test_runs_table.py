"""One table of several runs: what is bold, what is escaped, what is refused."""

import csv
import json
import re

import pytest
from made_up_results import SCORES, figures, figures_by_class

import doubtmap as dm
from doubtmap.evaluation.results import Results
from doubtmap.evaluation.table import runs_table


def run_of(name, auprc, miou=0.5):
    wrong = {"auprc": auprc, "auprc_interval": [auprc - 0.1, auprc + 0.1], "fpr95": 1 - auprc}
    return {"segmentation": {"miou": miou}, "scores": {name: {"wrong": wrong}}}


RUNS = {"first": run_of("entropy", 0.5), "second_run": run_of("a|b", 0.75, 0.25)}


def test_the_best_of_each_column_is_bold_in_its_direction():
    lines = runs_table(RUNS).splitlines()
    assert lines[0].startswith("| run | score | wrong AUPRC | wrong FPR95 |")
    assert "**0.750** (0.650 \N{EN DASH} 0.850)" in lines[3]
    assert "**0.250**" in lines[3]  # the lowest false-positive rate
    assert "**" not in lines[2]


def test_a_single_row_has_no_best():
    assert "**" not in runs_table({"only": RUNS["first"]})
    assert "run" not in runs_table({"only": RUNS["first"]}).splitlines()[0]


def test_latex_is_escaped_and_whole():
    text = runs_table(RUNS, "latex")
    assert "second\\_run" in text
    assert "\\textbf{0.750} {\\scriptsize [0.650 -- 0.850]}" in text
    assert text.count("\\\\") == 3
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1]
    assert all(line.count("&") == len(columns) - 1 for line in text.splitlines() if "&" in line)
    hostile = runs_table({"a\\b{$%#~^&": RUNS["first"], "c": RUNS["first"]}, "latex")
    assert "a\\textbackslash{}b\\{\\$\\%\\#\\textasciitilde{}\\textasciicircum{}\\&" in hostile


def test_html_and_markdown_are_escaped():
    runs = {"<b>": run_of("<i>", 0.5), "=x": run_of("y", 0.2)}
    assert "<i>" not in runs_table(runs, "html")
    assert "&lt;i&gt;" in runs_table(runs, "html")
    assert "a\\|b" in runs_table(RUNS)


def test_csv_has_all_digits_and_no_formulas():
    runs = {"=run": run_of("entropy", 1 / 3)}
    (row,) = csv.DictReader(runs_table(runs, "csv").splitlines())
    assert row["run"] == "'=run"
    assert float(row["wrong.auprc"]) == 1 / 3


def test_figures_are_chosen_and_those_of_a_run_are_of_all_its_scores():
    text = runs_table(RUNS, "csv", ["segmentation.miou"])
    assert [line.split(",")[2] for line in text.splitlines()] == [
        "segmentation.miou",
        "0.5",
        "0.25",
    ]
    for wrong in ("miou", "segmentation", "nothing.miou", "wrong.nothing"):
        with pytest.raises(dm.UsageError, match=r"such as \w+.auprc"):
            runs_table(RUNS, "csv", [wrong])
    with pytest.raises(dm.UsageError, match="expected a style"):
        runs_table(RUNS, "tsv")


def test_results_say_themselves_and_become_tables(tmp_path):
    results = Results(figures())
    assert repr(results).startswith("Results(on synthetic:3, images 3, scores 3 (max_softmax,")
    assert "\n" not in repr(results)
    assert results.table("csv").count("\n") == 1 + len(SCORES)
    html = results._repr_html_()
    assert "<strong>" in html and "separates unknown objects best" in html
    results.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("results.json", "curves.json", "report.html"),
    }


def test_results_become_a_data_frame():
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = Results(figures()).to_pandas()
    assert list(frame.index) == list(SCORES)
    assert frame.loc[SCORES[1], "unknown.auprc"] == 0.5
    assert frame["unknown.f1"].isna().all()
    assert "unknown.auprc_bounds" not in frame
    frame = Results(figures_by_class()).to_pandas()
    assert frame.loc[SCORES[0], "unknown.<b>dog.auprc"] == 0.2
    assert frame["unknown.cone.auprc"].isna().all()


def test_the_command_puts_folders_into_one_table(run, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(figures()))
    code, out, _ = run("table", tmp_path / "a", tmp_path / "b", "--style", "csv")
    assert code == 0
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["run"] for row in rows] == ["a"] * 3 + ["b"] * 3
    code, _, error = run("table", tmp_path / "c")
    assert code == 1 and "cannot be read" in error
