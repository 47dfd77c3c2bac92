"""What a run leaves of an earlier one in its folder: none of its pictures and tables."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm
from doubtmap.datasets.corruptions import Corrupted
from doubtmap.engine.places import PartNumber, Place
from doubtmap.evaluation.asking import Options, asked_of
from doubtmap.evaluation.parts import evaluate_part, merge_parts
from doubtmap.evaluation.report import write_evaluation
from doubtmap.files.earlier import begin_in
from doubtmap.images import merge_scores, write_scores
from doubtmap.objects import ObjectRule
from doubtmap.objects.parts import merge_objects
from doubtmap.objects.writing import write_objects
from doubtmap.scores.parsing import parse_scores
from doubtmap.segments.fitting import fit_segments
from doubtmap.segments.page import write_review
from doubtmap.segments.parts import merge_reviews
from doubtmap.streets.synthetic import SyntheticStreets


@pytest.fixture(scope="module")
def network():
    return dm.load("demo")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    base, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for at in range(3):
        pixels = draw.integers(0, 255, (32, 40, 3), np.uint8)
        Image.fromarray(pixels).save(base / f"{at}.png")
    return sorted(base.iterdir())


@pytest.fixture(scope="module")
def runs(network):
    """Of each command: what writes a run of some images, or a part of it, and what merges parts."""
    entropy = next(iter(parse_scores("entropy").items()))
    streets = SyntheticStreets(3, seed=3, size=(64, 96))
    meta = fit_segments(network, streets, "entropy", kind="linear", compare=False).model

    def score(paths, out, part=None, scores="entropy,energy"):
        write_scores(network, paths, parse_scores(scores), out, part=part)

    def objects(paths, out, part=None):
        write_objects(network, paths, entropy, ObjectRule(1.0, smallest=1), out, part=part)

    def review(paths, out, part=None):
        write_review(network, paths, meta, out, part=part)

    return {
        "score": (score, merge_scores),
        "objects": (objects, merge_objects),
        "review": (review, merge_reviews),
    }


def files_in(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("command", ["score", "objects", "review"])
def test_a_run_removes_what_an_earlier_one_wrote_and_nothing_else(runs, paths, tmp_path, command):
    write, merge = runs[command]
    out, alone, whole = tmp_path / "out", tmp_path / "alone", tmp_path / "whole"
    write(paths, out)
    own = {"mine.txt", "overlay/mine.png", "segments/0.txt"}
    for name in own:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("kept")
    write(paths[1:], alone)
    write(paths[1:], out)
    assert files_in(out) == files_in(alone) | own and len(files_in(alone)) > 3
    # a part takes all that belongs to a whole run away, and a merge what belongs to its part
    write(paths, whole)
    write(paths, out, PartNumber(1, 2))
    write(paths, tmp_path / "part", PartNumber(1, 2))
    assert files_in(out) == files_in(tmp_path / "part") | own
    write(paths[1:], tmp_path / "only", PartNumber(1, 1))
    merge(whole, [tmp_path / "only"])
    assert files_in(whole) == files_in(alone)
    assert (out / "mine.txt").read_text() == "kept"


def test_folders_of_scores_that_are_not_asked_for_go(runs, paths, tmp_path):
    write, _ = runs["score"]
    write(paths, tmp_path)
    assert (tmp_path / "energy").is_dir()
    write(paths, tmp_path, scores="entropy")
    assert not (tmp_path / "energy").exists() and (tmp_path / "entropy/0.png").exists()


def test_a_run_of_another_command_stays(runs, paths, tmp_path):
    runs["score"][0](paths, tmp_path)
    before = files_in(tmp_path)
    runs["objects"][0](paths[:1], tmp_path)
    assert before < files_in(tmp_path)


def test_a_resumed_run_keeps_what_is_done(tmp_path):
    begin_in(tmp_path, "score", ["a", "b"], ["maps/*.png"])
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").touch()
    begin_in(tmp_path, "score", ["b", "c"], ["maps/*.png"], resume=True)
    assert (tmp_path / "maps/a.png").exists()
    begin_in(tmp_path, "score", ["c"], ["maps/*.png"])
    assert not (tmp_path / "maps").exists()


def test_files_outside_of_the_folder_are_never_removed(tmp_path):
    (tmp_path / "mine.png").touch()
    out, absolute = tmp_path / "out", str(tmp_path / "*.png")
    out.mkdir()
    begin_in(out, "score", ["mine"], ["../*.png", absolute])
    begin_in(out, "score", ["../mine"], ["*.png"])
    begin_in(out, "score", ["mine"], [])
    assert (tmp_path / "mine.png").exists()


@pytest.mark.parametrize("said", ["", "[]", '{"names": 3, "forms": ["*.png"]}', "\x00"])
def test_a_note_of_somebody_else_removes_nothing(tmp_path, said):
    (tmp_path / ".files-of-score.json").write_text(said)
    (tmp_path / "a.png").touch()
    begin_in(tmp_path, "score", ["b"], ["*.png"])
    assert (tmp_path / "a.png").exists()
    noted = json.loads((tmp_path / ".files-of-score.json").read_text())
    assert noted == {"forms": ["*.png"], "names": ["b"], "before": []}


def test_what_lay_there_before_a_run_stays_for_good(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.png").write_text("mine")
    for resume in (False, True, False, False):
        begin_in(tmp_path, "evaluate", ["a", "x/b"], ["labels/*.png"], resume=resume)
        (tmp_path / "labels/x").mkdir(exist_ok=True)
        (tmp_path / "labels/x/b.png").touch()
    begin_in(tmp_path, "evaluate", [], [])
    assert files_in(tmp_path) == {"labels/a.png"} and not (tmp_path / "labels/x").exists()


class TestEvaluate:
    """Maps that `--maps` keeps, and what a part finds where a whole evaluation was."""

    def evaluated(self, out, count, maps=True):
        network, streets = dm.load("demo"), SyntheticStreets(count, size=(64, 64))
        options = Options(
            maps=out if maps else None, save=lambda results: write_evaluation(results, out)
        )
        asked = {"unknown": "rest", "replicates": 5, "options": options}
        dm.evaluate(network, streets, "entropy", out=out, **asked)

    def test_maps_of_images_that_are_not_looked_at_go(self, tmp_path):
        self.evaluated(tmp_path, 3)
        before = files_in(tmp_path)
        self.evaluated(tmp_path, 2)
        gone = before - files_in(tmp_path)
        assert len(gone) == 4 and len({name.split("/")[-1].split(".")[0] for name in gone}) == 1
        self.evaluated(tmp_path, 2, maps=False)
        assert files_in(tmp_path) == {"results.json", "curves.json", "report.html"}

    @pytest.mark.parametrize(
        ("folder", "noisy", "refused"),
        [("labels", False, True), ("masks", False, False), ("masks", True, True)],
    )
    def test_maps_are_not_written_over_the_data(self, tmp_path, folder, noisy, refused):
        mine = {"images/a.jpg": "RGB", f"{folder}/a.png": "L"}
        for name, mode in mine.items():
            (tmp_path / name).parent.mkdir()
            Image.new(mode, (32, 32)).save(tmp_path / name)
        about = f'images = "images/*.jpg"\nlabels = "{folder}/{{stem}}.png"\n[classes]\nsky = 0'
        (tmp_path / "doubtmap.toml").write_text(about)
        before = {name: (tmp_path / name).read_bytes() for name in mine}
        data = dm.datasets.open_dataset(f"folder:{tmp_path}")
        data = Corrupted(data, "noise", 1) if noisy else data
        asked = {"out": tmp_path, "options": Options(maps=tmp_path), "replicates": 5}
        for _ in range(2):  # the second removes what the first has written
            with nullcontext() if not refused else pytest.raises(dm.UsageError, match="--maps"):
                dm.evaluate(dm.load("demo"), data, "entropy", **asked)
        assert before == {name: (tmp_path / name).read_bytes() for name in mine}

    def test_a_part_takes_the_whole_evaluation_away(self, tmp_path):
        self.evaluated(tmp_path, 2)
        place = Place(PartNumber(1, 1))
        asked = asked_of(
            *(dm.load("demo"), SyntheticStreets(2, size=(64, 64)), "entropy"),
            unknown="rest",
            replicates=5,
            options=Options(place=place),
        )
        evaluate_part(asked, tmp_path)
        found = files_in(tmp_path)
        assert "part.json" in found and not found & {"results.json", "report.html"}
        assert not any(name.startswith(("classes/", "labels/", "entropy/")) for name in found)
        merge_parts(tmp_path / "out", [tmp_path])
