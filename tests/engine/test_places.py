"""Which images a part has, what schedulers say, and places that cannot be."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import doubtmap as dm
from doubtmap.engine.places import PartNumber, Place, all_parts, read_part
from doubtmap.engine.pool import by_workers


@given(count=st.integers(0, 200), of=st.integers(1, 40))
def test_all_parts_together_have_each_image_once(count, of):
    parts = [PartNumber(number, of).numbers(count) for number in range(1, of + 1)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"RANK": "2", "WORLD_SIZE": "8"}, "3/8"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "1/4"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
            },
            "3/3",
        ),
        (
            {
                **{"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
                **{"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "5"},
            },
            "5/5",
        ),
        ({"JOB_COMPLETION_INDEX": "6", "JOB_COMPLETIONS": "7"}, "7/7"),
        ({"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "2/2"),
    ],
)
def test_schedulers_say_which_part(environment, part):
    assert str(read_part("auto", environment)) == part == str(read_part(part))


@pytest.mark.parametrize(
    ("text", "environment", "told"),
    [
        ("0/3", {}, "from 1/8 to 8/8"),
        ("4/3", {}, "got 4/3"),
        ("a", {}, "expected I/N such as 3/8"),
        ("auto", {}, "found none. Say --part I/N"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETIONS beside"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "expected numbers in RANK and WORLD_SIZE"),
        (
            "auto",
            {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
            "expected one scheduler, but the environment says 2/2 and 4/4",
        ),
        ("auto", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2"}, "have gaps"),
    ],
)
def test_what_is_no_part_is_a_sentence(text, environment, told):
    with pytest.raises(dm.UsageError, match=told):
        read_part(text, environment)


def test_no_parts_and_parts_of_other_divisions():
    with pytest.raises(dm.UsageError, match="expected parts, got none"):
        all_parts([], [])
    with pytest.raises(dm.UsageError, match="got 1/2 in a and 2/3 in b"):
        all_parts([PartNumber(1, 2), PartNumber(2, 3)], ["a", "b"])


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"engine": "spark"}, "expected local, ray, or ray:ADDRESS"),
        ({"engine": "ray:"}, "expected local, ray, or ray:ADDRESS"),
        ({"engine": "local:1"}, "expected local, ray, or ray:ADDRESS"),
        ({"gpus": 1}, "expected --workers with it"),
    ],
)
def test_places_that_cannot_be(place, told):
    with pytest.raises(dm.UsageError, match=told):
        Place(**place)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("place", "set_by_user", "threads"),
    [
        ({"workers": 2}, False, 2),
        ({"workers": 9}, False, 1),
        ({"workers": 2}, True, 4),
        ({"engine": "ray"}, False, 1),
        ({"engine": "ray", "workers": 2}, True, 4),
        ({"workers": 2, "threads": 3}, True, 3),
        ({}, False, 0),
    ],
)
def test_threads_of_each_worker(monkeypatch, four_threads, place, set_by_user, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_by_user:
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert Place(**place).threads == threads
    with Place(**place).alike():
        assert torch.get_num_threads() == (threads or 4)
    assert torch.get_num_threads() == 4


def test_without_ray_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(dm.UsageError, match=r"pip install 'doubtmap\[ray\]'"):
        list(Place(engine="ray").look(object(), [0], print))


def test_work_that_cannot_be_sent_is_a_sentence():
    class Local:
        """Of a function: pickle cannot name it."""

    with pytest.raises(dm.UsageError, match="that can be sent to other processes"):
        list(by_workers(Local(), [0], 1, 0, 1, print))
