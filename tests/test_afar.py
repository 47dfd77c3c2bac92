"""Files in buckets, behind web addresses and in archives: read as if they lay here, or named."""

import json
import zipfile

import numpy as np
import pytest
import torch
from bucket import Store, as_buckets, serving
from PIL import Image

import doubtmap as dm
from doubtmap.datasets import collect_images
from doubtmap.datasets.fingerprints import file_marks
from doubtmap.datasets.reading import read_image, read_size
from doubtmap.errors import DataError, UsageError
from doubtmap.files.afar import for_gdal, is_afar, listed, mark_of, path_of
from doubtmap.films import is_film
from doubtmap.scenes import write_scenes
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows import Windows

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
for name in ("fsspec", "aiohttp", "s3fs"):
    pytest.importorskip(name, reason=f"{name} is not installed")


PLACE = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 320000, 0, -0.5, 2790000)}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 100, 130), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pixels):
    """A GeoTIFF and a picture, on this disk and in an archive."""
    folder = tmp_path_factory.mktemp("near")
    about = {"height": 100, "width": 130, "count": 3, "dtype": "uint8", "tiled": True}
    about |= {"blockxsize": 64, "blockysize": 64}
    with rasterio.open(folder / "scene.tif", "w", driver="GTiff", **about, **PLACE) as target:
        target.write(pixels)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / "picture.png")
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for name in ("scene.tif", "picture.png"):
            archive.write(folder / name, f"in/{name}")
    return folder


@pytest.fixture(scope="module")
def store(folder):
    """A server on this machine: its address."""
    for name in ("scene.tif", "picture.png", "all.zip"):
        content = (folder / name).read_bytes()
        Store.files |= {f"/bucket/maps/{name}": content, f"/torn/{name}": content}
    Store.files["/bucket/maps/notes.txt"] = b"no image"
    with serving() as address:
        yield address


@pytest.fixture
def s3(store, monkeypatch):
    """The same server as buckets."""
    as_buckets(store, monkeypatch)
    return "s3://bucket/maps"


def addresses(store, folder):
    return {
        "https": f"{store}/bucket/maps",
        "vsicurl": f"/vsicurl/{store}/bucket/maps",
        "s3": "s3://bucket/maps",
        "vsis3": "/vsis3/bucket/maps",
        "vsizip": f"/vsizip/{folder}/all.zip/in",
        "vsizip of vsicurl": f"/vsizip/vsicurl/{store}/bucket/maps/all.zip/in",
        "vsizip of braces": f"/vsizip/{{{folder}/all.zip}}/in",
    }


KINDS = sorted(addresses("", ""))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_read_as_if_they_lay_here(kind, s3, store, folder, pixels):
    path = path_of(f"{addresses(store, folder)[kind]}/picture.png")
    assert is_afar(path) and is_afar(str(path)) and path.name == "picture.png"
    np.testing.assert_array_equal(read_image(path), pixels)
    assert read_size(path) == (100, 130)


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_are_scored_as_if_they_lay_here(kind, s3, store, folder, tmp_path):
    torch.manual_seed(0)
    network = dm.load(torch.nn.Conv2d(3, 3, 1), mean=[0] * 3, std=[1] * 3)
    scores, found = parse_scores("entropy"), {}
    for where in (f"{addresses(store, folder)[kind]}/scene.tif", folder / "scene.tif"):
        out = tmp_path / str(len(found))
        write_scenes(Windows(network, 64, 32), [path_of(where)], scores, out)
        with rasterio.open(out / "entropy/scene.tif") as source:
            assert source.crs.to_epsg() == 32640 and source.transform == PLACE["transform"]
            found[str(where)] = source.read(1)
    far, near = found.values()
    np.testing.assert_array_equal(far, near)
    about = json.loads((tmp_path / "0/score.json").read_text())
    assert about["images"]["scene"]["path"] == next(iter(found))


@pytest.mark.parametrize("kind", ["s3", "vsis3", "vsizip", "vsizip of braces"])
def test_folders_and_patterns_are_listed(kind, s3, store, folder):
    start = addresses(store, folder)[kind]
    names = [str(path) for path in collect_images([start])]
    assert names == [f"{start}/picture.png", f"{start}/scene.tif"]
    assert [path.name for path in listed(f"{start}/*.png")] == ["picture.png"]


def test_the_commands_take_addresses(s3, store, run, tmp_path):
    out = tmp_path / "out"
    code, said, error = run("score", "demo", f"{s3}/scene.tif", "--scores", "entropy", "--out", out)
    assert code == 0, error
    assert "1 of 1 images" in said and (out / "entropy/scene.tif").exists()
    where = f"{store}/bucket/maps/scene.tif"
    said = run("objects", "demo", where, "--threshold", "0", "--score", "entropy", "--out", out)
    assert said[0] == 0, said
    assert json.loads((out / "objects.geojson").read_text())["features"]


def test_large_files_are_read_in_parts(store):
    Store.files["/bucket/large.tif"] = Store.files["/bucket/maps/scene.tif"]
    Store.asked.clear()
    with rasterio.open(for_gdal(f"{store}/bucket/large.tif")) as source:
        source.read(1, window=((0, 64), (0, 64)))
    ranges = [line for line in Store.asked if "bytes=" in line]
    assert ranges and len(ranges) == sum(line.startswith("GET") for line in Store.asked)


def test_marks_change_with_files(s3):
    path = path_of(f"{s3}/picture.png")
    assert mark_of(path) == mark_of(path) != mark_of(path_of(f"{s3}/scene.tif"))
    assert file_marks({path: "a"}) == {"a": mark_of(path)}
    assert file_marks({path_of(f"{s3}/no.png"): "a"}) == {}


@pytest.mark.parametrize(
    "start, says",
    [
        ("{store}/bucket/no", "nothing lies there"),
        ("{store}/closed", "that is not allowed"),
        ("s3://bucket/no", "nothing lies there"),
        ("s3://closed", "that is not allowed"),
        ("s3://nobucket", "there is no such bucket|nothing lies there"),
        ("http://127.0.0.1:9", "nobody answers"),
        ("/vsizip/{folder}/no.zip", "nothing lies there"),
        ("/vsizip/{folder}/all.zip/no", "nothing lies there"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(start, says, s3, store, folder, tmp_path):
    start = start.format(store=store, folder=folder)
    with pytest.raises(DataError, match=says):
        read_image(path_of(f"{start}/picture.png"))
    network = dm.load(torch.nn.Conv2d(3, 3, 1), mean=[0] * 3, std=[1] * 3)
    path = path_of(f"{start}/scene.tif")
    with pytest.raises(DataError, match=says) as told:
        write_scenes(Windows(network, 64, 32), [path], parse_scores("entropy"), tmp_path / "out")
    assert str(told.value).startswith(str(path))


def test_a_connection_that_is_cut_off_is_named(store, tmp_path):
    with pytest.raises(DataError, match=r"picture\.png: .*(cut off|damaged)"):
        read_image(path_of(f"{store}/torn/picture.png"))
    network = dm.load(torch.nn.Conv2d(3, 3, 1), mean=[0] * 3, std=[1] * 3)
    path = path_of(f"{store}/torn/scene.tif")
    with pytest.raises(DataError, match=r"scene\.tif"):
        write_scenes(Windows(network, 64, 32), [path], parse_scores("entropy"), tmp_path / "out")


def test_without_credentials_or_libraries_the_next_step_is_said(s3, monkeypatch, tmp_path):
    monkeypatch.setattr("doubtmap.files.afar._of_s3", lambda: {"no": 1, "skip_instance_cache": 1})
    with pytest.raises(DataError, match="Check the address"):
        read_image(path_of(f"{s3}/picture.png"))
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'doubtmap\[afar\]'"):
        read_image(path_of(f"{s3}/picture.png"))


def test_web_addresses_of_images_are_no_films():
    assert not is_film("https://host/a.tif") and not is_film("https://host/a.PNG?key=1")
    assert is_film("https://host/a.mp4") and is_film("http://camera/stream")
