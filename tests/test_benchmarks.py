"""Benchmarks share one frame, and every file of results has the form that the docs read."""

import importlib
import json
import math
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import stages
import torch

import doubtmap as dm
from doubtmap.training import NFlowJS

FILES = sorted(stages.RESULTS.glob("*.json"))
NAMES = sorted(path.stem for path in stages.HERE.glob("*.py") if path.stem != "stages")


@pytest.fixture(scope="module")
def benchmarks():
    """Every benchmark as a module, by its name."""
    found = {name: importlib.import_module(name) for name in NAMES}
    yield found
    for name in NAMES:
        del sys.modules[name]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_results_has_the_form(path):
    content = stages.read(path.stem)
    assert list(content) == ["command", "version", "conditions", "rows"]
    assert path.read_text() == stages.text_of(content)
    assert len(content["rows"]) > 0
    for row in content["rows"]:
        assert isinstance(row["name"], str) and isinstance(row["set"], str)
        assert json.dumps(row) in path.read_text().replace(",\n", "\n").splitlines()
        for key, value in row.items():
            if key.endswith("_interval") and value is not None:
                low, high = value
                assert low <= high
            assert not (isinstance(value, float) and math.isnan(value)), (key, row["name"])


def test_every_topic_has_a_benchmark_whose_command_writes_it(benchmarks):
    found = {}
    for name, module in benchmarks.items():
        for stage in module.STAGES.values():
            found[stage.topic.name] = stage.topic
            assert stage.topic.command.split(" --")[0] == f"python benchmarks/{name}.py"
    assert {path.stem for path in FILES} == set(found)
    for name, topic in found.items():
        content = stages.read(name)
        assert content["command"] == topic.command
        kept = json.loads(json.dumps(topic.conditions))
        assert content["conditions"] == content["conditions"] | kept


def test_options_and_stages_of_commands_exist(benchmarks):
    commands = {stages.read(path.stem)["command"] for path in FILES}
    commands |= set(stages.read("speed")["conditions"])
    for command in commands:
        module = benchmarks[Path(command.split()[1]).stem]
        for part in command.split(" --")[1:]:
            option, _, value = part.partition(" ")
            if option == "stages":
                assert set(value.strip("'").split(",")) <= set(module.STAGES)
            else:
                assert f"--{option}" in module.OPTIONS


def test_benchmarks_are_few():
    assert len(NAMES) + 1 <= 20


def test_images_of_a_set_that_is_seen_again_come_in_turn(benchmarks):
    data = dm.open_dataset("synthetic:5")
    some = benchmarks["doubt"].Some(data, step=3, count=3, times=2)
    assert len(some) == 3 and len(benchmarks["doubt"].Some(data, step=3, times=2)) == 4
    seen = [some.sample_name(index) for index in range(3)]
    assert seen == [data.sample_name(index) for index in (0, 3, 1)]
    assert torch.equal(some[2].image, data[1].image)


def test_networks_of_a_stage_can_be_taught_and_begin_with_the_plain_one(benchmarks):
    module = benchmarks["nflowjs"]
    given = Namespace(shared="S", halved="H", work="W", unknown="building", tiny=False)
    for name, school in module.SCHOOLS.items():
        assert school.taught[0] == module.PLAIN and {name, f"teach {name}"} <= set(module.STAGES)
        assert "{" not in school.filled(given).data + school.filled(given).model
        kinds = [NFlowJS(**module.OPTIONS_OF[taught]).kinds for taught in school.taught]
        assert kinds[0] == () and all(kind[0] == "flow" for kind in kinds[1:])


def test_rows_made_anew_take_the_place_of_the_old():
    old = [{"stage": stage, "name": name} for stage in "ab" for name in "xy"]
    new = [{"stage": "a", "name": "z"}]
    assert stages.merged(old, new, ("stage",)) == [*new, *old[2:]]
    assert stages.merged(old, new, ("stage", "name")) == [*old, *new]
    assert stages.merged(old, new, ()) == new
    assert stages.merged([], old, ("stage",)) == old


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of results."""
    monkeypatch.setattr(stages, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(stages, "HERE", tmp_path)
    return tmp_path / "results"


def run(monkeypatch, made, *words):
    """Run a benchmark of two stages, `one` and `two`, on the command line."""

    def rows(given):
        given.conditions["seen"] = str(given.shared)
        return made

    topic = stages.Topic("topic", "python benchmarks/some.py", conditions={"images": 3})
    table = {name: stages.Stage(topic, rows) for name in ("one", "two")}
    monkeypatch.setattr(sys, "argv", ["some.py", *words])
    stages.run("About.", table, {"--more": {"type": int}}, default="one")


def test_stages_are_run_apart_and_merged(results, monkeypatch):
    run(monkeypatch, [{"name": "x", "set": "s", "auroc": 0.5}])
    run(monkeypatch, [{"name": "y", "set": "s", "auroc": 0.25}], "--stages", "two,one")
    run(monkeypatch, [], "--stages", "two")
    content = stages.read("topic")
    assert [(row["stage"], row["name"]) for row in content["rows"]] == [("one", "y"), ("two", "y")]
    assert content["conditions"] == {"images": 3, "seen": "../shared"}
    assert (results.parent / "work" / "some").is_dir()


def test_an_unknown_stage_is_refused_before_anything_runs(results, monkeypatch, capsys):
    with pytest.raises(SystemExit) as raised:
        run(monkeypatch, [], "--stages", "three")
    assert raised.value.code == 2
    assert "expected some of one, two, got three" in capsys.readouterr().err
    assert not results.exists()


def test_ways_take_turns_and_are_compared_with_the_first():
    now = [0.0]
    ways = {"slow": lambda x: now.__setitem__(0, now[0] + 2 * x)}
    ways |= {"fast": lambda x: now.__setitem__(0, now[0] + x)}
    slow, fast = stages.in_turns(ways, [1.0, 3.0, 5.0], lambda: now[0])
    assert slow == {"name": "slow", "milliseconds": 6000.0, "ratio": 1.0}
    assert fast == {"name": "fast", "milliseconds": 3000.0, "ratio": 0.5}
    seconds = stages.best_of({"slow": lambda: ways["slow"](1.0)}, 3, lambda: now[0])
    assert seconds == {"slow": 2.0}


def test_rows_of_networks_of_other_seeds_become_their_mean():
    """Interval by interval nothing is made up, and what no mean has is left out."""
    shared = {"set": "roads", "by_class": {"sky": {"rmse": 1.0}}}
    rows = [
        {"name": f"net {k}", "miou": k / 4, "miou_interval": [0.0, 1.0], "curve": [k, 2 * k]}
        | {"mean_by_class": {"sky": k / 2}}
        | shared
        for k in (1, 2, 3)
    ]
    assert stages.mean_of("net", rows) == {
        "name": "net",
        "networks": 3,
        "set": "roads",
        "miou": 0.5,
        "miou_runs": [0.25, 0.5, 0.75],
        "curve": [2.0, 4.0],
        "mean_by_class": {"sky": 1.0},
    }
