import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doubtmap.datasets import KNOWN, UNKNOWN, VOID, match_labels
from doubtmap.errors import UsageError

STREET = ("sky", "road", "pedestrian", "traffic sign")


def test_names_match_whatever_their_case_and_separators():
    matching = match_labels(STREET, ["Traffic_Sign", "PEDESTRIAN", "sky", "road"])
    assert matching.targets == (2, 3, 1, 0)
    assert matching.notes == ()


def test_a_class_the_model_lacks_is_void_with_a_note():
    matching = match_labels(STREET, ["sky", "road"])
    assert matching.targets == (0, 1, VOID, VOID)
    assert "pedestrian, traffic sign" in matching.notes[0]


def test_unknown_classes():
    matching = match_labels(STREET, ["sky", "road"], ["Pedestrian"])
    assert matching.targets == (0, 1, UNKNOWN, VOID)


def test_the_rest_is_unknown():
    matching = match_labels(STREET, ["sky", "road"], ("rest",))
    assert matching.targets == (0, 1, UNKNOWN, UNKNOWN)
    assert matching.notes == ()


def test_a_class_of_the_model_can_be_asked_to_be_unknown():
    matching = match_labels(STREET, STREET, ["road"])
    assert matching.targets == (0, UNKNOWN, 2, 3)
    assert matching.notes == (
        "road is a class of the model and is counted as unknown because you asked.",
    )


def test_model_classes_without_labels_are_noted():
    matching = match_labels(STREET, [*STREET, "tram"])
    assert matching.notes == ("The data set has no labels for the model's class tram.",)


@pytest.mark.parametrize("unknown", [(), ("rest",)])
def test_a_close_class_of_the_model_is_asked_about(unknown):
    matching = match_labels(["road", "Pedestrain"], ["road", "pedestrian"], unknown)
    question = "Did you mean the model's class pedestrian by the label class Pedestrain?"
    assert any(note.startswith(question) for note in matching.notes)
    asked = match_labels(["road", "pedestrain"], ["road", "pedestrian"], ["pedestrain"])
    assert not any("Did you mean" in note for note in asked.notes)


def test_nothing_left_to_get_right_is_noted():
    matching = match_labels(["road", "dog"], ["road"], ["road", "rest"])
    assert matching.targets == (UNKNOWN, UNKNOWN)
    assert matching.notes[-1] == "No label class is left that the model could get right."


def test_the_first_of_two_equal_model_classes_counts():
    assert match_labels(["road"], ["road", "Road"]).targets == (0,)


def test_a_model_without_names_is_matched_by_order():
    matching = match_labels(STREET, None, ["pedestrian"], channels=3)
    assert matching.targets == (0, 1, UNKNOWN, 2)
    assert "in the order of the label classes sky, road, traffic sign" in matching.notes[0]


def test_a_model_without_names_and_with_another_number():
    with pytest.raises(UsageError, match=r"19 channels.* 4 classes .*--classes"):
        match_labels(STREET, (), channels=19)
    with pytest.raises(UsageError, match="unknown number of channels"):
        match_labels(STREET, ())


def test_number_of_names_and_channels_differ():
    with pytest.raises(UsageError, match=r"Expected 3 class names.* got 2: sky, road"):
        match_labels(STREET, ["sky", "road"], channels=3)


def test_unknown_name_that_the_data_set_lacks():
    with pytest.raises(
        UsageError, match=r"among sky, .*got pedestrain\. Did you mean pedestrian\?"
    ):
        match_labels(STREET, STREET, ["pedestrain"])


def test_nothing_in_common_shows_both():
    with pytest.raises(UsageError, match=r"Data set: sky, road.* Model: cat, dog"):
        match_labels(STREET, ["cat", "dog"], ["rest"])


def test_labels_that_only_tell_known_from_unknown():
    label = torch.tensor([[KNOWN, UNKNOWN, VOID]], dtype=torch.int16)
    for unknown in ((), ("rest",)):
        matching = match_labels((), STREET, unknown, channels=4)
        assert matching.targets == ()
        assert torch.equal(matching.apply(label), label)
    with pytest.raises(UsageError, match="only tell known from unknown, so dog"):
        match_labels((), STREET, ["dog"])


names = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@st.composite
def cases(draw):
    labels = draw(names)
    classes = draw(names.filter(lambda classes: set(classes) & set(labels)))
    unknown = draw(st.lists(st.sampled_from([*labels, "rest"]), unique=True))
    values = st.integers(KNOWN, len(labels) - 1)
    pixels = draw(st.lists(st.lists(values, min_size=4, max_size=4), max_size=5))
    return labels, classes, unknown, pixels


@given(cases())
def test_the_table_equals_a_loop_over_the_pixels(case):
    labels, classes, unknown, pixels = case

    def meaning(value):
        if value < 0:
            return value
        name = labels[value]
        if name in unknown:
            return UNKNOWN
        if name in classes:
            return classes.index(name)
        return UNKNOWN if "rest" in unknown else VOID

    label = torch.tensor(pixels, dtype=torch.int16).reshape(-1, 4)
    applied = match_labels(labels, classes, unknown).apply(label)
    assert applied.dtype == torch.int16
    assert applied.shape == label.shape
    assert applied.tolist() == [[meaning(value) for value in row] for row in pixels]
