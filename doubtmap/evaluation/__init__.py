"""Evaluation: a network, a data set and scores in; figures, `results.json` and a report out."""

from doubtmap.evaluation.evaluate import evaluate
from doubtmap.evaluation.repeats import evaluate_passes
from doubtmap.evaluation.report import write_evaluation, write_report
from doubtmap.evaluation.results import Example, Results, read_results, write_results
from doubtmap.evaluation.table import figures_csv, figures_table, figures_text, print_figures

__all__ = [
    "Example",
    "Results",
    "evaluate",
    "evaluate_passes",
    "figures_csv",
    "figures_table",
    "figures_text",
    "print_figures",
    "read_results",
    "write_evaluation",
    "write_report",
    "write_results",
]
