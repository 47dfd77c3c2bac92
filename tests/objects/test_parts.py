"""Parts of `objects`: merged, the files of one process, to the last byte."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.engine.parts import write_part
from doubtmap.engine.places import PartNumber
from doubtmap.errors import DataError, UsageError
from doubtmap.objects import ObjectRule
from doubtmap.objects.parts import merge_objects
from doubtmap.objects.writing import Form, write_objects
from doubtmap.scores.parsing import parse_scores

IMAGES = 5
RULE = ObjectRule(1.3, smallest=4)
PLACED = (1, 3)
"""Images that lie somewhere on earth."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return dm.load(torch.nn.Conv2d(3, 4, 5, padding=2), mean=[0.5] * 3, std=[0.2] * 3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    base, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for at in range(IMAGES):
        (base / str(at % 2)).mkdir(exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 255, (6, 8, 3), np.uint8))
        coarse.resize((40 + at, 30), Image.Resampling.BICUBIC).save(
            base / f"{at % 2}/{at // 2}.png"
        )
    found = sorted(base.rglob("*.png"))
    for at in PLACED:
        found[at].with_suffix(".pgw").write_text(f"1\n0\n0\n-1\n{300000 + 100 * at}\n5000000\n")
    return found


def objects(network, paths, out, part=None, rule=RULE, **more):
    form = more.pop("form", Form(simplify=1, crs="EPSG:32633"))
    scored = next(iter(parse_scores("entropy").items()))
    return write_objects(network, paths, scored, rule, out, part=part, form=form, **more)


def files_in(folder):
    """All files of a run but what says by which command it was made."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    coco = json.loads(found.pop("objects.json"))
    coco["info"].pop("command", None)
    return found | {"coco": json.dumps(coco)}


@pytest.fixture(scope="module")
def whole(network, paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, objects(network, paths, out)


@pytest.fixture(scope="module")
def three(network, paths, tmp_path_factory):
    base = tmp_path_factory.mktemp("parts")
    folders = [base / str(number) for number in (1, 2, 3)]
    for number, out in enumerate(folders, 1):
        objects(network, paths, out, PartNumber(number, 3))
    return folders


def test_parts_in_any_order_are_the_whole(three, whole, tmp_path):
    one, said = whole
    assert said["objects"] > 2 * IMAGES and (one / "objects.geojson").exists()
    for order in (three, three[::-1], [three[1], three[2], three[0]]):
        out = tmp_path / "out"
        found = merge_objects(out, order)
        assert files_in(out) == files_in(one)
        places = {"files": [str(one / p.split("/")[-1]) for p in found["files"]]}
        assert found | places == json.loads(json.dumps(said))


@pytest.mark.parametrize("of", [1, 7])
def test_any_number_of_parts_is_the_whole(network, paths, whole, tmp_path, of):
    """Of seven parts of five images two have none."""
    parts = [tmp_path / str(number) for number in range(1, of + 1)]
    for number, out in enumerate(parts, 1):
        objects(network, paths, out, PartNumber(number, of))
    merge_objects(tmp_path / "out", parts)
    assert files_in(tmp_path / "out") == files_in(whole[0])


def test_maps_of_several_reference_systems_are_the_whole(network, paths, tmp_path):
    pyogrio = pytest.importorskip("pyogrio")
    form = Form(crs="EPSG:32633", to=("geojson", "gpkg"))
    for number in (1, 2):
        objects(network, paths, tmp_path / str(number), PartNumber(number, 2), form=form)
    merge_objects(tmp_path / "out", [tmp_path / "2", tmp_path / "1"])
    objects(network, paths, tmp_path / "one", form=form)
    one, other = (pyogrio.raw.read(tmp_path / p / "objects.gpkg") for p in ("one", "out"))
    assert len(one[2]) and [*one[2]] == [*other[2]]
    assert all(np.array_equal(a, b) for a, b in zip(one[3], other[3], strict=True))


def test_images_that_cannot_be_used_are_counted_once(network, paths, tmp_path):
    """One that is no image, and one whose georeference is of no other system than it says."""
    bad, lost = tmp_path / "bad.png", tmp_path / "lost.png"
    bad.write_bytes(paths[0].read_bytes()[:60])
    lost.write_bytes(paths[1].read_bytes())
    lost.with_suffix(".pgw").write_text("no numbers\n")
    every = [paths[0], bad, *paths[1:3], lost]
    for number in (1, 2, 3):
        objects(network, every, tmp_path / str(number), PartNumber(number, 3), skip_bad=True)
    found = merge_objects(tmp_path / "out", [tmp_path / str(number) for number in (3, 2, 1)])
    one = objects(network, every, tmp_path / "one", skip_bad=True)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")
    assert [*found["skipped"]] == [*one["skipped"]] == [str(lost), str(bad)]


def test_parts_that_do_not_belong_together_are_refused(network, paths, three, tmp_path):
    for parts, says in (
        (three[:2], "3/3 is missing|3 of 3 is missing"),
        ([*three, three[0]], "part 1/3 is there twice"),
        ([], "got none"),
    ):
        with pytest.raises(UsageError, match=says):
            merge_objects(tmp_path / "out", parts)
    with pytest.raises(UsageError, match="none of the parts'"):
        merge_objects(three[0], three)
    others = {
        "--threshold": {"rule": ObjectRule(1.2, smallest=4)},
        "--encoding, --simplify": {"form": Form(encoding="rle", crs="EPSG:32633")},
    }
    for number, (says, more) in enumerate(others.items()):
        objects(network, paths, tmp_path / str(number), PartNumber(3, 3), **more)
        with pytest.raises(UsageError, match=f"but {says} differ between"):
            merge_objects(tmp_path / "out", [*three[:2], tmp_path / str(number)])
    objects(network, paths[:4], tmp_path / "few", PartNumber(3, 3))
    with pytest.raises(UsageError, match="images differ between"):
        merge_objects(tmp_path / "out", [*three[:2], tmp_path / "few"])
    objects(network, paths, tmp_path / "torn", PartNumber(3, 3))
    picture = next((tmp_path / "torn/overlay").iterdir())
    picture.write_bytes(picture.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match=r"torn/overlay/.*png: cannot be used: expected what its"):
        merge_objects(tmp_path / "out", [*three[:2], tmp_path / "torn"])
    picture.unlink()
    with pytest.raises(DataError, match=r"torn/overlay/.*png: cannot be used"):
        merge_objects(tmp_path / "out", [*three[:2], tmp_path / "torn"])
    about = json.loads((three[2] / "part.json").read_text())
    shapes = "{", "3", "[]", "{}", json.dumps(about | {"found": 3}), json.dumps(about | {"own": []})
    for text in shapes:
        (tmp_path / "few/part.json").write_text(text)
        with pytest.raises(DataError, match="ake the part again"):
            merge_objects(tmp_path / "out", [*three[:2], tmp_path / "few"])
    (tmp_path / "few/part.json").unlink()
    with pytest.raises(DataError, match="a part of doubtmap objects that is finished"):
        merge_objects(tmp_path / "out", [*three[:2], tmp_path / "few"])


@pytest.mark.parametrize(
    "asked", ["rule", "probability", "simplify", "encoding", "crs", "to", "range", "seed"]
)
def test_a_part_that_was_asked_for_otherwise_is_refused(three, tmp_path, asked):
    about = json.loads((three[2] / "part.json").read_text())
    del about["digest"]
    about["info"][asked] = "another"
    write_part(tmp_path, "objects", PartNumber(3, 3), about)
    with pytest.raises(UsageError, match=f"but (--)?{asked} differ"):
        merge_objects(tmp_path / "out", [*three[:2], tmp_path])


def test_a_part_of_another_run_where_the_results_go_is_none_any_more(
    network, paths, three, tmp_path
):
    objects(network, paths, tmp_path, PartNumber(1, 7))
    merge_objects(tmp_path, three)
    assert not (tmp_path / "part.json").exists()


def test_a_part_that_is_begun_anew_and_stopped_is_none(network, paths, tmp_path):
    objects(network, paths, tmp_path, PartNumber(1, 3))
    assert (tmp_path / "part.json").exists()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        objects(network, paths, tmp_path, PartNumber(1, 3), progress=stop)
    with pytest.raises(DataError, match="that is finished, found none"):
        merge_objects(tmp_path / "out", [tmp_path])


def test_the_commands(run, paths, tmp_path):
    images = paths[0].parents[1]
    words = ["objects", "demo", images, "--score", "entropy", "--threshold", "1", "--crs"]
    words += ["EPSG:32633", "--smallest", "4"]
    for number in (1, 2):
        part = ["--part", f"{number}/2", "--out", tmp_path / str(number)]
        code, said, error = run(*words, *part)
        assert code == 0, error
        assert said.startswith(f"Part {number}/2: ") and "doubtmap merge OUT PART1 PART2" in said
    code, _, error = run(*words, *part, "--parquet")
    assert code == 2 and "Give it to doubtmap merge" in error
    parts = [tmp_path / "1", tmp_path / "2"]
    code, said, error = run("merge", tmp_path / "out", *parts)
    assert code == 0 and said.rstrip().endswith(f"objects in 5 images: {tmp_path / 'out'}"), error
    code, said, _ = run("merge", tmp_path / "out", *parts, "--json")
    assert code == 0 and json.loads(said)["images"] == 5
    assert run(*words, "--out", tmp_path / "one")[0] == 0
    found, one = files_in(tmp_path / "out"), files_in(tmp_path / "one")
    one.pop("options.toml", None), found.pop("options.toml", None)
    assert found == one
    code, _, error = run("merge", tmp_path / "out", *parts, "--csv")
    assert code == 2 and "expected no --csv with parts of objects" in error
