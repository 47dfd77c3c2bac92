"""When a sequence is left whole: where none holds more than two thirds of the images."""

import pytest

from doubtmap.engine.splitting import folds_of, split_images


def drives(*lengths):
    return [f"{chr(97 + k)}_{frame:04d}" for k, n in enumerate(lengths) for frame in range(n)]


def whole(names, parts):
    sides = [{names[index][0] for index in part} for part in parts]
    return not set.intersection(*sides)


@pytest.mark.parametrize(
    ("lengths", "stay"),
    [
        ((40, 7, 7, 6), True),
        ((41, 7, 6, 6), False),
        ((20, 20, 20), False),
        ((15, 15, 15, 15), True),
    ],
)
def test_two_thirds_of_the_images_are_the_most_that_one_sequence_may_hold(lengths, stay):
    names = drives(*lengths)
    assert whole(names, split_images(names)) == stay


@pytest.mark.parametrize(("lengths", "stay"), [((40, 10, 10), True), ((41, 10, 9), False)])
def test_folds_keep_to_the_same_rule(lengths, stay):
    assert folds_of(drives(*lengths), 3)[1] == stay
