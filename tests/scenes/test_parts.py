"""Parts of rasters that are scored: merged, the files of one process, to the last byte."""

import json
import shutil

import numpy as np
import pytest
import torch

import doubtmap as dm
from doubtmap.engine.places import PartNumber
from doubtmap.errors import DataError, UsageError
from doubtmap.scenes import merge_scenes, write_scenes
from doubtmap.scenes.writing import own_rows
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows import Windows

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")

PLACE = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 320000, 0, -0.5, 2790000)}


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    network.class_names = ["water", "land", "roof"]
    return dm.load(network, mean=[0, 0, 0], std=[1, 1, 1])


def written(path, height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    profile = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **profile | PLACE) as target:
        target.write(pixels)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A mosaic of several strips, and a tile of one."""
    base = tmp_path_factory.mktemp("rasters")
    return [written(base / "mosaic.tif", 300, 170), written(base / "tile.tif", 60, 64, 1)]


def scored(segmenter, paths, out, number=None, scores="entropy,doubt", **more):
    part = number and PartNumber(*number)
    network = Windows(segmenter, 64, 32)
    return write_scenes(network, paths, parse_scores(scores), out, part=part, **more)


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def whole(segmenter, paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, scored(segmenter, paths, out)


@pytest.fixture(scope="module")
def three(segmenter, paths, tmp_path_factory):
    base = tmp_path_factory.mktemp("parts")
    folders = [base / str(number) for number in (1, 2, 3)]
    for number, out in enumerate(folders, 1):
        scored(segmenter, paths, out, (number, 3))
    return folders


def test_parts_in_any_order_are_the_whole(three, whole, tmp_path):
    one, said = whole
    before = [files_in(folder) for folder in three]
    for order in (three, three[::-1]):
        out = tmp_path / "out"
        assert merge_scenes(out, order) == said.replace(str(one), str(out))
        assert files_in(out) == files_in(one)
    assert {"classes/mosaic.tif", "doubt/tile.tif"} < files_in(one).keys()
    assert [files_in(folder) for folder in three] == before
    strips = [{n for n in each if n.startswith(".strips")} for each in before]
    assert all(strips) and len(set.union(*strips)) == sum(map(len, strips)) > 6


@pytest.mark.parametrize("of", [1, 11])
def test_any_number_of_parts_is_the_whole(segmenter, paths, whole, tmp_path, of):
    """Of eleven some have no strip."""
    parts = [tmp_path / str(number) for number in range(1, of + 1)]
    for number, out in enumerate(parts, 1):
        scored(segmenter, paths, out, (number, of))
    merge_scenes(tmp_path / "out", parts)
    assert files_in(tmp_path / "out") == files_in(whole[0])


def test_a_part_that_was_stopped_goes_on(segmenter, paths, three, whole, tmp_path):
    def stop(_, done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    out = tmp_path / "2"
    with pytest.raises(KeyboardInterrupt):
        scored(segmenter, paths, out, (2, 3), progress=stop)
    with pytest.raises(DataError, match="expected a part that is finished, found one that was st"):
        merge_scenes(tmp_path / "out", [three[0], out, three[2]])
    scored(segmenter, paths, out, (2, 3), resume=True)
    merge_scenes(tmp_path / "out", [three[0], out, three[2]])
    assert files_in(tmp_path / "out") == files_in(whole[0])


def test_rows_of_all_images_are_somebodys_once(tmp_path):
    """Of one that cannot be opened, too, so that somebody tells of it."""
    paths = [written(tmp_path / f"{at}.tif", 10 + at, 12) for at in range(3)]
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    paths.insert(1, tmp_path / "bad.tif")
    for of in (1, 2, 5, 50):
        rows = {path: [] for path in paths}
        for number in range(1, of + 1):
            for path, own in own_rows(paths, PartNumber(number, of)).items():
                rows[path] += own
        assert rows == dict(zip(paths, map(list, (range(10), [0], range(11), range(12)))))
    assert own_rows(paths, None) == dict.fromkeys(paths)


def test_rasters_that_cannot_be_used_are_counted_once(segmenter, paths, tmp_path):
    (tmp_path / "bad.tif").write_bytes(b"no raster")
    every = [paths[1], tmp_path / "bad.tif", paths[0]]
    for number in (1, 2):
        scored(segmenter, every, tmp_path / str(number), (number, 2), skip_bad=True)
    said = merge_scenes(tmp_path / "out", [tmp_path / "2", tmp_path / "1"])
    assert said.startswith("2 of 3 images scored, 1 could not be used, such as bad.tif")
    scored(segmenter, every, tmp_path / "one", skip_bad=True)
    assert files_in(tmp_path / "out") == files_in(tmp_path / "one")


def test_parts_that_do_not_belong_together_are_refused(segmenter, paths, three, tmp_path):
    with pytest.raises(UsageError, match="3 of 3 is missing"):
        merge_scenes(tmp_path / "out", three[:2])
    other = tmp_path / "other"
    scored(segmenter, paths, other, (3, 3), "entropy")
    with pytest.raises(UsageError, match="but --scores differ between"):
        merge_scenes(tmp_path / "out", [*three[:2], other])
    scored(segmenter, paths[:1], other, (3, 3))
    with pytest.raises(UsageError, match="but images differ between"):
        merge_scenes(tmp_path / "out", [*three[:2], other])
    scored(segmenter, paths, other, (3, 3))
    strip = next((other / ".strips").rglob("*.safetensors"))
    strip.write_bytes(strip.read_bytes()[:-8] + bytes(8))
    with pytest.raises(DataError, match=f"{strip}: cannot be used: expected what its part"):
        merge_scenes(tmp_path / "out", [*three[:2], other])


def test_a_raster_that_is_another_now_is_refused(segmenter, paths, tmp_path):
    own = tmp_path / "own.tif"
    shutil.copy(paths[1], own)
    scored(segmenter, [own], tmp_path / "1", (1, 1))
    written(own, 60, 66)
    with pytest.raises(DataError, match="expected the image that the parts have seen, of 64 x 60"):
        merge_scenes(tmp_path / "out", [tmp_path / "1"])
    own.unlink()
    with pytest.raises(DataError, match=r"own.tif: expected an image, .*merge where the images"):
        merge_scenes(tmp_path / "out", [tmp_path / "1"])


def test_the_commands(run, paths, tmp_path):
    words = ["score", "demo", *paths, "--scores", "entropy", "--tile", "192"]
    for number in (1, 2):
        part = ["--part", f"{number}/2", "--out", tmp_path / str(number)]
        code, said, error = run(*words, *part)
        assert code == 0, error
        assert said.startswith(f"Part {number}/2: ") and "doubtmap merge OUT PART1 PART2" in said
    code, said, error = run("merge", tmp_path / "out", tmp_path / "1", tmp_path / "2")
    assert code == 0 and said.startswith("2 of 2 images scored"), error
    assert run(*words, "--out", tmp_path / "one")[0] == 0
    found, one = (json.loads((tmp_path / n / "score.json").read_text()) for n in ("out", "one"))
    assert found.pop("command") != one.pop("command") and found == one
    for name in ("mosaic", "tile"):
        with (
            rasterio.open(tmp_path / f"out/entropy/{name}.tif") as a,
            rasterio.open(tmp_path / f"one/entropy/{name}.tif") as b,
        ):
            assert str(a.profile) == str(b.profile)
            assert np.array_equal(a.read(), b.read(), equal_nan=True)
    code, _, error = run("merge", tmp_path / "out", tmp_path / "1", tmp_path / "2", "--json")
    assert code == 2 and "expected no --json with parts of score of rasters" in error
    code, _, error = run(*words, "--workers", "2")
    assert code == 2 and "--workers, --engine and --batch with rasters" in " ".join(error.split())
