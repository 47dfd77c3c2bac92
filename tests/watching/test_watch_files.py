"""What a watch leaves on disk: going on, its folder and page, damaged states, its command."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from lit_scenes import CHOSEN, CLASSES, Scenes, replace_copy
from PIL import Image

import doubtmap as dm
from doubtmap.datasets.pasting import Part
from doubtmap.decisions.file import save_threshold
from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.watching import Watch, write_watch
from doubtmap.watching.state import State


def test_ten_and_ten_are_twenty(begun, fresh_segmenter, tmp_path):
    images = Scenes(20, 2)
    parts = replace_copy(begun)
    parts.update(Part(images, range(10), "first"))
    parts.save(tmp_path / "state.json")
    resumed = Watch.resume(tmp_path / "state.json", fresh_segmenter())
    half = resumed.update(Part(images, range(10, 20), "second")).figures
    whole = begun.update(images).figures
    assert half.pop("looks") == 2 and whole.pop("looks") == 1
    assert half == whole
    resumed.save(tmp_path / "parts.json")
    begun.state = replace(begun.state, looks=2)
    begun.save(tmp_path / "whole.json")
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_the_folder_goes_on_and_its_page_says_so(fresh_segmenter, promise, tmp_path):
    out, segmenter = tmp_path / "watch", fresh_segmenter()
    first = {"promise": promise, "reference": Scenes(24, 1)}
    verdict, notes = write_watch(segmenter, None, out, **first)
    assert (verdict.images, verdict.p, notes) == (0, None, [])
    write_watch(segmenter, Scenes(10, 2), out)
    verdict, notes = write_watch(segmenter, Scenes(15, 3, 0.3), out, **first)
    assert json.loads((out / "watch.json").read_text()) == json.loads(json.dumps(verdict.figures))
    page = (out / "watch.html").read_text()
    assert "<h1>Alarm</h1>" in page and "What changed" in page and page.count("<svg") == 1
    verdict, notes = write_watch(segmenter, Scenes(10, 2), out, labelled=Scenes(3, 7))
    assert notes == ["10 images had been seen before, and are left out."]
    assert verdict.figures["risk"]["images"] == 3
    assert (out / "watch.html").read_text().count("<svg") == 2


def test_a_folder_keeps_to_what_it_was_begun_with(begun, promise, tmp_path):
    out, segmenter = tmp_path / "out", begun.promise.segmenter
    with pytest.raises(UsageError, match=r"no --reference; there is no"):
        write_watch(segmenter, Scenes(1, 2), out, promise=promise)
    out.mkdir()
    begun.save(out / "state.json")
    with pytest.raises(UsageError, match=r"--false-alarms 0.05"):
        write_watch(segmenter, Scenes(1, 2), out, rate=0.01)
    with pytest.raises(UsageError, match=r"--block 1"):
        write_watch(segmenter, Scenes(1, 2), out, block=2)
    with pytest.raises(UsageError, match="with other images"):
        write_watch(segmenter, Scenes(1, 2), out, reference=Scenes(24, 9))


def test_states_of_something_else(begun, fresh_segmenter, tmp_path, promise):
    file, segmenter = tmp_path / "state.json", fresh_segmenter()
    begun.save(file)
    other = dm.load(torch.nn.Conv2d(3, 8, 1), classes=CLASSES)
    with pytest.raises(ModelError, match="the network that it watches"):
        Watch.resume(file, other)
    save_threshold(replace(CHOSEN, threshold=0.25), promise)
    with pytest.raises(UsageError, match="the promise that it watches"):
        Watch.resume(file, segmenter)
    with pytest.raises(DataError, match="Begin anew with: doubtmap watch"):
        State.load(promise)


@pytest.mark.parametrize(
    "damage",
    [
        {"rate": 2},
        {"reference": []},
        {"new": [["mark", 1.0]]},
        {"losses": [["mark", {"loss": "much"}]]},
        {"losses": [["mark", {"other": 0.1}]]},
        {"limits": {"loss": 2}},
        {"scores": [{}, {"9999": 1.0}]},
        {"looks": None},
    ],
)
def test_damaged_states_are_one_sentence(begun, tmp_path, damage):
    file = tmp_path / "state.json"
    begun.save(file)
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(DataError, match="expected the state of a watch"):
        State.load(file)


class Ends(Part):
    """A data set whose pass is ended from outside at one of its images."""

    def __init__(self, dataset, at):
        super().__init__(dataset, range(len(dataset)), "ends")
        object.__setattr__(self, "at", at)

    def __getitem__(self, index):
        if index == self.at:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.mark.parametrize("stops", [[7], [0], [3, 3, 11]])
def test_what_is_stopped_goes_on_to_the_same_evidence(begun, fresh_segmenter, tmp_path, stops):
    images, place = Scenes(14, 2), tmp_path / "state.json"
    begun.save(place)
    for at in stops:
        watch = Watch.resume(place, fresh_segmenter())
        with pytest.raises(KeyboardInterrupt):
            watch.update(Ends(images, at), place=place)
        assert len(State.load(place).new) == at
    watch = Watch.resume(place, fresh_segmenter())
    found, whole = watch.update(images, place=place), begun.update(images)
    assert watch.again == stops[-1]
    assert np.array_equal(found.evidence, whole.evidence)
    assert found.figures | {"looks": 1} == whole.figures
    assert np.array_equal(State.load(place).scores, begun.state.scores)


def test_a_killed_watch_has_what_was_written_while_images_came(begun, tmp_path, monkeypatch):
    place, written = tmp_path / "state.json", []
    monkeypatch.setattr("doubtmap.watching.watch.SECONDS", 0.0)
    monkeypatch.setattr("doubtmap.watching.watch.monotonic", lambda: 0.0)

    def look(*_):
        written.append(len(State.load(place).new))

    begun.update(Scenes(4, 2), place=place, progress=look)
    assert written == [1, 2, 3, 4]


def test_labels_that_were_looked_at_stay_too(begun, fresh_segmenter, tmp_path):
    labelled, place = Scenes(5, 6), tmp_path / "state.json"
    with pytest.raises(KeyboardInterrupt):
        begun.check(Ends(labelled, 3), place=place)
    watch = Watch.resume(place, fresh_segmenter())
    assert len(watch.state.losses) == 3
    assert watch.check(labelled).risk.losses == 5


def test_the_command_ends_with_three_on_alarm(run, tmp_path, promise):
    def written(folder, dataset):
        (tmp_path / folder).mkdir()
        for at in range(len(dataset)):
            pixels = dataset[at].image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / folder / f"{at}.png")
        return tmp_path / folder

    usual, dark = written("usual", Scenes(30, 1)), written("dark", Scenes(20, 3, 0.3))
    out = tmp_path / "watch"
    code, said, err = run("watch", "demo", "--promise", promise, "--out", out)
    assert (code, said) == (2, "") and "expected new images, --reference" in err
    code, said, err = run("watch", "demo", "--promise", promise, "--reference", usual, "--out", out)
    assert (code, said) == (0, f"{out}: a reference of 30 images, and no new image yet\n"), err
    code, said, err = run("watch", "demo", dark, "--out", out, "--json")
    assert code == 3, err
    assert said.count("\n") == 1 and json.loads(said)["alarm"]
    assert math.isfinite(json.loads(said)["evidence"])
    code, said, _ = run("watch", "demo", dark, "--out", out)
    assert code == 3 and said.startswith(f"{out}: ALARM after ")


def test_frames_of_a_film_are_watched(run, tmp_path, promise):
    pytest.importorskip("av", reason="PyAV is not installed")
    from doubtmap.films.frames import write_film

    def filmed(name, dataset):
        frames = (each.image.permute(1, 2, 0).numpy() for each in dataset)
        write_film(tmp_path / name, frames, Fraction(10))
        return tmp_path / name

    out, usual = tmp_path / "watch", tmp_path / "usual"
    usual.mkdir()
    for at, each in enumerate(Scenes(30, 1)):
        Image.fromarray(each.image.permute(1, 2, 0).numpy()).save(usual / f"{at}.png")
    begin = ("watch", "demo", "--promise", promise, "--reference", usual, "--out", out)
    film = filmed("drive.mp4", Scenes(24, 3, 0.3))
    code, _, err = run(*begin, film, "--every", "2", "--limit", "5", "--json")
    assert code in (0, 3), err
    code, said, err = run("watch", "demo", film, "--out", out, "--json")
    assert code == 3, err
    assert json.loads(said)["images"] == 24 and "5 images had been seen before" in err
    found = []
    for batch in ("1", "4"):
        asked = (*begin[:-1], tmp_path / batch, film, "--every", "3", "--batch", batch, "--json")
        code, said, err = run(*asked)
        assert code in (0, 3), err
        found.append(json.loads(said))
    assert found[0]["images"] == found[1]["images"] == 8
    one, other = (each["expected_wrong"]["new"] for each in found)
    assert other["value"] == pytest.approx(one["value"], rel=1e-4)
    assert other["interval"] == pytest.approx(one["interval"], rel=1e-4)
    code, _, err = run("watch", "demo", film, usual, "--out", out)
    assert code == 2 and "expected films or other images, got both" in err
    code, _, err = run("watch", "demo", usual, "--every", "2", "--out", out)
    assert code == 2 and "expected no --every with images" in err
    code, _, err = run("watch", "demo", film, "--workers", "2", "--out", out)
    assert code == 2 and "expected no --workers with films" in err
