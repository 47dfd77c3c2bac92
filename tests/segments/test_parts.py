"""Parts of `review`: merged, the files of one process, to the last byte."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import doubtmap as dm
from doubtmap.engine.places import PartNumber
from doubtmap.errors import DataError, UsageError
from doubtmap.labelling.reviewed import Reviewed
from doubtmap.segments.fitting import fit_segments
from doubtmap.segments.page import Choice, write_review
from doubtmap.segments.parts import merge_reviews
from doubtmap.streets.synthetic import SyntheticStreets

IMAGES = 5
DIVERSE = Choice(3, "quantile", diverse=True, to=("coco",))


@pytest.fixture(scope="module")
def network():
    return dm.load("demo")


@pytest.fixture(scope="module")
def model(network):
    streets = SyntheticStreets(3, seed=3, size=(64, 96))
    return fit_segments(network, streets, "entropy", kind="linear", compare=False).model


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Of images in two folders, some of one name."""
    base, streets = (
        tmp_path_factory.mktemp("images"),
        SyntheticStreets(IMAGES, seed=5, size=(64, 80)),
    )
    for at in range(IMAGES):
        (base / str(at % 2)).mkdir(exist_ok=True)
        pixels = streets[at].image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels[: 40 + at]).save(base / f"{at % 2}/frame_{at // 2}.png")
    return sorted(base.rglob("*.png"))


def reviewed(network, paths, model, out, number=None, choice=DIVERSE, **more):
    part = number and PartNumber(*number)
    handed = Reviewed(out).take
    return write_review(network, paths, model, out, choice=choice, part=part, chosen=handed, **more)


def merged(out, parts):
    return merge_reviews(out, parts, chosen=Reviewed(out).take)


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(network, paths, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, reviewed(network, paths, model, out)


@pytest.fixture(scope="module")
def three(network, paths, model, tmp_path_factory):
    base = tmp_path_factory.mktemp("parts")
    folders = [base / str(number) for number in (1, 2, 3)]
    for number, out in enumerate(folders, 1):
        reviewed(network, paths, model, out, (number, 3))
    return folders


def test_parts_in_any_order_are_the_whole(three, whole, tmp_path):
    one, said = whole
    before = [files_in(folder) for folder in three]
    for order in (three, three[::-1], [three[1], three[2], three[0]]):
        out = tmp_path / "out"
        assert merged(out, order) == said.replace(str(one), str(out))
        assert files_in(out) == files_in(one)
    assert len(files_in(one)) > IMAGES + 4
    assert [files_in(folder) for folder in three] == before


@pytest.mark.parametrize("of", [1, 7])
def test_any_number_of_parts_is_the_whole(network, paths, model, whole, tmp_path, of):
    """Of seven parts of five images two have none."""
    parts = [tmp_path / str(number) for number in range(1, of + 1)]
    for number, out in enumerate(parts, 1):
        reviewed(network, paths, model, out, (number, of))
    merged(tmp_path / "out", parts)
    assert files_in(tmp_path / "out") == files_in(whole[0])


def test_images_that_cannot_be_used_are_counted_once(network, paths, model, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(paths[0].read_bytes()[:60])
    asked = {"choice": Choice(2, "miou"), "skip_bad": True}
    for number in (1, 2, 3):  # the second has no image that can be used
        three = [paths[0], bad, paths[1]]
        reviewed(network, three, model, tmp_path / str(number), (number, 3), **asked)
    said = merged(tmp_path / "out", [tmp_path / str(number) for number in (3, 2, 1)])
    assert said.startswith("2 images reviewed, 1 could not be used, such as bad.png")
    reviewed(network, three, model, tmp_path / "one", **asked)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")


def test_parts_that_do_not_belong_together_are_refused(network, paths, model, three, tmp_path):
    for parts, says in (
        (three[:2], "3 of 3 is missing"),
        ([*three, three[0]], "part 1/3 is there twice"),
    ):
        with pytest.raises(UsageError, match=says):
            merged(tmp_path / "out", parts)
    other, streets = tmp_path / "other", SyntheticStreets(4, seed=4, size=(64, 96))
    again = fit_segments(network, streets, "entropy", kind="linear", compare=False).model
    reviewed(network, paths, again, other, (3, 3))
    with pytest.raises(UsageError, match="but --segments differ between"):
        merged(tmp_path / "out", [*three[:2], other])
    reviewed(network, paths, model, other, (3, 3), choice=Choice(2, "miou"))
    with pytest.raises(
        UsageError, match="but --by, --first or --budget, --diverse, --to differ between"
    ):
        merged(tmp_path / "out", [*three[:2], other])
    reviewed(network, paths, model, other, (3, 3), range=(0, 200))
    with pytest.raises(UsageError, match="but --range differ between"):
        merged(tmp_path / "out", [*three[:2], other])
    reviewed(network, paths[:4], model, other, (3, 3))
    with pytest.raises(UsageError, match="images differ between"):
        merged(tmp_path / "out", [*three[:2], other])


def test_a_part_of_another_run_where_the_results_go_is_none_any_more(
    network, paths, model, three, tmp_path
):
    reviewed(network, paths, model, tmp_path, (1, 7))
    merged(tmp_path, three)
    assert not (tmp_path / "part.json").exists()


def test_a_part_that_is_begun_anew_and_stopped_is_none(network, paths, model, tmp_path):
    reviewed(network, paths, model, tmp_path, (1, 3))
    assert (tmp_path / "part.json").exists()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reviewed(network, paths, model, tmp_path, (1, 3), progress=stop)
    with pytest.raises(DataError, match="that is finished, found none"):
        merged(tmp_path / "out", [tmp_path])


@pytest.mark.parametrize("name", ["segments.csv", "review.safetensors", "segments/1_frame_1.png"])
def test_a_part_that_was_copied_in_part_is_refused(network, paths, model, three, tmp_path, name):
    reviewed(network, paths, model, tmp_path / "3", (3, 3))
    whole = (tmp_path / "3" / name).read_bytes()
    for content in (whole[:-40], whole[:-4] + bytes(4)):
        (tmp_path / "3" / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: cannot be used: expected what its part"):
            merged(tmp_path / "out", [*three[:2], tmp_path / "3"])
    (tmp_path / "3" / name).unlink()
    with pytest.raises(DataError, match="Make the part again"):
        merged(tmp_path / "out", [*three[:2], tmp_path / "3"])


def test_images_are_found_from_where_the_parts_were_made(
    network, paths, model, tmp_path, monkeypatch
):
    """In another folder, where images of the same names lie, too; then where they lie nowhere."""
    made, other, place = tmp_path / "made", tmp_path / "other", paths[0].parents[1]
    for folder in (made, other):
        folder.mkdir()
    shutil.copytree(place, made / "images")
    shutil.copytree(place, other / "images")
    for file in (other / "images").rglob("*.png"):
        Image.new("RGB", (80, 43)).save(file)
    monkeypatch.chdir(made)
    own = [path.relative_to(made) for path in sorted((made / "images").rglob("*.png"))]
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, out in enumerate(parts, 1):
        reviewed(network, own, model, out, (number, 2))
    reviewed(network, own, model, tmp_path / "one")
    monkeypatch.chdir(other)
    merged(tmp_path / "out", parts)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")
    assert json.loads((tmp_path / "out/review.json").read_text())["directory"] == str(made)
    shutil.rmtree(made / "images")
    with pytest.raises(DataError, match=rf"{made}/images/.*found none. Put it back, or merge wh"):
        merged(tmp_path / "out", parts)
    shutil.rmtree(made)
    with pytest.raises(DataError, match=rf"{other}/images/.* 80 x 4\d pixels.*got 80 x 43"):
        merged(tmp_path / "out", parts)


def test_the_commands(run, paths, model, three, tmp_path):
    model.save(tmp_path / "segments.safetensors")
    words = ["review", "demo", paths[0].parents[1], "--segments", tmp_path / "segments.safetensors"]
    words += ["--budget", "3", "--to", "coco"]
    for number in (1, 2):
        out = tmp_path / str(number)
        code, said, error = run(*words, "--part", f"{number}/2", "--out", out)
        assert code == 0, error
        assert said.startswith(f"Part {number}/2: ") and "doubtmap merge OUT PART1 PART2" in said
    parts = [tmp_path / "1", tmp_path / "2"]
    code, merged, error = run("merge", tmp_path / "out", *parts)
    assert code == 0, error
    code, said, _ = run(*words, "--out", tmp_path / "one")
    assert code == 0 and merged == said.replace(str(tmp_path / "one"), str(tmp_path / "out"))
    found, one = files_in(tmp_path / "out"), files_in(tmp_path / "one")
    commands = [json.loads(each.pop("review.json")).pop("command") for each in (found, one)]
    assert len({*commands}) == 2
    for each in (found, one):
        each.pop("options.toml", None), each.pop("review.html")
    assert found == one and np.all([folder.is_dir() for folder in parts])
    code, _, error = run("merge", tmp_path / "out", *parts, "--parquet")
    assert code == 2 and "expected no --parquet with parts of review" in error
    code, _, error = run("merge", tmp_path / "out", parts[0], three[1], parts[1])
    assert code == 2 and "expected parts of one division" in error
