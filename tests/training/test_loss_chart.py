"""The curves of a training, as they are in its log."""

import re
from xml.etree import ElementTree

import numpy as np

from doubtmap.training.pictures import draw_log, loss_chart, points

LOG = """epoch,step,rate,loss,divergence,miou,seconds
1,10,0.1,2.0,0.01,,3
2,20,0.05,1.0,0.02,0.4,3
3,30,0.01,1.5,nan,0.5,3
"""


def test_every_column_of_figures_has_a_plot_and_no_other():
    text = loss_chart(LOG)
    ElementTree.fromstring(text)
    shown = re.findall(r'aria-label="(\w+) by epoch"', text)
    assert shown == ["rate", "loss", "divergence", "miou"]


def test_the_curve_is_where_the_figures_are():
    """Three equidistant epochs; the smallest loss lowest, the largest highest."""
    text = loss_chart(LOG)
    plot = text[text.index('aria-label="loss by epoch"') :]
    path = re.search(r'class="line" d="M([^"]+)"', plot)[1]
    at = np.array([pair.split() for pair in path.split("L")], float)
    assert len(at) == 3 and np.isclose(np.diff(at[:, 0])[0], np.diff(at[:, 0])[1], atol=0.11)
    assert at[0, 1] < at[2, 1] < at[1, 1]
    height = at[1, 1] - at[0, 1]
    assert np.isclose(at[2, 1] - at[0, 1], height / 2, atol=0.11)


def test_cells_without_a_figure_are_left_out():
    cells = (("1", ""), ("2", "inf"), ("3", "4"))
    rows = [{"epoch": epoch, "loss": loss} for epoch, loss in cells]
    assert points(rows, "epoch", "loss").tolist() == [[3.0, 4.0]]


def test_one_epoch_and_a_constant_are_drawn():
    text = loss_chart("epoch,loss\n1,0.0\n")
    assert 'aria-label="loss by epoch"' in text and "nan" not in text


def test_the_drawing_lies_beside_the_log(tmp_path):
    assert draw_log(tmp_path / "log.csv") is None
    (tmp_path / "log.csv").write_text(LOG)
    assert draw_log(tmp_path / "log.csv") == tmp_path / "log.svg"
    assert (tmp_path / "log.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
