"""Tables of paths as data sets, beside their files, elsewhere, and in buckets."""

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm

ROWS = "image,label\na.png,a_label.png\nb.png,b_label.png\n"


@pytest.fixture
def folder(tmp_path):
    drawn = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(drawn.integers(0, 256, (6, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
        label = drawn.integers(0, 2, (6, 8), np.uint8)
        Image.fromarray(label).save(tmp_path / f"{name}_label.png")
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    (tmp_path / "list.csv").write_text(ROWS)
    return tmp_path


def read(dataset):
    return [
        (sample.image.tolist(), sample.label.tolist())
        for sample in map(dataset.__getitem__, (0, 1))
    ]


def expected(folder):
    pairs = [(folder / f"{name}.png", folder / f"{name}_label.png") for name in "ab"]
    return read(dm.open_dataset(pairs, classes=["road", "sky"]))


def test_a_csv_list_beside_its_files(folder):
    found = dm.open_dataset(f"table:{folder / 'list.csv'}")
    assert (found.name, found.class_names, len(found)) == ("table:list.csv", ("road", "sky"), 2)
    assert read(found) == expected(folder)


def test_a_parquet_table_with_whole_paths(folder, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow reads Parquet")
    columns = {
        "n": [1, 2],
        "image": [str(folder / f"{name}.png") for name in "ab"],
        "mask": [str(folder / f"{name}_label.png") for name in "ab"],
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "classes.txt").write_text("road\nsky\n")
    parquet.write_table(pyarrow.table(columns), elsewhere / "t.parquet")
    assert read(dm.open_dataset(f"table:{elsewhere / 't.parquet'}")) == expected(folder)


def test_a_table_and_its_files_in_a_bucket(folder):
    fsspec = pytest.importorskip("fsspec", reason="fsspec reads from afar")
    bucket = fsspec.filesystem("memory")
    for path in folder.iterdir():
        bucket.pipe_file(f"/tables/{path.name}", path.read_bytes())
    assert read(dm.open_dataset("table:memory://tables/list.csv")) == expected(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("image,other\na.png,1\n", "expected rows with the columns image and label, got 1 rows"),
        ("image,label\n", "got 0 rows of image, label"),
        ("", "got 0 rows of nothing"),
        ("image,label\na.png\n", r"expected CSV in UTF-8, .* \(row 2 has 1 cells, the header 2\)"),
        (
            "image,label\n\udcff,b\n",
            "expected CSV in UTF-8, got something else .*codec can't decode",
        ),
    ],
)
def test_what_is_no_table_is_a_sentence(folder, content, told):
    (folder / "list.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(dm.DataError, match=told):
        dm.open_dataset(f"table:{folder / 'list.csv'}")


def test_a_table_that_is_not_there_or_without_classes(folder):
    with pytest.raises(dm.DataError, match="cannot be read"):
        dm.open_dataset(f"table:{folder / 'other.csv'}")
    with pytest.raises(dm.DataError, match=r"expected a table of paths, .* got \.png\. Save it as"):
        dm.open_dataset(f"table:{folder / 'a.png'}")
    pytest.importorskip("pyarrow", reason="pyarrow reads Parquet")
    (folder / "list.parquet").write_text("image,label\n")
    with pytest.raises(dm.DataError, match="expected Parquet, got something else") as told:
        dm.open_dataset(f"table:{folder / 'list.parquet'}")
    assert "magic" not in str(told.value)
    (folder / "classes.txt").unlink()
    with pytest.raises(dm.UsageError, match=r"Write them into .*classes\.txt"):
        dm.open_dataset(f"table:{folder / 'list.csv'}")
