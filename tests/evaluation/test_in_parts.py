"""Parts of an evaluation, and workers: the figures of one process, to the last bit."""

import copy
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.decisions.file import Threshold
from doubtmap.engine.parts import write_part
from doubtmap.engine.places import PartNumber, Place
from doubtmap.evaluation import asking, first_look
from doubtmap.evaluation.asking import Options, asked_of
from doubtmap.evaluation.parts import evaluate_part, merge_parts
from doubtmap.evaluation.results import strict_figures
from doubtmap.streets.synthetic import SyntheticStreets

SCORES = "entropy,max_logit"
IMAGES = 5
CLASSES = ("road", "sky", "building", "vehicle")


def streets(seed=3):
    return SyntheticStreets(IMAGES, seed=seed, size=(64, 96))


def plain(results):
    """Figures and examples as text of all digits, without times."""
    figures = {k: v for k, v in strict_figures(results.figures).items() if k != "seconds"}
    shown = [
        (e.name, e.reason, e.detail, e.image.tobytes(), e.label.tobytes(), e.doubt.tobytes())
        for e in results.examples
    ]
    return json.dumps([figures, results.curves, list(results.class_names)]) + repr(shown)


def wanted(**more):
    options = more.pop("options", Options(examples=1))
    return {"unknown": ("rest", "vehicle"), "replicates": 20, "options": options, **more}


def part(network, number, of, out, scores=SCORES, dataset=None, **more):
    place = Place(part=PartNumber(number, of))
    asked = wanted(options=Options(examples=1, place=place), **more)
    evaluate_part(asked_of(network, dataset or streets(), scores, **asked), out)
    return out


class Tiny(nn.Module):
    """Two convolutions, at a quarter of the size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 5, 4, 2)
        self.head = nn.Conv2d(8, len(CLASSES), 1)

    def forward(self, x):
        return nn.functional.interpolate(self.head(self.body(x).relu()), x.shape[-2:])


@pytest.fixture(scope="module")
def tiny():
    return dm.load(Tiny(), classes=CLASSES)


@pytest.fixture(scope="module")
def whole(tiny):
    return plain(dm.evaluate(tiny, streets(), SCORES, **wanted()))


@pytest.fixture(scope="module")
def three(tiny, tmp_path_factory):
    base = tmp_path_factory.mktemp("parts")
    return [part(tiny, number, 3, base / str(number)) for number in (1, 2, 3)]


def test_parts_in_any_order_are_the_whole(three, whole, tmp_path):
    assert '"vehicle": {"auprc": 0.' in whole
    for order in itertools.permutations(three):
        assert plain(merge_parts(tmp_path / "out", order)) == whole


def test_images_of_a_folder_keep_their_files(tiny, tmp_path):
    toml = 'images = "*.jpg"\nlabels = "{stem}.png"\n[classes]\n'
    (tmp_path / "doubtmap.toml").write_text(toml + "road = 0\nsky = 1\n")
    for at in range(3):
        image = torch.full((20, 30, 3), 60 * at, dtype=torch.uint8).numpy()
        Image.fromarray(image).save(tmp_path / f"{at}.jpg")
        Image.fromarray(image[..., 0] // 60 % 2).save(tmp_path / f"{at}.png")
    dataset = open_dataset(f"folder:{tmp_path}")
    one = dm.evaluate(tiny, dataset, SCORES, **wanted(unknown="rest"))
    assert one.figures["images"][2]["file"] == str(tmp_path / "2.jpg")
    more = {"dataset": dataset, "unknown": "rest"}
    parts = [part(tiny, n, 2, tmp_path / f"part{n}", **more) for n in (1, 2)]
    assert plain(merge_parts(tmp_path / "out", parts)) == plain(one)


def test_a_part_is_held_against_no_other_evaluation(tiny, tmp_path):
    options = Options(against=str(tmp_path), place=Place(part=PartNumber(1, 2)))
    with pytest.raises(dm.UsageError, match="against: expected all images, got a part of them"):
        asked_of(tiny, streets(), SCORES, **wanted(options=options))


@pytest.mark.parametrize("of", [1, 7])
def test_any_number_of_parts_is_the_whole(tiny, whole, tmp_path, of):
    """Of seven parts of five images two have none."""
    parts = [part(tiny, number, of, tmp_path / str(number)) for number in range(1, of + 1)]
    assert plain(merge_parts(tmp_path / "out", parts)) == whole


def test_thresholds_that_are_given_need_no_maps(tiny, tmp_path):
    chosen = {"entropy": 1.25, "max_logit": 0.0}
    given = [Threshold(name, at, "unknown", "f1") for name, at in chosen.items()]
    options = Options(examples=1, thresholds=given)
    one = dm.evaluate(tiny, streets(), SCORES, **wanted(options=options))
    assert one.figures["scores"]["entropy"]["unknown"]["threshold_mode"] == "given"
    parts = []
    for number in (1, 2):
        asked = wanted(options=replace(options, place=Place(part=PartNumber(number, 2))))
        parts.append(tmp_path / str(number))
        evaluate_part(asked_of(tiny, streets(), SCORES, **asked), parts[-1])
        assert not (parts[-1] / "maps").exists() and (parts[-1] / "components").exists()
    assert plain(merge_parts(tmp_path / "out", parts)) == plain(one)
    file = parts[1] / "components"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(dm.DataError, match="components: cannot be used: expected what its part"):
        merge_parts(tmp_path / "out", parts)


class Killed(Exception):
    """Stands for the end of the process."""


def test_a_part_that_was_killed_is_named_and_goes_on(tiny, three, whole, tmp_path):
    def kill(stage, done, total):
        if done:
            raise Killed

    place = Place(part=PartNumber(2, 3))
    options = Options(examples=1, place=place)
    asked = asked_of(tiny, streets(), SCORES, **wanted(options=options, progress=kill))
    with pytest.raises(Killed):
        evaluate_part(asked, tmp_path / "2")
    with pytest.raises(dm.DataError, match=r"one that was stopped\. Go on with the same command"):
        merge_parts(tmp_path / "out", [three[0], tmp_path / "2", three[2]])
    asked = asked_of(tiny, streets(), SCORES, **wanted(options=options))
    evaluate_part(asked, tmp_path / "2", resume=True)
    assert plain(merge_parts(tmp_path / "out", [three[0], tmp_path / "2", three[2]])) == whole


def test_parts_that_are_missing_or_twice_there_are_named(three, tmp_path):
    with pytest.raises(dm.UsageError, match="expected 3 parts, got 1: 1, 3 of 3 are missing"):
        merge_parts(tmp_path / "out", three[1:2])
    with pytest.raises(dm.UsageError, match="part 2/3 is there twice"):
        merge_parts(tmp_path / "out", [*three, three[1]])
    with pytest.raises(dm.DataError, match="expected a part of doubtmap evaluate that is finished"):
        merge_parts(tmp_path / "out", [*three[:2], tmp_path])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seed": 1}, "seed differ"),
        ({"scores": "entropy"}, "scores differ"),
        ({"unknown": ()}, "unknown differ"),
        ({"replicates": 30}, "replicates differ"),
        ({"dataset": streets(4)}, "drawn .*differ"),
    ],
    ids=["seed", "scores", "unknown", "replicates", "data"],
)
def test_parts_that_do_not_belong_together_are_refused(tiny, three, tmp_path, more, told):
    other = part(tiny, 1, 3, tmp_path / "1", **more)
    with pytest.raises(dm.UsageError, match=told):
        merge_parts(tmp_path / "out", [other, *three[1:]])


def test_parts_of_another_network_or_version_are_refused(three, tmp_path):
    about = json.loads((three[0] / "part.json").read_text())
    del about["digest"]
    for change, told in (
        ({"doubtmap": "0.0.1"}, "version of doubtmap differ"),
        ({"model": about["settings"]["model"] | {"sha256": "other"}}, r"model \(sha256\) differ"),
    ):
        other = tmp_path / next(iter(change))
        other.mkdir()
        changed = about | {"settings": about["settings"] | change}
        write_part(other, "evaluate", PartNumber(1, 3), changed)
        with pytest.raises(dm.UsageError, match=told):
            merge_parts(tmp_path / "out", [other, *three[1:]])


def test_parts_whose_sums_are_of_another_version_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "VERSION", 1)
    one = part(tiny, 1, 1, tmp_path / "one")
    with pytest.raises(dm.UsageError, match=r"got 1 in .*one\. Make the parts again"):
        merge_parts(tmp_path / "out", [one])


@pytest.mark.parametrize("name", ["maps", "examples"])
def test_a_part_removes_no_folder_of_somebody_else(tiny, tmp_path, name):
    mine = tmp_path / name / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(dm.UsageError, match=f"no folder {name} in"):
        part(tiny, 1, 1, tmp_path)
    assert mine.read_text() == "mine"
    mine.unlink()
    mine.parent.rmdir()
    part(tiny, 1, 1, tmp_path)
    part(tiny, 1, 1, tmp_path)  # whose own folders are another matter


def test_damaged_parts_are_a_sentence(three, tmp_path):
    (tmp_path / "part.json").write_text("{")
    with pytest.raises(dm.DataError, match="cannot be used"):
        merge_parts(tmp_path / "out", [tmp_path, *three[1:]])
    (tmp_path / "part.json").write_text((three[0] / "part.json").read_text())
    sums = tmp_path / "sums.safetensors"
    with pytest.raises(dm.DataError, match=r"sums.*cannot be used .*Make the part again"):
        merge_parts(tmp_path / "out", [tmp_path, *three[1:]])
    content = bytearray((three[0] / "sums.safetensors").read_bytes())
    content[len(content) // 2] ^= 1  # the file is well-formed as before, and its sums are others
    for damaged in (b"damaged", content[:-100], content):
        sums.write_bytes(damaged)
        with pytest.raises(dm.DataError, match="cannot be used: expected what its part wrote"):
            merge_parts(tmp_path / "out", [tmp_path, *three[1:]])


@pytest.mark.parametrize("folder", ["examples", "maps"])
def test_images_of_a_part_that_were_copied_in_part_are_a_sentence(three, whole, tmp_path, folder):
    parts = [Path(shutil.copytree(part, tmp_path / part.name)) for part in three]
    (parts[0] / "examples/.DS_Store").write_text("of a file manager")
    assert plain(merge_parts(tmp_path / "out", parts)) == whole
    for file in tmp_path.glob(f"?/{folder}/[!.]*"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(dm.DataError, match=f"{folder}/.* expected what its part wrote"):
        merge_parts(tmp_path / "out", parts)


def test_chunks_of_a_cluster_are_the_whole_and_go_on(tiny, whole, tmp_path, monkeypatch):
    """What Ray does with the work, in this process: chunk by chunk, nothing kept between them."""

    def look(place, work, numbers, done):
        for at in range(0, len(numbers), 2):
            chunk = numbers[at : at + 2]
            yield from list(copy.copy(work).open(0)(iter(chunk), lambda _: None))
            for number in chunk:
                done(number)

    def kill(stage, done, total):
        if done == 4:
            raise Killed

    monkeypatch.setattr(Place, "look", look)
    options = Options(examples=1, place=Place(engine="ray", threads=torch.get_num_threads()))
    assert plain(dm.evaluate(tiny, streets(), SCORES, **wanted(options=options))) == whole
    asked = wanted(options=options, progress=kill)
    with pytest.raises(Killed):
        dm.evaluate(tiny, streets(), SCORES, out=tmp_path, **asked)
    asked = wanted(options=options)
    assert plain(dm.evaluate(tiny, streets(), SCORES, out=tmp_path, resume=True, **asked)) == whole


def test_workers_one_killed_give_the_figures_of_one_process(tmp_path):
    """Real processes: in either pass, two workers of which one is killed after an image."""
    killed, network = {}, dm.load("demo")

    def kill(stage, done, total):
        if done and stage not in killed:
            killed[stage] = multiprocessing.active_children()[0].pid
            os.kill(killed[stage], signal.SIGKILL)

    options = Options(examples=1, place=Place(workers=2, threads=torch.get_num_threads()))
    asked = wanted(options=options, progress=kill)
    found = dm.evaluate(network, streets(), "entropy", out=tmp_path, **asked)
    assert [*killed] == ["pixels", "components"]
    assert plain(found) == plain(dm.evaluate(network, streets(), "entropy", **wanted()))
    assert not (tmp_path / ".progress").exists() and not multiprocessing.active_children()


@pytest.mark.parametrize("kept", [0, 2, IMAGES])
def test_workers_look_again_at_what_was_not_kept(tiny, whole, monkeypatch, kept):
    """What they do, in this process: of some images the maps are on the disk, of others not."""

    def look(place, work, numbers, done):
        for at in range(0, len(numbers), 2):
            yield from copy.copy(work).open(0)(iter(numbers[at : at + 2]), done)

    monkeypatch.setattr(Place, "look", look)
    size = 64 * 96 * (4 + 4 * len(SCORES.split(",")))
    monkeypatch.setattr(first_look, "MOST", 2 * kept * size)
    opened = []
    monkeypatch.setattr(Place, "opening", lambda *_: lambda: opened.append(1) or tiny)
    place = Place(workers=2, threads=torch.get_num_threads())
    found = dm.evaluate(tiny, streets(), SCORES, **wanted(options=Options(examples=1, place=place)))
    assert plain(found) == whole
    assert len(opened) == 3 + {0: 3, 2: 2, IMAGES: 0}[kept]  # once in each chunk that asks for it


class Threaded(Tiny):
    """Tells in its logits how many threads it ran on."""

    def forward(self, x):
        return super().forward(x) * torch.get_num_threads()


class TestThreads:
    """Whatever runs the network: figures are those of one process of as many threads."""

    def figures(self, threads=None, place=None, **more):
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        try:
            options = Options(examples=1, place=place or Place())
            network = dm.load(Threaded(), classes=CLASSES)
            return dm.evaluate(network, streets(), SCORES, **wanted(options=options), **more)
        finally:
            torch.set_num_threads(before)

    def test_workers_and_what_this_process_does_for_them(self, monkeypatch):
        if "." in __name__:  # workers find the network's class by the name of this module
            monkeypatch.syspath_prepend(Path(__file__).parents[__name__.count(".")])
        found = self.figures(6, Place(workers=2, threads=3))
        assert found.figures["threads"] == 3
        assert plain(found) == plain(self.figures(3)) != plain(self.figures(6))

    def test_a_run_goes_on_with_the_threads_that_it_began_with(self, tmp_path):
        def kill(stage, done, total):
            if done == 2:
                raise Killed

        with pytest.raises(Killed):
            self.figures(2, out=tmp_path, progress=kill)
        found = self.figures(4, Place(threads=4), out=tmp_path, resume=True)
        assert plain(found) == plain(self.figures(2))

    def test_parts_of_other_threads_are_merged_with_a_note(self, tmp_path):
        network, parts = dm.load(Threaded(), classes=CLASSES), [tmp_path / "1", tmp_path / "2"]
        for number, threads in ((1, 2), (2, 3)):
            place = Place(part=PartNumber(number, 2), threads=threads)
            asked = wanted(options=Options(examples=1, place=place))
            evaluate_part(asked_of(network, streets(), SCORES, **asked), parts[number - 1])
        figures = merge_parts(tmp_path / "out", parts).figures
        assert figures["threads"] == [2, 3]
        assert "PyTorch had 2 and 3 threads in different parts" in figures["notes"][-1]
