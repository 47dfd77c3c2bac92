"""Tables as Parquet: the rows of the JSON or the CSV, to the last digit."""

import csv
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from doubtmap.errors import UsageError
from doubtmap.files.parquet import write_parquet

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a", "=b"):
        pixels = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def flat(row, start=""):
    found = {}
    for name, value in row.items():
        inner = flat(value, f"{start}{name}.") if isinstance(value, dict) else {start + name: value}
        found |= inner
    return found


def csv_rows(path):
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"image": st.text(max_size=5), "number": st.integers(-(2**60), 2**60)},
            optional={
                "x": st.floats(allow_nan=False),
                "in": st.dictionaries(
                    st.sampled_from("ab"), st.none() | st.floats(allow_nan=False)
                ),
            },
        ),
        min_size=1,
        max_size=6,
    )
)
def test_rows_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("p") / "t.parquet"
    write_parquet(path, rows)
    for found, row in zip(parquet.read_table(path).to_pylist(), rows, strict=True):
        wanted = {
            k: v.encode("utf-8", "backslashreplace").decode() if isinstance(v, str) else v
            for k, v in flat(row).items()
        }
        assert {name: value for name, value in found.items() if value is not None} == {
            name: value for name, value in wanted.items() if value is not None
        }


def test_an_evaluation_and_its_merge_write_the_rows_of_the_json(run, tmp_path):
    words = ["evaluate", "demo", "synthetic:2", "--unknown", "rest", "--scores", "entropy,energy"]
    assert run(*words, "--out", tmp_path / "one", "--parquet")[0] == 0
    about = json.loads((tmp_path / "one/results.json").read_text())
    table = parquet.read_table(tmp_path / "one/images.parquet").to_pylist()
    assert len(table) == 2 and "scores.entropy.mean" in table[0]
    for found, row in zip(table, about["images"], strict=True):
        wanted = flat(row)
        assert found == {name: wanted.get(name) for name in found} and wanted.keys() <= found.keys()
    assert run(*words, "--out", tmp_path / "part", "--part", "1/1")[0] == 0
    assert run("merge", tmp_path / "whole", tmp_path / "part", "--parquet")[0] == 0
    whole = parquet.read_table(tmp_path / "whole/images.parquet").to_pylist()
    assert whole == table
    code, _, error = run(*words, "--out", tmp_path / "x", "--part", "1/1", "--parquet")
    assert code == 2 and "Give it to doubtmap merge" in error


def test_score_writes_the_rows_of_the_csv(run, images, tmp_path):
    words = ["score", "demo", images, "--scores", "entropy", "--out", tmp_path / "out"]
    assert run(*words, "--parquet")[0] == 0
    table = parquet.read_table(tmp_path / "out/images.parquet").to_pylist()
    rows = csv_rows(tmp_path / "out/images.csv")
    for found, row in zip(table, rows, strict=True):
        assert found.pop("image") == row.pop("image")
        assert {n: v for n, v in found.items() if v is not None} == {
            n: float(v) for n, v in row.items() if v
        }


def test_objects_write_the_rows_of_the_csv(run, images, tmp_path):
    out = tmp_path / "out"
    words = ["objects", "demo", images, "--scores", "entropy", "--threshold", "0.5", "--out", out]
    assert run(*words, "--parquet", "--smallest", "1")[0] == 0
    table = parquet.read_table(out / "objects.parquet").to_pylist()
    rows = csv_rows(out / "objects.csv")
    assert rows and table[0].keys() == rows[0].keys()
    assert run(*words)[0] == 0 and not (out / "objects.parquet").exists()
    for found, row in zip(table, rows, strict=True):
        assert {name: "" if value is None else str(value) for name, value in found.items()} == row


def test_without_pyarrow_the_line_to_type_is_said(run, images, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match=r'pip install "doubtmap\[table\]"'):
        write_parquet(tmp_path / "x", [])
    for words in (
        ["score", "demo", images],
        ["objects", "demo", images, "--threshold", "0"],
        ["evaluate", "demo", "synthetic:1"],
    ):
        code, _, error = run(*words, "--parquet", "--out", tmp_path / "no")
        assert code == 2 and "expected pyarrow" in error and not (tmp_path / "no").exists()
