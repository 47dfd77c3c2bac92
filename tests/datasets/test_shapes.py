"""Labels as outlines: Labelme's JSON beside each image, COCO's JSON for all of them."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scenes import described, exif, save, turned

from doubtmap.datasets import VOID, open_dataset
from doubtmap.datasets.polygons import coco_filled
from doubtmap.errors import DataError

SIZE = (8, 10)
CLASSES = '[classes]\nbackground = "background"\nroad = "road"\ncar = ["car", "truck"]\n'


def labelme(root, shapes, name="f0", classes=CLASSES, size=SIZE, **more):
    """One image with Labelme's file beside it."""
    described(root, classes, labels="images/{frame}.json")
    save(root / f"images/{name}.png", np.zeros((*SIZE, 3), np.uint8))
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": [{"group_id": None, "flags": {}, **shape} for shape in shapes],
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": size[0],
        "imageWidth": size[1],
        **more,
    }
    (root / f"images/{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


def labels(root):
    return open_dataset(f"folder:{root}")[0].label.numpy()


def drawn(points, kind="polygon"):
    """Labelme's own way: Pillow draws the shape and its outline."""
    canvas = Image.new("L", SIZE[::-1])
    getattr(ImageDraw.Draw(canvas), kind)(points, outline=1, fill=1)
    return np.array(canvas, bool)


TRIANGLE = [[1.2, 0.5], [8.7, 2.1], [3.3, 6.9]]


def test_shapes_cover_what_labelme_gives_them(tmp_path):
    expected = np.zeros(SIZE, np.int16)
    expected[drawn([tuple(point) for point in TRIANGLE])] = 1
    assert (labels(labelme(tmp_path / "a", [shape("road", TRIANGLE)])) == expected).all()
    assert (labels(labelme(tmp_path / "b", [shape("Road", TRIANGLE, None)])) == expected).all()
    rectangle = np.zeros(SIZE, np.int16)
    rectangle[2:6, 1:4] = 2
    for number, corners in enumerate(
        ([[1, 2], [3, 5]], [[3, 5], [1, 2]], [[3, 2], [1, 5]], [[1, 2], [3, 2], [3, 5], [1, 5]])
    ):
        root = labelme(tmp_path / str(number), [shape("truck", corners, "rectangle")])
        assert (labels(root) == rectangle).all()
    circle = np.zeros(SIZE, np.int16)
    circle[drawn((1, 1, 7, 7), "ellipse")] = 2
    root = labelme(tmp_path / "c", [shape("car", [[4, 4], [4, 7]], "circle")])
    assert (labels(root) == circle).all()


def test_later_shapes_lie_over_earlier_ones(tmp_path):
    one, two = shape("road", [[0, 0], [5, 5]], "rectangle"), shape("car", [[4, 4], [9, 7]])
    two = shape("car", [[4, 4], [9, 7]], "rectangle")
    first = labels(labelme(tmp_path / "a", [one, two]))
    second = labels(labelme(tmp_path / "b", [two, one]))
    assert (first[4, 4], second[4, 4]) == (2, 1)
    assert (first[0, 0], first[7, 9], first[0, 9]) == (1, 2, 0)


@pytest.mark.parametrize(("left", "top"), [(3, 2), (-1, -1), (8, 6)])
def test_masks_in_boxes(tmp_path, left, top):
    small = np.array([[1, 0, 1], [0, 1, 1]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(small * 255).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    box = [[left, top], [left + 2, top + 1]]
    expected = np.zeros((SIZE[0] + 2, SIZE[1] + 2), np.int16)
    expected[top + 1 : top + 3, left + 1 : left + 4] = small[: SIZE[0] + 1 - top][
        :, : SIZE[1] + 1 - left
    ]
    found = labels(labelme(tmp_path, [shape("road", box, "mask", mask=text)]))
    assert (found == expected[1:-1, 1:-1]).all()


def test_what_no_shape_covers(tmp_path):
    one = [shape("road", [[0, 0], [5, 5]], "rectangle")]
    plain = '[classes]\nroad = "road"\n'
    assert labels(labelme(tmp_path / "a", one, classes=f'other = "void"\n{plain}'))[7, 9] == VOID
    with pytest.raises(DataError, match=r"f0\.json: expected shapes over all of f0\.png, got 44 p"):
        labels(labelme(tmp_path / "b", one, classes=plain))
    listed = 'classes = ["_background_", "road"]\n'
    assert labels(labelme(tmp_path / "c", one, classes=listed))[[0, 7], [0, 9]].tolist() == [1, 0]


def test_names_that_nothing_describes(tmp_path):
    shapes = [
        shape("road", [[0, 0], [9, 7]], "rectangle"),
        shape("__ignore__", [[0, 0], [1, 1]], "rectangle"),
        shape("tree", [[5, 5], [6, 6]], "rectangle"),
    ]
    with pytest.raises(DataError, match=r"expected shapes named .*road.*, got tree for f0\.png"):
        labels(labelme(tmp_path / "a", shapes))
    found = labels(labelme(tmp_path / "b", shapes, classes=f'other = "void"\n{CLASSES}'))
    assert found[[0, 5, 7], [0, 5, 9]].tolist() == [VOID, VOID, 1]


@pytest.mark.parametrize(
    ("shapes", "more", "message"),
    [
        ([shape("road", [[0, 0]], "point")], {}, "got a point for road, which covers no area"),
        ([shape("road", [[0, 0], [1, 1]])], {}, "a polygon of 2 points"),
        ([shape("road", TRIANGLE)], {"imageHeight": 9}, r"on 10 x 8 pixels.*got 10 x 9"),
        ([{"points": TRIANGLE}], {}, "expected outlines as Labelme or COCO writes them"),
        ([shape("road", [["a", "b"]])], {}, "expected outlines as Labelme or COCO writes them"),
        ([shape("road", TRIANGLE, "mask", mask="%")], {}, "expected outlines as Labelme or COCO"),
    ],
)
def test_shapes_that_are_none(tmp_path, shapes, more, message):
    root = labelme(tmp_path, shapes, **more)
    with pytest.raises(DataError, match=r"f0\.json: .*" + message):
        labels(root)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"images": [3]}'])
def test_json_that_is_none_of_theirs(tmp_path, text):
    root = labelme(tmp_path, [])
    (root / "images/f0.json").write_text(text)
    with pytest.raises(DataError, match=r"f0\.json: expected (JSON|outlines)"):
        labels(root)


@pytest.mark.parametrize("upright", [True, False])
def test_outlines_on_photographs_that_are_stored_turned(tmp_path, upright):
    """Labelme draws on the upright photograph; COCO's sizes often are those of the file."""
    size = SIZE if upright else SIZE[::-1]
    root = labelme(tmp_path, [shape("road", [[0, 0], [1, 1]], "rectangle")], size=size)
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:2, :2] = 200
    stored = turned(pixels, 6)
    save(root / "images/f0.png", stored, exif=exif(6))
    sample = open_dataset(f"folder:{root}")[0]
    assert sample.label.shape == size
    marked = sample.image[0].numpy() == 200
    assert (marked == (sample.label.numpy() == 1)).all() == upright


# COCO


def coco(root, annotations, names=("f0.png",), categories=((3, "road"), (90, "car")), **more):
    """Images with one file of COCO for all of them."""
    described(root, CLASSES, labels="annotations/instances.json")
    for name in names:
        save(root / "images" / name, np.zeros((*SIZE, 3), np.uint8))
    content = {
        "images": [
            {"id": 10 * k + 7, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
            for k, name in enumerate(names)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": annotations,
        **more,
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations/instances.json").write_text(json.dumps(content))
    return root


def annotation(segmentation, category=3, image=7, iscrowd=0):
    return {
        "id": 1,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": iscrowd,
    }


def runs(mask):
    """COCO's plain run lengths: columns, the first run of zeros."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat.astype(int))) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    counts = lengths if not flat[0] else [0, *lengths]
    return {"size": list(mask.shape), "counts": counts}


SQUARE = np.zeros(SIZE, bool)
SQUARE[2:5, 3:7] = True


@pytest.mark.parametrize(
    "segmentation",
    [
        [[3, 2, 7, 2, 7, 5, 3, 5]],
        [[3, 2, 7, 2, 7, 4, 3, 4], [3, 4, 7, 4, 7, 5, 3, 5]],
        runs(SQUARE),
        # As pycocotools packs the same mask.
        {"size": [8, 10], "counts": "j03500000f0"},
    ],
)
def test_polygons_and_runs_of_one_square(tmp_path, segmentation):
    root = coco(tmp_path, [annotation(segmentation, iscrowd=int(isinstance(segmentation, dict)))])
    assert (labels(root) == SQUARE).all()


def test_several_images_and_numbers_with_holes(tmp_path):
    names = ("a.png", "town/a.png", "b.png")
    found = [
        annotation([[0, 0, 10, 0, 10, 8, 0, 8]], 3, 7),
        annotation(runs(SQUARE), 90, 17),
        annotation(runs(SQUARE), 90, 7),
        annotation([], 90, 17),
    ]
    root = coco(tmp_path, found, names)
    text = (root / "doubtmap.toml").read_text()
    (root / "doubtmap.toml").write_text(text.replace("{frame}", "{path}", 1))
    dataset = open_dataset(f"folder:{root}")
    by_name = {str(dataset.files[k][0].relative_to(root / "images")): k for k in range(3)}
    a, town, b = (dataset[by_name[name]].label.numpy() for name in names)
    assert (a == np.where(SQUARE, 2, 1)).all()
    assert (town == 2 * SQUARE).all()
    assert not b.any()


def test_file_names_of_another_folder(tmp_path):
    root = coco(tmp_path, [annotation(runs(SQUARE))])
    path = root / "annotations/instances.json"
    for place in ("JPEGImages/f0.png", "C:\\\\data\\\\f0.png", "/home/x/f0.png"):
        path.write_text(path.read_text().replace('"f0.png"', f'"{place}"'))
        assert (labels(root) == SQUARE).all()
        path.write_text(path.read_text().replace(f'"{place}"', '"f0.png"'))
    path.write_text(path.read_text().replace('"f0.png"', '"g0.png"'))
    with pytest.raises(
        DataError, match=r"instances\.json: expected one entry for f0\.png, found 0"
    ):
        labels(root)


@pytest.mark.parametrize(
    ("segmentation", "category", "message"),
    [
        ({"size": [8, 9], "counts": [72]}, 3, r"run lengths of \[8, 9\] for an image of \[8, 10\]"),
        ({"size": [8, 10], "counts": [79]}, 3, "run lengths"),
        (runs(SQUARE), 4, "expected outlines as Labelme or COCO writes them"),
        (3, 3, "expected outlines as Labelme or COCO writes them"),
    ],
)
def test_annotations_that_are_none(tmp_path, segmentation, category, message):
    root = coco(tmp_path, [annotation(segmentation, category)])
    with pytest.raises(DataError, match=r"instances\.json: .*" + message):
        labels(root)


numbers = st.one_of(st.integers(-4, 14), st.floats(-4, 14, width=32), st.just(2.5))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(numbers, numbers), min_size=3, max_size=7),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_polygons_are_those_of_cocos_own_code(points, size):
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    ring = np.array(points, np.float64)
    theirs = masks.decode(masks.merge(masks.frPyObjects([ring.ravel().tolist()], *size)))
    assert (coco_filled(ring, *size) == theirs).all()


@pytest.mark.parametrize("seed", range(8))
def test_packed_runs_are_those_of_cocos_own_code(tmp_path, seed):
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    generator = np.random.default_rng(seed)
    mask = generator.random(SIZE) < generator.random()
    packed = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": packed["size"], "counts": packed["counts"].decode()}
    assert (labels(coco(tmp_path, [annotation(text)])) == mask).all()
