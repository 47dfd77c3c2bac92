"""Parts of scored images: merged, the files of one process, to the last byte."""

import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.engine.parts import check_files
from doubtmap.engine.places import PartNumber
from doubtmap.errors import DataError, UsageError
from doubtmap.files.resuming import sha256_of
from doubtmap.images import merge_scores, write_scores
from doubtmap.scores.parsing import parse_scores

SCORES = "entropy,energy,max_logit"
IMAGES = 5
RANGE = (0, 200)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return dm.load(torch.nn.Conv2d(3, 4, 3, padding=1), mean=[0] * 3, std=[1] * 3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    base, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for at in range(IMAGES):
        (base / str(at % 2)).mkdir(exist_ok=True)
        pixels = draw.integers(0, 255 - 40 * at, (20, 30 + at, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / str(at % 2) / f"{at // 2}.png")
    return sorted(base.rglob("*.png"))


def score(network, paths, out, **more):
    return write_scores(network, paths, parse_scores(SCORES), out, **more)


def files_in(folder):
    """All files of a run; of what says how it was made, what must be the same."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    about = json.loads(found.pop("score.json"))
    del about["command"]
    return found | {"about": about}


@pytest.fixture(scope="module")
def whole(network, paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    score(network, paths, out)
    return files_in(out)


@pytest.fixture(scope="module")
def three(network, paths, tmp_path_factory):
    base = tmp_path_factory.mktemp("parts")
    folders = [base / str(number) for number in (1, 2, 3)]
    for number, out in enumerate(folders, 1):
        score(network, paths, out, part=PartNumber(number, 3))
    return folders


def test_parts_in_any_order_are_the_whole(three, whole, tmp_path):
    before = [sorted(map(str, folder.rglob("*"))) for folder in three]
    for order in itertools.permutations(three):
        said = merge_scores(tmp_path / "out", order)
        assert said.startswith("5 of 5 images scored: ")
        assert files_in(tmp_path / "out") == whole
    assert [sorted(map(str, folder.rglob("*"))) for folder in three] == before


@pytest.mark.parametrize("of", [1, 7])
@pytest.mark.parametrize("format", ["png", "npy"])
def test_any_number_of_parts_is_the_whole(network, paths, tmp_path, of, format):
    """Of seven parts of five images two have none."""
    parts = [tmp_path / str(number) for number in range(1, of + 1)]
    for number, out in enumerate(parts, 1):
        score(network, paths, out, part=PartNumber(number, of), format=format)
    merge_scores(tmp_path / "out", parts)
    score(network, paths, tmp_path / "one", format=format)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")


def test_a_part_that_was_stopped_goes_on(network, paths, three, whole, tmp_path):
    class Killed(Exception):
        pass

    def kill(*_):
        raise Killed

    part, out = PartNumber(1, 2), tmp_path / "1"
    with pytest.raises(Killed):
        score(network, paths, out, part=part, progress=kill)
    with pytest.raises(DataError, match=r"finished, found one that was stopped. Go on with"):
        merge_scores(tmp_path / "out", [out, three[0]])
    score(network, paths, out, part=part, resume=True)
    with pytest.raises(UsageError, match="part"):
        score(network, paths, out, part=PartNumber(2, 2), resume=True)
    score(network, paths, tmp_path / "2", part=PartNumber(2, 2))
    merge_scores(tmp_path / "out", [tmp_path / "2", out])
    assert files_in(tmp_path / "out") == whole


def test_bad_images_are_counted_over_all_parts(network, paths, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(paths[0].read_bytes()[:60])
    every = [paths[0], bad, paths[1]]
    asked = {"skip_bad": True, "range": RANGE}
    for number in (1, 2, 3):
        score(network, every, tmp_path / str(number), part=PartNumber(number, 3), **asked)
    said = merge_scores(tmp_path / "out", [tmp_path / str(number) for number in (1, 2, 3)])
    assert said.startswith("2 of 3 images scored")
    score(network, every, tmp_path / "one", **asked)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")


def test_parts_that_do_not_belong_together_are_refused(network, paths, three, tmp_path):
    for parts, says in (
        (three[:2], "3 of 3 is missing"),
        ([*three, three[0]], "part 1/3 is there twice"),
        ([], "got none"),
    ):
        with pytest.raises(UsageError, match=says):
            merge_scores(tmp_path / "out", parts)
    others = ({"format": "npy"}, {"range": (0.0, 9.0)})
    for number, more in enumerate(others):
        other = tmp_path / str(number)
        score(network, paths, other, part=PartNumber(3, 3), **more)
        with pytest.raises(UsageError, match=f"but .*{next(iter(more))}.* differ between"):
            merge_scores(tmp_path / "out", [*three[:2], other])
    score(network, paths[:4], tmp_path / "few", part=PartNumber(3, 3))
    with pytest.raises(UsageError, match="images differ between"):
        merge_scores(tmp_path / "out", [*three[:2], tmp_path / "few"])
    (tmp_path / "few/part.json").write_text("{")
    with pytest.raises(DataError, match="Make the part again"):
        merge_scores(tmp_path / "out", [*three[:2], tmp_path / "few"])


@pytest.mark.parametrize(
    "name", ["overlay", "classes", "entropy", ".waiting/energy", ".waiting/overlay", ""]
)
def test_files_that_are_not_as_the_part_wrote_them_are_refused(
    network, paths, three, tmp_path, name
):
    """Cut short, of another run, or gone; also the settings."""
    part = tmp_path / "3"
    asked = parse_scores("energy,entropy" if name == ".waiting/overlay" else SCORES)
    write_scores(network, paths, asked, part, part=PartNumber(3, 3))
    others = [tmp_path / "1", tmp_path / "2"]
    for number, out in enumerate(others, 1):
        write_scores(network, paths, asked, out, part=PartNumber(number, 3))
    merge_scores(tmp_path / "out", [*others, part])
    before = files_in(tmp_path / "out")
    file = next((part / name).glob("*.*")) if name else part / "settings.json"
    whole = file.read_bytes()
    for content in (whole[:-4], whole[:-4] + bytes(4)):
        file.unlink()  # what was merged may be a link to it
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{file}: cannot be used: expected what its part"):
            merge_scores(tmp_path / "out", [*others, part])
    file.unlink()
    with pytest.raises(DataError, match=f"{file}: cannot be used.*Make the part again"):
        merge_scores(tmp_path / "out", [*others, part])
    assert files_in(tmp_path / "out") == before  # what was merged before is not lost
    file.write_bytes(whole)
    merge_scores(tmp_path / "out", [*others, part])


@pytest.mark.parametrize("name", ["../mine.png", "a/../../mine.png", "{}/mine.png"])
def test_files_of_a_part_lie_in_its_folder(tmp_path, name):
    """What a part names outside of it is no file of its own, though its hash is right."""
    mine, name = tmp_path / "mine.png", name.format(tmp_path)
    mine.write_text("mine")
    (tmp_path / "part").mkdir()
    with pytest.raises(DataError, match=r"mine\.png: cannot be used"):
        check_files([tmp_path / "part"], [{"hashes": {name: sha256_of(mine)}}])
    assert mine.read_text() == "mine"


def test_images_are_found_from_where_the_parts_were_made(network, paths, tmp_path, monkeypatch):
    place = paths[0].parents[1]
    monkeypatch.chdir(place)
    own = [path.relative_to(place) for path in paths]
    asked, parts = parse_scores("energy"), [tmp_path / "1", tmp_path / "2"]
    for number, out in enumerate(parts, 1):
        write_scores(network, own, asked, out, part=PartNumber(number, 2))
    write_scores(network, own, asked, tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    merge_scores(tmp_path / "out", parts)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")


def test_the_commands(run, paths, tmp_path):
    images, scores = paths[0].parents[1], ["--scores", "entropy,energy"]
    for number in (1, 2):
        words = ["score", "demo", images, *scores, "--part", f"{number}/2"]
        code, said, error = run(*words, "--out", tmp_path / str(number))
        assert code == 0, error
        assert said.startswith(f"Part {number}/2: ") and "doubtmap merge OUT PART1 PART2" in said
    parts = [tmp_path / "1", tmp_path / "2"]
    code, said, error = run("merge", tmp_path / "out", *parts, "--parquet")
    assert code == 0 and said.strip() == f"5 of 5 images scored: {tmp_path / 'out'}", error
    assert run("score", "demo", images, *scores, "--out", tmp_path / "one", "--parquet")[0] == 0
    found, one = files_in(tmp_path / "out"), files_in(tmp_path / "one")
    assert found.keys() | {"options.toml"} == one.keys() | {"options.toml"}
    assert {n: v for n, v in found.items() if n != "options.toml"} == {
        n: v for n, v in one.items() if n != "options.toml"
    }
    words = ["evaluate", "demo", "synthetic:2", "--scores", "entropy", "--part", "1/2"]
    assert run(*words, "--out", tmp_path / "e")[0] == 0
    code, _, error = run("merge", tmp_path / "out", tmp_path / "e", tmp_path / "2")
    assert code == 2 and "expected parts of one command" in error
    code, _, error = run("score", "demo", "film.mp4", "--part", "1/2")
    assert code == 2 and "--part" in error
