"""The picture: objects as they are, the rest paler, outlines and tags in their places."""

import numpy as np
import pytest
from PIL import Image

from doubtmap.errors import UsageError
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.objects.overlay import object_picture, write_object_picture

ORANGE = (255, 92, 0)


def frame(width=1000, height=60):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    doubt = np.zeros((height, width))
    doubt[30:50, 300:340] = 0.75
    things = find_objects(doubt, np.zeros(doubt.shape, int), ObjectRule(0.5))
    return image, things, [outlines(thing.mask, thing.box[:2]) for thing in things]


def test_objects_keep_their_pixels_and_the_rest_steps_back():
    image, things, shapes = frame()
    picture = np.asarray(object_picture(image, things, shapes))
    assert picture.shape == image.shape
    np.testing.assert_array_equal(picture[35:45, 305:335], image[35:45, 305:335])
    rest, before = picture[:, :250].astype(float), image[:, :250].astype(float)
    assert rest.mean() < before.mean() and np.ptp(rest, 2).mean() < np.ptp(before, 2).mean()
    assert (picture[40, 299:302] == ORANGE).all(1).any()
    assert not (picture[:, 400:] == ORANGE).all(2).any()


@pytest.mark.parametrize(("width", "factor"), [(1280, 1), (960, 1), (512, 2), (400, 3), (64, 4)])
def test_small_pictures_are_enlarged_by_a_whole_factor(width, factor):
    image = np.zeros((10, width, 3), np.uint8)
    assert object_picture(image, [], []).size == (width * factor, 10 * factor)


def test_tags_stay_in_the_picture_and_do_not_cover_each_other():
    doubt = np.zeros((40, 960))
    doubt[0:4, 0:6] = 0.9  # in the corner, with no room above
    doubt[0:4, 10:16] = 0.8  # its tag would cover the first one's
    doubt[36:40, 954:960] = 0.7
    things = find_objects(doubt, np.zeros(doubt.shape, int), ObjectRule(0.5, 1))
    image = np.full((40, 960, 3), 200, np.uint8)
    picture = np.asarray(
        object_picture(image, things, [outlines(thing.mask, thing.box[:2]) for thing in things])
    )
    white = (picture == 255).all(2)
    assert white[2:20, :40].any() and white[17:36, 920:].any()
    # two boxes and tags, though there are three objects: row 3 ends the boxes at the top
    assert white[3, :6].sum() >= 2 and white[3, 11:15].sum() == 0


def test_it_is_written_as_png(tmp_path):
    write_object_picture(tmp_path / "deep" / "a.png", *frame())
    with Image.open(tmp_path / "deep" / "a.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1000, 60))


def test_each_object_needs_its_outlines():
    image, things, _ = frame()
    with pytest.raises(UsageError, match="each of 1 objects, got 0"):
        object_picture(image, things, [])
