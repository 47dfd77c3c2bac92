"""`results.json` is strict JSON and comes back as it was."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_results import figures

from doubtmap.errors import DataError
from doubtmap.evaluation.results import Results, read_results, write_results

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_figures_come_back(tmp_path):
    write_results(Results(figures()), tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == figures()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(st.text().filter(lambda key: key != "notes"), values, max_size=4))
def test_whatever_is_written_is_strict_json(tmp_path, anything):
    def refuse(constant):
        raise AssertionError(constant)

    write_results(Results(anything), tmp_path / "r.json")
    json.loads((tmp_path / "r.json").read_bytes(), parse_constant=refuse)
    read_results(tmp_path / "r.json")


def test_no_number_becomes_null_with_a_note(tmp_path):
    mine = {"scores": {"entropy": {"wrong": {"auprc": float("nan")}}}, "notes": ["first"]}
    write_results(Results(mine), tmp_path / "r.json")
    back = read_results(tmp_path / "r.json")
    assert back["scores"]["entropy"]["wrong"]["auprc"] is None
    assert back["notes"] == ["first", "scores.entropy.wrong.auprc: no figure, its value was nan"]
    assert mine["notes"] == ["first"]


def test_numpy_numbers_become_plain(tmp_path):
    mine = {"a": np.float32(0.5), "b": np.arange(2), "c": (np.int64(3), np.bool_(True))}
    write_results(Results(mine), tmp_path / "r.json")
    assert read_results(tmp_path / "r.json") == {"a": 0.5, "b": [0, 1], "c": [3, True]}


def test_what_json_cannot_hold_is_a_data_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    write_results(Results({"a": 1}), path)
    with pytest.raises(DataError, match=r"b\.c: expected a number"):
        write_results(Results({"b": {"c": object()}}), path)
    assert read_results(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', "[1]", "3", "\udcff", "[" * 100_000])
def test_a_file_that_is_no_results_is_a_data_error(tmp_path, text):
    (tmp_path / "r.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError):
        read_results(tmp_path / "r.json")


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_results(tmp_path / "none.json")
