"""Colours keep their promises; overlays and panels show what they should."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from made_up_results import CLASSES, example
from PIL import Image

from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID
from doubtmap.errors import DataError, UsageError
from doubtmap.reports import class_colours, colour_labels, overlay, write_overlay
from doubtmap.reports.colours import CODE_COLOURS, _oklab, ramp, ramp_index, robust_limits

panel = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "pictures.py"))["panel"]


def test_the_ramp_takes_even_steps_and_only_gets_lighter():
    lab = _oklab(ramp())
    # over eight colours, so that rounding to 8 bits does not matter
    steps = np.linalg.norm(lab[8:] - lab[:-8], axis=1)
    assert steps.max() < 1.25 * steps.min()
    assert (np.diff(lab[::4, 0]) > 0).all()
    assert lab[0, 0] < 0.2
    assert lab[-1, 0] > 0.95


@pytest.mark.parametrize("count", [0, 1, 19, 150, 256, 300, 5000])
def test_class_colours_differ(count):
    colours = class_colours(count)
    assert colours.shape == (count, 3)
    assert len({tuple(c) for c in colours.tolist()} | set(CODE_COLOURS.values())) == count + 3


def test_class_colours_are_far_apart():
    lab = _oklab(class_colours(19))
    distance = np.linalg.norm(lab[:, None] - lab[None], axis=2) + np.eye(19)
    assert distance.min() > 0.1


def test_more_classes_keep_the_colours_of_the_first():
    np.testing.assert_array_equal(class_colours(300)[:12], class_colours(12))


def test_names_give_natural_colours_whatever_their_spelling():
    one = class_colours(2, ["SignSymbol", "traffic light"])
    two = class_colours(2, ["sign_symbol", "Traffic-Light"])
    np.testing.assert_array_equal(one, two)
    red, green, blue = class_colours(1, ["sky"])[0].tolist()
    assert blue > green > red


def test_two_names_of_one_thing_still_differ():
    assert len(np.unique(class_colours(3, ["tree", "vegetation", "Tree"]), axis=0)) == 3


def test_too_many_classes_are_a_usage_error():
    with pytest.raises(UsageError):
        class_colours(70_000)


def test_the_palette_cannot_be_changed_from_outside():
    class_colours(3)[:] = 0
    ramp()[:] = 0
    assert class_colours(3).any()
    assert ramp().any()


def test_label_codes_have_their_own_colours():
    painted = colour_labels(np.array([[KNOWN, UNKNOWN, VOID, 0]], np.int16), CLASSES)[0]
    expected = [CODE_COLOURS[code] for code in (KNOWN, UNKNOWN, VOID)]
    assert [tuple(c) for c in painted[:3].tolist()] == expected
    np.testing.assert_array_equal(painted[3], class_colours(3, CLASSES)[0])


def test_ramp_index_spans_the_limits():
    doubt = np.array([[-9.0, 0.0, 0.5, 1.0, 9.0]], np.float32)
    assert ramp_index(doubt, (0, 1)).tolist() == [[0, 0, 128, 255, 255]]
    assert ramp_index(doubt, (1, 1)).tolist() == [[0] * 5]


def test_robust_limits_ignore_one_extreme_pixel():
    doubt = np.random.default_rng(0).random((100, 100), dtype=np.float32)
    doubt[0, 0] = 1e9
    assert robust_limits(doubt)[1] < 1
    assert robust_limits(np.full((4, 4), 2, np.float32)) == (2, 2)


def test_no_doubt_leaves_the_photograph_and_much_doubt_glows():
    image = np.random.default_rng(0).integers(0, 256, (2, 256, 3), dtype=np.uint8)
    doubt = np.stack([np.zeros(256), np.ones(256)]).astype(np.float32)
    shown = overlay(image, doubt, limits=(0, 1))
    np.testing.assert_array_equal(shown[0], image[0])
    assert shown[1].mean() > 200
    assert shown.dtype == np.uint8


def test_given_limits_give_a_sequence_one_scale():
    image = np.full((1, 2, 3), 90, np.uint8)
    calm = overlay(image, np.array([[0.1, 0.2]], np.float32), limits=(0, 1))
    tense = overlay(image, np.array([[0.2, 0.9]], np.float32), limits=(0, 1))
    np.testing.assert_array_equal(calm[0, 1], tense[0, 0])


def test_constant_doubt_is_no_error():
    image = np.full((3, 3, 3), 90, np.uint8)
    np.testing.assert_array_equal(overlay(image, np.ones((3, 3), np.float32)), image)


def test_doubt_of_another_size_is_refused():
    with pytest.raises(DataError, match="one size"):
        overlay(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 4), np.float32))


def test_doubt_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="finite"):
        overlay(np.zeros((1, 1, 3), np.uint8), np.full((1, 1), np.nan, np.float32))


@pytest.mark.parametrize(("suffix", "format"), [(".png", "PNG"), (".jpg", "JPEG")])
def test_an_overlay_is_written_as_its_suffix_says(tmp_path, suffix, format):
    one = example()
    write_overlay(tmp_path / f"a{suffix}", one.image, one.doubt)
    with Image.open(tmp_path / f"a{suffix}") as picture:
        assert picture.format == format
        assert picture.size == (20, 12)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_panel_puts_pictures_side_by_side(labelled):
    one = example()
    label = one.label if labelled else None
    sheet = panel(one.image, label, one.predicted, one.doubt, CLASSES, tile_width=100)
    assert sheet.width == 10 + (4 if labelled else 3) * 110
    assert sheet.height > 60


def test_a_panel_without_class_names_and_with_constant_doubt_works():
    one = example()
    panel(one.image, None, one.predicted, np.zeros_like(one.doubt))


def test_a_panel_of_maps_of_other_sizes_is_refused():
    one = example()
    with pytest.raises(DataError, match="size"):
        panel(one.image, None, one.predicted[:5], one.doubt)
