"""Doubt maps and class maps come back from files as they went in."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from doubtmap.errors import DataError, UsageError
from doubtmap.reports import class_colours, read_map, write_classes, write_map

FORMATS = ("png", "npy", "tiff", "safetensors")
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
maps = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=finite)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("format", FORMATS)
@SETTINGS
@given(doubt=maps)
def test_a_map_comes_back(tmp_path, format, doubt):
    path = tmp_path / "map"
    write_map(path, doubt, format, "entropy")
    back = read_map(path)
    assert back.dtype == np.float32
    assert back.shape == doubt.shape
    if format == "png":
        half_step = (float(doubt.max()) - float(doubt.min())) / 65535 / 2
        rounding = float(np.abs(doubt).max()) * 2**-23 + 2**-149
        error = np.abs(back.astype(np.float64) - doubt.astype(np.float64))
        assert (error <= half_step * (1 + 1e-9) + rounding).all()
    else:
        np.testing.assert_array_equal(back, doubt)


@pytest.mark.parametrize("format", FORMATS)
def test_a_constant_map_comes_back_exactly(tmp_path, format):
    write_map(tmp_path / "map", np.full((2, 3), 0.3, np.float32), format, "margin")
    np.testing.assert_array_equal(read_map(tmp_path / "map"), np.float32(0.3))


@pytest.mark.parametrize("name", ["entropy", "Zweifel, größer", "сомнение"])
def test_the_png_says_its_scale(tmp_path, name):
    doubt = np.array([[-1.5, 0.0], [0.25, 2.5]], np.float32)
    write_map(tmp_path / "map.png", doubt, "png", name)
    with Image.open(tmp_path / "map.png") as image:
        pixels = np.asarray(image)
        text = image.text
    assert pixels.dtype == np.uint16
    assert text["doubtmap:score"] == name
    low, high = float(text["doubtmap:minimum"]), float(text["doubtmap:maximum"])
    assert (low, high) == (-1.5, 2.5)
    np.testing.assert_allclose(low + pixels / 65535 * (high - low), doubt, atol=4 / 65535 / 2)


def test_the_extremes_of_a_png_are_exact(tmp_path):
    doubt = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    write_map(tmp_path / "map.png", doubt, "png", "entropy")
    back = read_map(tmp_path / "map.png")
    assert back.min() == doubt.min()
    assert back.max() == doubt.max()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("format", FORMATS)
def test_a_map_that_is_not_finite_is_refused_and_leaves_no_file(tmp_path, format, value):
    doubt = np.zeros((2, 2), np.float32)
    doubt[0, 1] = value
    with pytest.raises(DataError, match="finite"):
        write_map(tmp_path / "map", doubt, format, "entropy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), (0, 4)])
def test_a_map_of_another_shape_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match=r"\(H, W\)"):
        write_map(tmp_path / "map", np.zeros(shape, np.float32), "npy", "entropy")


def test_an_unknown_format_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="png, npy, tiff, safetensors"):
        write_map(tmp_path / "map", np.zeros((2, 2), np.float32), "bmp", "entropy")


@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0junk", b"\x89PNG\r\n\x1a\njunk", b"\x93NUMPYjunk", b"{}", b"\xff" * 40],
)
def test_a_file_that_is_no_map_is_a_data_error(tmp_path, content):
    (tmp_path / "map").write_bytes(content)
    with pytest.raises(DataError):
        read_map(tmp_path / "map")


def test_a_picture_without_a_scale_is_a_data_error(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "map.png")
    with pytest.raises(DataError, match="doubtmap:minimum"):
        read_map(tmp_path / "map.png")


def test_a_pickle_is_never_opened(tmp_path):
    np.save(tmp_path / "map.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        read_map(tmp_path / "map.npy")


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_map(tmp_path / "none.png")


def test_an_older_file_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "map.npy"
    for value in (1.0, 2.0):
        write_map(path, np.full((2, 2), value, np.float32), "npy", "entropy")
    assert read_map(path)[0, 0] == 2
    assert [p.name for p in path.parent.iterdir()] == ["map.npy"]


def test_a_place_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_map(tmp_path / "file" / "map", np.zeros((2, 2), np.float32), "npy", "entropy")


@SETTINGS
@given(
    classes=arrays(
        np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 65535)
    )
)
def test_classes_are_the_pixels_of_the_file(tmp_path, classes):
    write_classes(tmp_path / "classes.png", classes)
    with Image.open(tmp_path / "classes.png") as image:
        assert image.mode == ("P" if classes.max() < 256 else "I;16")
        np.testing.assert_array_equal(np.asarray(image), classes)


def test_classes_carry_names_and_colours(tmp_path):
    names = ["sky", "größe", "x\u2028y"]
    write_classes(tmp_path / "classes.png", np.array([[0, 2]]), names)
    with Image.open(tmp_path / "classes.png") as image:
        assert json.loads(image.text["doubtmap:classes"]) == names
        shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown[0], class_colours(3, names)[[0, 2]])


@pytest.mark.parametrize("classes", [np.array([[-1]]), np.array([[65536]]), np.array([[0.5]])])
def test_what_is_no_class_is_refused(tmp_path, classes):
    with pytest.raises(DataError):
        write_classes(tmp_path / "classes.png", classes)
