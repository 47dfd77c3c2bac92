"""Results made visible: tables, figures, maps as files, and one HTML report."""

from doubtmap.engine.results import Example, Results
from doubtmap.reports.colours import class_colours, colour_labels
from doubtmap.reports.locations import write_locations
from doubtmap.reports.maps import MapFormat, read_map, write_classes, write_map
from doubtmap.reports.overlay import overlay, write_overlay
from doubtmap.reports.panel import panel
from doubtmap.reports.report import write_evaluation, write_report
from doubtmap.reports.results_json import read_results, write_results
from doubtmap.reports.scoring import write_scores
from doubtmap.reports.tables import figures_csv, figures_table, figures_text, print_figures

__all__ = [
    "Example",
    "MapFormat",
    "Results",
    "class_colours",
    "colour_labels",
    "figures_csv",
    "figures_table",
    "figures_text",
    "overlay",
    "panel",
    "print_figures",
    "read_map",
    "read_results",
    "write_classes",
    "write_evaluation",
    "write_locations",
    "write_map",
    "write_overlay",
    "write_report",
    "write_results",
    "write_scores",
]
