"""`doubtmap objects`: its files agree with each other and with the map; what it refuses."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

import doubtmap as dm
from doubtmap.decisions.file import Threshold, save_threshold
from doubtmap.files import Origin
from doubtmap.scoring import probe_logits

NETWORK = """
import torch
from torch import nn

def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 5, 1, 2), nn.ReLU(), nn.Conv2d(6, 3, 1))

def other():
    return build(1)
"""
CLASSES = ("--classes", "lawn,path,shed")
LIMIT = 1.08


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "network.py"
    path.write_text(NETWORK)
    return f"python:{path}:build"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def objects(run, network, photographs, tmp_path):
    def call(*options, images=photographs, model=network, threshold=LIMIT):
        named = "--scores" in options or threshold != LIMIT
        return run(
            *("objects", model, images, *CLASSES, "--out", tmp_path / "out"),
            *("--threshold", threshold, *(() if named else ("--scores", "entropy")), *options),
        )

    return call


def test_doubt_is_the_score_where_none_is_named(objects, tmp_path):
    code, _, err = objects(threshold=0.01)
    assert code == 0, err
    assert written(tmp_path)["info"]["score"] == "doubt"


def written(tmp_path, name="objects.json"):
    return json.loads((tmp_path / "out" / name).read_text())


def decoded(segmentation):
    height, width = segmentation["size"]
    values = np.arange(len(segmentation["counts"])) % 2 == 1
    return np.repeat(values, segmentation["counts"]).reshape(width, height).T


def entropy(network, path, classes=("lawn", "path", "shed")):
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    return dm.scores.entropy(dm.load(network, classes=classes)(image[None]))[0].numpy()


def test_files_agree_with_each_other_and_with_the_map(objects, network, photographs, tmp_path):
    code, printed, err = objects("--smallest", 0, "--encoding", "rle")
    assert code == 0 and "no GeoJSON" in err
    coco = written(tmp_path)
    assert [image["id"] for image in coco["images"]] == [1, 2]
    assert coco["categories"][0]["id"] == 1 and coco["info"]["score"] == "entropy"
    assert coco["info"]["rule"]["threshold"] == LIMIT
    assert coco["info"]["command"].startswith("doubtmap objects")
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert len(own) == image["objects"] > 0
        scores = entropy(network, image["file_name"])
        masks = [decoded(a["segmentation"]) for a in own]
        np.testing.assert_array_equal(sum(masks), (scores > LIMIT).astype(int))
        for annotation, mask in zip(own, masks):
            assert annotation["area"] == mask.sum()
            assert annotation["score"] == pytest.approx(float(scores[mask].mean()), rel=1e-5)
        with Image.open(tmp_path / "out" / "overlay" / f"{'ab'[image['id'] - 1]}.png") as picture:
            assert picture.size == (4 * 64, 4 * 48)
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").read_text().splitlines()))
    assert [int(row["object"]) for row in rows] == [a["id"] for a in coco["annotations"]]
    assert [float(row["score"]) for row in rows] == [a["score"] for a in coco["annotations"]]
    boxes = [[int(row[k]) for k in ("left", "top", "width", "height")] for row in rows]
    assert boxes == [a["bbox"] for a in coco["annotations"]]
    assert float(rows[0]["share_of_image"]) == int(rows[0]["area"]) / (64 * 48)
    assert f"{len(rows)} objects in 2 images" in printed


def test_json_on_stdout(objects):
    code, printed, _ = objects("--json")
    found = json.loads(printed)
    assert code == 0 and found["images"] == 2
    assert sum(found["per_image"].values()) == found["objects"]
    assert len(found["files"]) == 2


def test_on_and_sizes_leave_fewer_objects(objects):
    def count(*options):
        code, printed, _ = objects("--json", *options)
        assert code == 0
        return json.loads(printed)["objects"]

    everything = count("--smallest", 0)
    assert everything > count("--smallest", 100) > 0
    assert count("--smallest", 0, "--smallest-share", 1) == 0
    assert count("--smallest", 0, "--on", "Lawn,path,shed", "--on-share", 1) == everything
    assert count("--smallest", 0, "--on", "path") < everything


@pytest.fixture
def tile(tmp_path, photographs):
    """A georeferenced photograph; returns what writes it and its path."""

    def write(code=4326, step=0.001, origin=(10.0, 50.0)):
        info = ImageFileDirectory_v2()
        info[33550], info[33922] = (step, step, 0.0), (0.0, 0.0, 0.0, *origin, 0.0)
        kind, key = (2, 2048) if code == 4326 else (1, 3072)
        info[34735] = (1, 1, 0, 2, 1024, 0, 1, kind, key, 0, 1, code)
        info.tagtype[33550] = info.tagtype[33922] = 12
        info.tagtype[34735] = 3
        path = tmp_path / "tile.tif"
        with Image.open(photographs / "a.png") as image:
            image.save(path, tiffinfo=info)
        return path

    return write


def test_georeferenced_images_give_geojson(objects, photographs, tile, tmp_path):
    code, _, err = objects("--smallest", 20, images=tile())
    assert code == 0 and err.count("note") == err.count("are assumed")
    earth, coco = written(tmp_path, "objects.geojson"), written(tmp_path)
    assert "crs" not in earth and len(earth["features"]) == len(coco["annotations"]) > 0
    for feature, annotation in zip(earth["features"], coco["annotations"]):
        assert feature["properties"]["object"] == annotation["id"]
        shape = feature["geometry"]["coordinates"]
        several = [shape] if feature["geometry"]["type"] == "Polygon" else shape
        x, y = np.concatenate([polygon[0] for polygon in several]).T
        left, top, width, height = annotation["bbox"]
        assert x.min() == pytest.approx(10 + left / 1000)
        assert x.max() == pytest.approx(10 + (left + width) / 1000)
        assert y.max() == pytest.approx(50 - top / 1000)
        assert y.min() == pytest.approx(50 - (top + height) / 1000)
    # a later run without georeference leaves none of this behind
    assert objects(images=photographs)[0] == 0
    assert not (tmp_path / "out" / "objects.geojson").exists()


def test_metres_are_written_as_they_are_and_said(objects, tile, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    code, _, err = objects(images=tile(32640, 0.5, (330000.0, 2780000.0)))
    assert code == 0 and "doubtmap[geo]" in err
    earth = written(tmp_path, "objects.geojson")
    assert earth["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32640"
    code, _, err = objects("--crs", "EPSG:4326", images=tile(32640, 0.5, (330000.0, 2780000.0)))
    assert code == 2 and "says EPSG:32640" in err


def test_a_world_file_and_crs(objects, photographs, tmp_path):
    (photographs / "a.pgw").write_text("0.001 0 0 -0.001 10 50")
    code, _, err = objects()
    assert code == 0 and "--crs EPSG:CODE" in err and "1 of 2 images" in err
    assert not (tmp_path / "out" / "objects.geojson").exists()
    code, _, err = objects("--crs", "EPSG:4326")
    assert code == 0
    features = written(tmp_path, "objects.geojson")["features"]
    assert {feature["properties"]["image"] for feature in features} == {str(photographs / "a.png")}
    (photographs / "a.pgw").write_text("0.001 0 0 -0.001 10")
    code, _, err = objects("--crs", "EPSG:4326")
    assert code == 1 and "a.pgw" in err
    code, printed, _ = objects("--skip-bad")
    assert code == 0 and "1 could not be used" in printed


def test_crs_without_any_georeference_is_refused(objects, tmp_path):
    code, _, err = objects("--crs", "EPSG:4326")
    assert code == 1 and "expected georeferenced images" in err
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_ends_the_run_or_is_counted(objects, photographs):
    (photographs / "c.png").write_bytes(b"\x89PNG no")
    code, _, err = objects()
    assert code == 1 and "c.png" in err
    code, printed, _ = objects("--skip-bad", "--json")
    assert code == 0
    assert [key.endswith("c.png") for key in json.loads(printed)["skipped"]] == [True]


@pytest.fixture
def chosen(network, tmp_path):
    """Writes a threshold file; returns its path."""

    def write(**changed):
        segmenter = dm.load(network, classes=["lawn", "path", "shed"])
        made_for = {"fingerprint": tuple(probe_logits(segmenter).tolist())}
        made_for |= {name: changed.pop(name) for name in ("data", "images") if name in changed}
        about = {"score": "margin", "threshold": 0.75, "of": "unknown", "by": "f1"}
        save_threshold(
            Threshold(**(about | changed), origin=Origin(**made_for)), tmp_path / "limit.json"
        )
        return tmp_path / "limit.json"

    return write


def test_a_threshold_file_brings_its_score(objects, chosen, tmp_path):
    code, _, _ = objects(threshold=chosen(data="yard:val", images=tuple("abcdefg")))
    info = written(tmp_path)["info"]
    assert code == 0
    assert (info["score"], info["rule"]["threshold"]) == ("margin", 0.75)
    assert info["threshold"]["data"] == "yard:val" and info["threshold"]["images"] == 7
    assert objects("--scores", "margin", threshold=chosen())[0] == 0


def test_a_threshold_of_something_else_is_refused(objects, chosen, network, tmp_path):
    code, _, err = objects("--scores", "entropy", threshold=chosen())
    assert code == 2 and "expected a threshold of entropy, got one of margin" in err
    code, _, err = objects(threshold=chosen(of="wrong"))
    assert code == 2 and "wrong pixels" in err
    code, _, err = objects(threshold=chosen(), model=network.replace(":build", ":other"))
    assert code == 1 and "the network that it was chosen for" in err
    (tmp_path / "limit.json").write_text("{}")
    code, _, err = objects(threshold=tmp_path / "limit.json")
    assert code == 1 and "expected a threshold" in err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--scores", "entropy,margin"), 2, "expected one score"),
        (("--scores", "mutual_information"), 1, "several networks"),
        (("--scores", "nothing"), 2, "no score"),
        (("--on", "lawm"), 2, "Did you mean lawn"),
        (("--smallest", -1), 2, "-1"),
        (("--smallest-share", 2), 2, "--smallest-share"),
        (("--simplify", "nan"), 2, "simplify"),
        (("--encoding", "png"), 2, "polygon, rle, got png"),
        (("--crs", "WGS"), 2, "EPSG:4326, got WGS"),
    ],
)
def test_bad_options(objects, options, code, words):
    found, _, err = objects(*options)
    assert (found, words in err) == (code, True), err


@pytest.mark.parametrize(("threshold", "words"), [("nan", "NaN"), ("high", "a number or a file")])
def test_bad_thresholds(objects, threshold, words):
    code, _, err = objects(threshold=threshold)
    assert code == 2 and words in err


def test_a_negative_threshold_is_a_number(objects):
    code, printed, _ = objects("--scores", "divergence", "--json", threshold=-0.6)
    assert code == 0
    assert json.loads(printed)["rule"]["threshold"] == -0.6


def test_an_infinite_threshold_flags_all_or_nothing_and_is_still_json(objects, tmp_path):
    assert objects(threshold="-inf")[0] == 0
    coco = written(tmp_path)
    assert [a["area"] for a in coco["annotations"]] == [64 * 48] * 2
    assert coco["info"]["rule"]["threshold"] == "-inf"
    assert objects(threshold="inf")[0] == 0
    assert written(tmp_path)["annotations"] == []


def test_on_needs_class_names(run, network, photographs, tmp_path):
    code, _, err = run(
        *("objects", network, photographs, "--threshold", 0.5, "--on", "road"),
        *("--out", tmp_path / "out"),
    )
    assert code == 2 and "--classes" in err
