"""A resumed run goes on only with what it began with; what has changed is named."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.datasets.pasting import Part
from doubtmap.engine.settings import data_settings, model_settings, score_settings
from doubtmap.files.naming import score_folders
from doubtmap.files.python import code_of
from doubtmap.files.resuming import differing, hold_samples, hold_to
from doubtmap.images import write_scores
from doubtmap.models.folders import start_marks

TOML = """images = "images/{frame}.png"
labels = "labels/{frame}.png"
[classes]
grass = 0
stone = 1
"""
NET = """import torch
from torch import nn
from parts import widths

def build():
    torch.manual_seed(widths.SEED)
    return nn.Conv2d(3, 2, 1)
"""


class Killed(Exception):
    """Stands for the end of the process."""


def kill_after(images):
    def progress(stage, done, total):
        if done >= images:
            raise Killed

    return progress


@pytest.fixture
def world(tmp_path):
    """A folder of three labelled images, and a network in a Python file with a neighbour."""
    random = np.random.default_rng(0)
    for kind, shape in (("images", (8, 10, 3)), ("labels", (8, 10))):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for index in range(3):
            values = random.integers(0, 256 if kind == "images" else 2, shape, np.uint8)
            Image.fromarray(values).save(tmp_path / "data" / kind / f"{index}.png")
    (tmp_path / "data" / "doubtmap.toml").write_text(TOML)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "widths.py").write_text("SEED = 0\n")
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def evaluated(world, network, **more):
    dataset = dm.open_dataset(f"folder:{world / 'data'}")
    return dm.evaluate(network, dataset, "entropy", replicates=20, out=world / "out", **more)


def swap(file):
    """Another picture of the same size under the same name."""
    pixels = np.asarray(Image.open(file))
    Image.fromarray(np.ascontiguousarray(pixels[::-1, ::-1])).save(file)


def named(world):
    return f"python:{world / 'net.py'}:build"


def load(world):
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "parts"]:
        del sys.modules[name]  # as in a process of its own
    return dm.load(named(world), classes=("grass", "stone"), mean=(0, 0, 0), std=(1, 1, 1))


def test_evaluate_goes_on_where_nothing_changed_and_mends_are_welcome(world):
    network = load(world)
    with pytest.raises(Killed):
        evaluated(world, network, progress=kill_after(1))
    swap(world / "data" / "images" / "2.png")  # not seen yet
    resumed = evaluated(world, load(world), resume=True).figures
    whole = evaluated(world, network).figures
    assert resumed["scores"] == whole["scores"] and resumed["data"] == whole["data"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda world: swap(world / "data" / "images" / "0.png"), "those of 0 are others now"),
        (lambda world: swap(world / "data" / "labels" / "0.png"), "those of 0 are others now"),
        (
            lambda world: (world / "data" / "doubtmap.toml").write_text(
                TOML.replace("= 0", "= 9").replace("= 1", "= 0").replace("= 9", "= 1")
            ),
            "label values differ",
        ),
        (lambda world: (world / "net.py").write_text(NET + "\n"), r"model \(code\) differ"),
        (
            lambda world: (world / "parts" / "widths.py").write_text("SEED = 1\n"),
            r"model \(code, weights\) differ",
        ),
    ],
    ids=["image", "labels", "label values", "code", "code beside it"],
)
def test_evaluate_names_what_changed(world, change, told):
    with pytest.raises(Killed):
        evaluated(world, load(world), progress=kill_after(1))
    change(world)
    with pytest.raises(dm.UsageError, match=told):
        evaluated(world, load(world), resume=True)


def test_score_does_not_pass_off_maps_of_other_images(world):
    network, images = load(world), sorted((world / "data" / "images").glob("*.png"))
    scores = {"entropy": dm.scores.entropy}

    def run(paths=images, resume=True):
        return write_scores(network, paths, scores, world / "maps", resume=resume)

    assert run(images[:2], resume=False).startswith("2 of 2")
    assert run().startswith("3 of 3")  # more images are welcome
    other = world / "other" / "0.png"
    other.parent.mkdir()
    shutil.copy(images[1], other)
    with pytest.raises(dm.UsageError, match="those of 0 are others now"):
        run([other, *images[1:]])
    swap(images[0])
    with pytest.raises(dm.UsageError, match="those of 0 are others now"):
        run()
    assert run(resume=False).startswith("3 of 3")


def test_maps_of_an_earlier_run_are_not_those_of_one_that_was_killed(world):
    images = sorted((world / "data" / "images").glob("*.png"))
    first, second = (dm.load(torch.nn.Conv2d(3, 2, 1), classes=("a", "b")) for _ in range(2))

    def run(network, **more):
        return write_scores(network, images, {"entropy": dm.scores.entropy}, world / "maps", **more)

    run(first)
    with pytest.raises(Killed):
        run(second, progress=kill_after(1))
    run(second, resume=True)
    resumed = [file.read_bytes() for file in sorted((world / "maps" / "entropy").glob("*"))]
    run(second)
    assert resumed == [file.read_bytes() for file in sorted((world / "maps" / "entropy").glob("*"))]


def test_weights_in_memory_and_members_count():
    nets = [torch.nn.Conv2d(3, 2, 1) for _ in range(2)]
    segmenters = [dm.load(net, classes=("a", "b")) for net in nets]
    before = [model_settings(each)["model"]["weights"] for each in segmenters]
    both = dm.models.Ensemble(segmenters)
    with torch.no_grad():
        nets[1].bias += 1
    after = [model_settings(each)["model"]["weights"] for each in segmenters]
    assert before[0] == after[0] and before[1] != after[1]
    assert model_settings(both)["model"]["2"]["weights"] == after[1]


def test_weights_of_every_kind_are_hashed():
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "number": torch.tensor(3),
        "flags": torch.tensor([True]),
        "empty": torch.zeros(0),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    network = torch.nn.Conv2d(3, 2, 1)
    marks = set()
    for name, values in odd.items():
        network.register_buffer(f"of_{name}", values)
        marks.add(dm.load(network, classes=("a", "b")).content["weights"])
    assert len(marks) == len(odd) and None not in marks


def test_a_training_starts_from_code_and_folders(world):
    before = start_marks(named(world))
    (world / "parts" / "widths.py").write_text("SEED = 2\n")
    assert start_marks(named(world)) != before
    folder = world / "network"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    marks = start_marks(str(folder))
    (folder / "model.safetensors").write_bytes(b"weights")
    assert start_marks(str(folder)) != marks and start_marks("demo") == {}


def test_imports_are_followed_in_circles_and_packages(tmp_path):
    (tmp_path / "a.py").write_text("import b\nfrom pack import c\n")
    (tmp_path / "b.py").write_text("import a, numpy\nfrom . import d\n")
    (tmp_path / "d.py").write_text("not python at all (")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "c.py").write_text("from .e import x\n")
    (tmp_path / "pack" / "e.py").write_text("x = 1\n")
    (tmp_path / "unused.py").write_text("")
    marks = [code_of(tmp_path / "a.py")]
    for name in ("b.py", "d.py", "pack/__init__.py", "pack/c.py", "pack/e.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text() + "\n")
        marks.append(code_of(tmp_path / "a.py"))
    assert len(set(marks)) == 6
    (tmp_path / "unused.py").write_text("x = 2\n")
    assert code_of(tmp_path / "a.py") == marks[-1]


def test_samples_have_marks_whatever_they_are_made_of(world, streets):
    folder = dm.open_dataset(f"folder:{world / 'data'}")
    marks = sample_marks(folder)
    assert len(set(marks.values())) == 3 and sample_marks(Part(folder, [2], "x")) == {
        "2": marks["2"]
    }
    pairs = [(folder[0].image, folder[0].label), (folder[1].image, folder[1].label)]
    drawn = dm.open_dataset(pairs, classes=("grass", "stone"))
    assert len(set(sample_marks(drawn).values())) == 2
    assert sample_marks(streets) == {} and data_settings(streets)["drawn"]["seed"] == 3


def test_a_score_of_ones_own_counts_with_its_file():
    def own(prediction):
        return dm.scores.entropy(prediction)

    assert score_settings({"own": own})["fitted"]["own"]
    assert score_settings({"entropy": dm.scores.entropy})["fitted"] == {}


def test_settings_on_disk(tmp_path):
    path = tmp_path / "settings.json"
    hold_to(path, {"a": {"x": 1, "y": [1, 2]}, "b": 1})
    hold_to(path, {"a": {"x": 1, "y": (1, 2)}, "b": 1})
    hold_samples(path, {"0": "aa", "1": "bb"}, [])
    hold_samples(path, {"1": "cc", "2": "dd", "3": "ee"}, [])
    hold_samples(path, {"0": "aa", "1": "cc"}, ["0", "1"])
    with pytest.raises(dm.UsageError, match="those of 0, 1, 2 and 1 more are others"):
        hold_samples(path, {}, ["0", "1", "2", "3"])
    with pytest.raises(dm.UsageError, match=r"but a \(x\), b differ"):
        hold_to(path, {"a": {"x": 2, "y": [1, 2]}, "b": None})
    path.write_text("[1]")
    with pytest.raises(dm.DataError, match="holds a list"):
        hold_to(path, {})
    assert differing({}, {"new": 1}) == ["new"]
    views = [{"model": {"views": {"sides": [s], "mirror": s > 1}}} for s in (1, 2)]
    assert differing(*views) == ["--views"]


def test_no_two_scores_have_one_folder():
    names = ["a+b", "a@b", "a b", "A_B", "classes", "overlay", "..", "entropy", "a_b_2"]
    folders = score_folders(names)
    assert len({folder.casefold() for folder in folders.values()} | {"classes", "overlay"}) == 11
    assert folders["entropy"] == "entropy" and all(folder.strip(".") for folder in folders.values())
