"""Files of labelling tools, read again by these tools' own code where it is here."""

import base64
import io
import json
import shutil
import zlib
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

import doubtmap as dm
from doubtmap.files.writing import plain_xml
from doubtmap.labelling.cvat import run_lengths_of_rows
from doubtmap.labelling.handing import FORMS, hand_on
from doubtmap.labelling.label_studio import packed
from doubtmap.labelling.task import Task, regions_of

NAMES = ("road", "<b>&car", "=sky\x00")
OF_PYCOCOTOOLS = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


def unpacked(content):
    """A decoder of its own, after the reference: runs and single values of `thi.ng/rle-pack`."""
    bits = "".join(f"{byte:08b}" for byte in content)
    at = 0

    def take(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    count, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        run, length = take(1), take(sizes[take(2)]) + 1
        if run:
            values += [take(word)] * length
        else:
            values += [take(word) for _ in range(length)]
    return np.array(values)


@given(MASKS)
@settings(max_examples=30, deadline=None)
def test_masks_of_label_studio_come_back(mask):
    channels = unpacked(packed(mask)).reshape(*mask.shape, 4)
    assert (channels == 255 * mask[..., None]).all()


def test_long_runs_come_back():
    mask = np.zeros((200, 300), bool)
    mask[50:150] = True
    assert (unpacked(packed(mask)).reshape(200, 300, 4)[..., 3] > 0).tolist() == mask.tolist()


@given(MASKS)
@settings(max_examples=50, deadline=None)
def test_runs_of_cvat_come_back(mask):
    lengths = run_lengths_of_rows(mask)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    assert (flat == mask.reshape(-1)).all()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    tasks = []
    for number in range(2):
        pixels = random.integers(0, 256, (24, 30, 3)).astype(np.uint8)
        file = folder / f"im {number}.jpg"
        Image.fromarray(pixels).save(file)
        segments = np.zeros((24, 30), np.int32)
        segments[4:10, 5:25] = 1
        segments[6:8, 10:12] = 2
        segments[20, 3] = 3
        classes = np.array([0, 1, 2, 1])
        regions = regions_of(segments, classes, np.array([0.9, 0.5, 0.25, 1]), NAMES, 2)
        doubt = np.linspace(0, 1, segments.size, dtype=np.float32).reshape(segments.shape)
        tasks.append(Task(f"im {number}", file, pixels, classes[segments], doubt, 0.4, regions))
    return tasks


@pytest.fixture(scope="module")
def written(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("handed")
    said = hand_on(iter(images), tuple(FORMS), out, NAMES, [task.file for task in images])
    assert len(said) == len(FORMS)
    return out


def masks_of(images):
    return [region.thing.on_image(task.size) for task in images for region in task.regions]


def test_small_segments_are_left_out(images):
    assert [len(task.regions) for task in images] == [3, 3]


@OF_PYCOCOTOOLS
def test_coco_is_read_by_its_own_tools(written, images):
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    held = coco.COCO(written / "coco" / "annotations.json")
    found = held.loadAnns(held.getAnnIds())
    assert [one["score"] for one in found] == [0.9, 0.5, 0.25] * 2
    for one, mask in zip(found, masks_of(images), strict=True):
        assert (held.annToMask(one).astype(bool) == mask).all()
        assert one["area"] == mask.sum()
    (first, _) = held.loadImgs(held.getImgIds())
    doubt = np.asarray(Image.open(written / "coco" / first["doubt_map"]))
    assert (np.abs(doubt / 255 - images[0].doubt) <= 0.5 / 255 + 1e-6).all()
    assert Path(first["file_name"]) == images[0].file


def test_label_studio_has_masks_and_labels_that_its_interface_knows(written, images):
    tasks = json.loads((written / "label-studio" / "tasks.json").read_text())
    view = ElementTree.fromstring((written / "label-studio" / "config.xml").read_text())
    labels = [label.get("value") for label in view.iter("Label")]
    assert labels == ["road", "<b>&car", "=sky?"]
    masks = iter(masks_of(images))
    for task in tasks:
        assert task["data"]["image"].startswith("/data/local-files/?d=")
        assert " " not in task["data"]["image"]
        for result in task["predictions"][0]["result"]:
            assert {result["value"]["brushlabels"][0]} <= {*labels}
            shape = result["original_height"], result["original_width"], 4
            alpha = unpacked(result["value"]["rle"]).reshape(shape)[..., 3]
            assert ((alpha > 0) == next(masks)).all()


def test_label_studio_is_read_by_its_own_tools(written, images):
    brush = pytest.importorskip(
        "label_studio_sdk.converter.brush", reason="needs label-studio-sdk", exc_type=ImportError
    )
    tasks = json.loads((written / "label-studio" / "tasks.json").read_text())
    masks = iter(masks_of(images))
    for result in (each for task in tasks for each in task["predictions"][0]["result"]):
        flat = brush.decode_rle(result["value"]["rle"])
        assert (np.reshape(flat, (24, 30, 4))[..., 3].astype(bool) == next(masks)).all()


def test_cvat_has_masks_within_their_boxes(written, images):
    root = ElementTree.parse(written / "cvat" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    known = [label.findtext("name") for label in root.iter("label")]
    masks = iter(masks_of(images))
    for image in root.iter("image"):
        for mask in image.iter("mask"):
            left, top, width, height = (
                int(mask.get(key)) for key in ("left", "top", "width", "height")
            )
            lengths = [int(length) for length in mask.get("rle").split(",")]
            inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
            whole = np.zeros((24, 30), bool)
            whole[top : top + height, left : left + width] = inside
            assert (whole == next(masks)).all()
            assert mask.get("label") in known
    with ZipFile(written / "cvat" / "images.zip") as archive:
        assert {*archive.namelist()} == {
            f"{folder}{name}"
            for number in range(2)
            for folder, name in (
                ("", f"im {number}.jpg"),
                (f"related_images/im {number}_jpg/", "doubt.jpg"),
            )
        }


@OF_PYCOCOTOOLS
def test_cvat_is_read_by_datumaro(written, images, tmp_path):
    datumaro = pytest.importorskip(
        "datumaro.components.dataset", reason="needs datumaro", exc_type=ImportError
    )
    ZipFile(written / "cvat" / "images.zip").extractall(tmp_path / "images")
    shutil.copy(written / "cvat" / "annotations.xml", tmp_path)
    items = [*datumaro.Dataset.import_from(str(tmp_path), "cvat")]
    found = [mask for item in items for mask in item.annotations]
    for one, mask in zip(found, masks_of(images), strict=True):
        assert (one.image.astype(bool) == mask).all()


def test_fiftyone_has_classes_doubt_and_masks(written, images):
    folder = written / "fiftyone"
    about = json.loads((folder / "metadata.json").read_text())
    assert "version" not in about
    assert about["info"]["mask_targets"]["classes"] == {"1": NAMES[0], "2": NAMES[1], "3": NAMES[2]}
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    for sample, task in zip(samples, images, strict=True):
        classes = np.asarray(Image.open(folder / sample["classes"]["mask_path"]))
        assert (classes == task.classes + 1).all()
        assert (np.asarray(Image.open(folder / sample["doubt"]["map_path"])).shape) == task.size
        for found, region in zip(sample["regions"]["detections"], task.regions, strict=True):
            packed_mask = base64.b64decode(found["mask"]["$binary"]["base64"])
            mask = np.load(io.BytesIO(zlib.decompress(packed_mask)))
            assert (mask == region.mask).all()
            box = np.round(np.multiply(found["bounding_box"], (30, 24, 30, 24)))
            assert tuple(box) == region.box


def test_fiftyone_is_read_by_its_own_tools(written, images):
    importers = pytest.importorskip(
        "fiftyone.utils.data.importers", reason="needs fiftyone", exc_type=ImportError
    )
    reader = importers.FiftyOneDatasetImporter(str(written / "fiftyone"))
    assert reader._is_legacy_format_data()
    reader = reader._to_legacy_importer()
    reader.setup()
    for sample, task in zip(reader, images, strict=True):
        assert (sample.classes.get_mask() == task.classes + 1).all()
        assert sample.doubt.get_map().max() == 255
        for found, region in zip(sample.regions.detections, task.regions, strict=True):
            assert (found.mask == region.mask).all()
            assert found.confidence == region.score


def test_other_forms_are_refused(images, tmp_path):
    with pytest.raises(dm.UsageError, match="label-studio, cvat, fiftyone, coco, got paint"):
        hand_on(iter(images), ("paint",), tmp_path, NAMES, [])


@pytest.mark.parametrize("name", ["\x00", "a\x1f\ufffe", "\ud800", "<&>\"'", "\U0001f697\t\n"])
def test_no_name_breaks_an_xml_file(name):
    element = ElementTree.Element("a", name=plain_xml(name))
    assert ElementTree.fromstring(ElementTree.tostring(element)).get("name")
