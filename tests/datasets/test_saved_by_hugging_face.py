"""Folders that `save_to_disk` of Hugging Face's datasets writes: Arrow streams, named in JSON."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from doubtmap.datasets import open_dataset
from doubtmap.datasets.checking import check
from doubtmap.errors import DataError, UsageError

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def picture(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def save(place, count, files=1):
    """What `save_to_disk` leaves: rows in one or several files."""
    place.mkdir(parents=True)
    generator = np.random.default_rng(count)
    images = generator.integers(0, 256, (count, 6, 9, 3), np.uint8)
    masks = generator.integers(0, 2, (count, 6, 9), np.uint8)
    names = [f"data-{k:05d}-of-{files:05d}.arrow" for k in range(files)]
    for name, part in zip(names, np.array_split(np.arange(count), files)):
        rows = {"image": [picture(images[k]) for k in part]}
        table = pa.table(rows | {"label": [picture(masks[k]) for k in part]})
        file = pa.OSFile(str(place / name), "wb")
        with file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names]}))
    return images, masks


def test_images_and_masks_are_those_saved(tmp_path):
    images, masks = save(tmp_path / "one", 5, files=2)
    opened = open_dataset(f"folder:{tmp_path / 'one'}", classes=["road", "car"])
    assert opened.name == "one" and len(opened) == 5
    for k in range(5):
        assert (opened[k].image.permute(1, 2, 0).numpy() == images[k]).all()
        assert (opened[k].label.numpy() == masks[k]).all()


def test_splits_and_class_names(tmp_path):
    save(tmp_path / "dict/train", 3)
    save(tmp_path / "dict/validation", 2)
    (tmp_path / "dict/dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    with pytest.raises(UsageError, match=r"needs a split.*Splits there: train, validation"):
        open_dataset(f"folder:{tmp_path / 'dict'}")
    with pytest.raises(UsageError, match=r"expected class names.*classes\.txt"):
        open_dataset(f"folder:{tmp_path / 'dict'}:train")
    (tmp_path / "dict/classes.txt").write_text("road\ncar\n")
    assert open_dataset(f"folder:{tmp_path / 'dict'}:train").class_names == ("road", "car")
    said = check(str(tmp_path / "dict"), ["road"])
    assert said.startswith("data       dict:validation, 2 images") and "lacks it: void" in said


def test_a_damaged_folder(tmp_path):
    save(tmp_path / "one", 2)
    (tmp_path / "one/data-00000-of-00001.arrow").write_bytes(b"none")
    with pytest.raises(DataError, match="expected a data set saved by save_to_disk"):
        open_dataset(f"folder:{tmp_path / 'one'}", classes=["road", "car"])
