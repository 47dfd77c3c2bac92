"""Names as they are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubtmap.names import made_distinct, plain_name, twins


@pytest.mark.parametrize(
    "name",
    ["traffic light", "traffic-light", "traffic_light", "Traffic Light", " TRAFFIC -_ light "],
)
def test_case_hyphen_underscore_and_space_do_not_matter(name):
    assert plain_name(name) == "traffic light"
    assert twins(["road", "traffic light", name]) == ("traffic light", name)


def test_other_names_are_other_classes():
    assert twins(["trafficlight", "traffic light", "traffic.light"]) is None


@given(st.lists(st.sampled_from(["a-b", "a_b", "A B", "c", "c (2)"]), max_size=6))
def test_names_made_distinct_are_distinct_and_the_first_stay(names):
    distinct = made_distinct(names)
    assert len(distinct) == len(names)
    assert twins(distinct) is None
    if names:
        assert distinct[0] == names[0]
