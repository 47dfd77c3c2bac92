import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import box, photograph

from doubtmap.datasets import open_outlines
from doubtmap.datasets.class_tables import COCO, COCO_KIN
from doubtmap.datasets.cutouts import half_of
from doubtmap.datasets.polygons import filled
from doubtmap.errors import DataError, UsageError

SEEDS = st.integers(0, 10_000)
CAMVID9 = ("sky", "building", "pole", "road", "pavement", "tree", "signsymbol", "fence", "car")


def random_polygon(seed, height=12, width=17):
    """Edges cross each other and the border; no centre lies on one."""
    generator = np.random.default_rng(seed)
    return generator.uniform(-4, 4 + max(height, width), (int(generator.integers(3, 9)), 2))


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_pixel_is_inside_where_a_ray_from_its_centre_crosses_an_odd_number_of_edges(seed):
    points = random_polygon(seed)
    inside = filled(points, 12, 17)
    for row in range(12):
        for column in range(17):
            x, y = column + 0.5, row + 0.5
            crossed = 0
            for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
                if (y0 > y) != (y1 > y):
                    crossed += x0 + (y - y0) / (y1 - y0) * (x1 - x0) < x
            assert inside[row, column] == (crossed % 2 == 1)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_the_pixels_are_as_many_as_the_area(seed):
    points = np.random.default_rng(seed).uniform(0, 500, (3, 2))
    (a, b), (c, d) = points[1] - points[0], points[2] - points[0]
    length = np.linalg.norm(points - np.roll(points, 1, 0), axis=1).sum()
    assert abs(filled(points, 500, 500).sum() - abs(a * d - b * c) / 2) <= length / 4 + 4


def test_a_rectangle_on_pixel_borders_holds_its_pixels():
    expected = np.zeros((6, 8), bool)
    expected[2:5, 1:7] = True
    assert (filled(np.array(box(1, 2, 6, 3), float), 6, 8) == expected).all()


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_polygons_that_share_an_edge_share_no_pixel_and_leave_none_out(seed):
    a, b = np.random.default_rng(seed).uniform(1, 9, 2)
    left = filled(np.array([(0, 0), (a, 0), (b, 10), (0, 10)]), 10, 10)
    right = filled(np.array([(a, 0), (10, 0), (10, 10), (b, 10)]), 10, 10)
    assert (left ^ right).all()


def test_a_hole_is_left_out():
    """Two rings joined by an edge there and back, as outlines of several parts are."""
    points = np.array([*box(0, 0, 8, 8), (0, 0), *box(2, 2, 4, 4)[::-1], (2, 6)], float)
    expected = np.ones((8, 8), bool)
    expected[2:6, 2:6] = False
    assert (filled(points, 8, 8) == expected).all()


def test_a_cut_out_has_the_photographs_pixels_in_the_tightest_box(tmp_path):
    pixels = photograph(tmp_path, "a", [(45, box(3, 5, 7, 4)), (0, [(12, 2), (22, 2), (12, 12)])])
    bowl, person = open_outlines(str(tmp_path))
    assert (bowl.name, bowl.class_name) == ("a-1", "bowl")
    assert bowl.mask.shape == (4, 7) and bowl.mask.all()
    np.testing.assert_array_equal(bowl.image.permute(1, 2, 0).numpy(), pixels[5:9, 3:10])
    assert person.class_name == "person"
    for side in (person.mask[0], person.mask[-1], person.mask[:, 0], person.mask[:, -1]):
        assert side.any()
    whole = filled(np.array([(12, 2), (22, 2), (12, 12)], float), 20, 30)
    assert person.mask.sum() == whole.sum() == 55 - 10
    shape = person.mask.shape
    np.testing.assert_array_equal(person.mask.numpy(), whole[2 : 2 + shape[0], 12 : 12 + shape[1]])


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_box_is_filled_as_the_image_is(tmp_path_factory, seed):
    root = tmp_path_factory.mktemp("photographs")
    points = random_polygon(seed, 20, 30).clip(0, (30, 20))
    photograph(root, "a", [(1, points)])
    mask, top, left = open_outlines(str(root)).outlines[0].mask()
    whole = np.zeros((20, 30), bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    np.testing.assert_array_equal(whole, filled(points, 20, 30))


def test_an_outline_around_no_pixel_is_an_error_only_where_it_is_read(tmp_path):
    photograph(tmp_path, "a", [(1, [(2.1, 2.1), (2.2, 2.1), (2.1, 2.2)]), (2, box(0, 0, 3, 3))])
    outlines = open_outlines(str(tmp_path))
    assert outlines[1].mask.all()
    with pytest.raises(DataError, match=r"a\.png: expected an outline around .* got a-1 around"):
        outlines[0]


def many(root, count, folder="polygons"):
    for index in range(count):
        lines = [(index % 3, box(0, 0, 9, 9)), (16, box(5, 5, 9, 9))]
        photograph(root, f"{index:03d}", lines, folder=folder)


def images_of(root, half, seed=0):
    return {outline.image.stem for outline in open_outlines(f"{root}:{half}", seed=seed).outlines}


def test_halves_share_no_image_and_leave_none_out(tmp_path):
    many(tmp_path, 40)
    train, test = images_of(tmp_path, "train"), images_of(tmp_path, "test")
    assert not train & test
    assert len(train | test) == 40
    assert 10 < len(train) < 30
    assert images_of(tmp_path, "train", seed=1) != train
    assert len(open_outlines(f"{tmp_path}:train")) == 2 * len(train)


def test_an_image_stays_in_its_half_whatever_is_added(tmp_path):
    many(tmp_path, 12)
    before = images_of(tmp_path, "train")
    many(tmp_path, 30)
    assert before == images_of(tmp_path, "train") & {f"{index:03d}" for index in range(12)}
    assert before == {f"{i:03d}" for i in range(12) if half_of(f"{i:03d}") == "train"}


def test_names_say_folder_and_half(tmp_path):
    many(tmp_path / "things", 9)
    assert open_outlines(str(tmp_path / "things")).name == "things"
    assert open_outlines(f"{tmp_path}/things/:test").name == "things:test"


def test_labels_in_folders_and_photographs_without_outlines(tmp_path):
    photograph(tmp_path, "deep/a", [(16, box(0, 0, 3, 3))], folder="labels")
    photograph(tmp_path, "deep/b", [(16, box(0, 0, 3, 3))], folder="labels")
    photograph(tmp_path, "empty", [], folder="labels")
    (tmp_path / "labels" / "deep" / "b.txt").unlink()
    (tmp_path / "labels" / "stray.txt").write_text("nonsense, of an image that is not here")
    (dog,) = open_outlines(str(tmp_path)).outlines
    assert (dog.name, dog.class_name) == ("deep__a-1", "dog")


def test_objects_by_class(tmp_path):
    many(tmp_path, 6)
    outlines = open_outlines(str(tmp_path))
    assert outlines.class_names == ("person", "bicycle", "car", "dog")
    assert outlines.only(["Dog", "car"]).class_names == ("car", "dog")
    assert len(outlines.only(["dog"])) == 6
    assert outlines.without(["dog", "zebra"]).class_names == ("person", "bicycle", "car")
    with pytest.raises(UsageError, match=r"among person, bicycle, car, dog, got wolf"):
        outlines.only(["wolf"])
    with pytest.raises(UsageError, match="got wolf"):
        outlines.without(["wolf"])
    with pytest.raises(DataError, match="none is left"):
        outlines.only(["zebra"])
    with pytest.raises(DataError, match="none is left"):
        outlines.without(["dog", "car", "person", "bicycle"])


def test_what_a_network_knows_is_left_out_and_said(tmp_path):
    many(tmp_path, 6)
    outlines = open_outlines(str(tmp_path))
    left, note = outlines.foreign_to(CAMVID9)
    assert left.class_names == ("person", "bicycle", "dog")
    assert "2 of 12 objects were left out" in note and note.endswith("classes: car.")
    left, note = outlines.foreign_to([*CAMVID9, "Bicyclist"])
    assert left.class_names == ("dog",)
    assert outlines.foreign_to(["road", "sky"]) == (outlines, "")
    with pytest.raises(DataError, match="none is left"):
        outlines.only(["car"]).foreign_to(CAMVID9)


@pytest.mark.parametrize(
    ("network", "known"),
    [
        (["pedestrian"], ["person"]),
        (["Rider", "motorcycle"], ["person", "motorcycle"]),
        (["traffic sign"], ["traffic light", "stop sign"]),
        (["carpet", "scarecrow", "business"], []),
        (["pottedplant", "tvmonitor", "sofa"], ["couch", "potted plant", "tv"]),
        (["vehicle"], ["car", "bus", "train", "truck"]),
        (["two-wheeler"], ["bicycle", "motorcycle"]),
        (["dog"], ["dog"]),
    ],
)
def test_kin_are_found_by_whole_words(tmp_path, network, known):
    lines = [(number, box(0, 0, 9, 9)) for number in range(80)]
    photograph(tmp_path, "a", lines)
    assert list(open_outlines(str(tmp_path)).known_to(network)) == known


def test_the_table_of_kin_is_of_coco():
    assert len(set(COCO)) == 80
    assert set(COCO_KIN) <= set(COCO)
    assert all(name in words for name, words in COCO_KIN.items() if name not in ("stop sign",))


def test_class_names_of_ones_own(tmp_path):
    photograph(tmp_path, "a", [(1, box(0, 0, 9, 9))])
    (tmp_path / "classes.txt").write_text("brick\nbroken pallet\n")
    outlines = open_outlines(str(tmp_path))
    assert outlines.class_names == ("broken pallet",)
    assert outlines.known_to(["Broken_Pallet"]) == ("broken pallet",)
    (tmp_path / "classes.txt").write_text("brick\nBrick\n")
    with pytest.raises(DataError, match=r"classes\.txt: expected a name once"):
        open_outlines(str(tmp_path))
    (tmp_path / "classes.txt").write_text("brick\n")
    with pytest.raises(DataError, match=r"a\.txt, line 1: expected a class of 0 to 0, got 1"):
        open_outlines(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("80 0 0 1 0 1 1", "expected a class of 0 to 79, got 80"),
        ("-1 0 0 1 0 1 1", "expected a class of 0 to 79, got -1"),
        ("1.5 0 0 1 0 1 1", "expected numbers"),
        ("cat 0 0 1 0 1 1", "expected numbers as in 'class x1"),
        ("1 0 0 1 0 1 x", "expected numbers"),
        ("1 0.5 0.5 0.2 0.2", r"at least 3 points.*got 4 numbers \(class and box"),
        ("1 0 0 1 0 1", "got 5 numbers"),
        ("1 0 0 1 0 1 1 0", "got 7 numbers"),
        ("1", "got 0 numbers"),
        ("1 0 0 12 0 12 9", r"shares of the image, of 0 to 1, got 0 to 12\. Divide"),
        ("1 0 0 1 0 -1 1", "got -1 to 1"),
        ("1 0 0 1 0 nan 1", "shares of the image"),
        ("1 0 0 1 0 inf 1", "shares of the image"),
    ],
)
def test_lines_that_are_no_outline_name_file_and_line(tmp_path, line, message):
    photograph(tmp_path, "a", [(1, box(0, 0, 9, 9))])
    path = tmp_path / "polygons" / "a.txt"
    path.write_text(f"{path.read_text()}\n{line}\n")
    with pytest.raises(DataError, match=r"a\.txt, line 3: .*" + message):
        open_outlines(str(tmp_path))


def test_coordinates_beyond_the_image_by_rounding_are_cut_off(tmp_path):
    photograph(tmp_path, "a", [(1, [(-0.2, -0.1), (30.2, -0.1), (30.2, 20.1), (-0.2, 20.1)])])
    assert tuple(open_outlines(str(tmp_path))[0].mask.shape) == (20, 30)


def test_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="expected a folder with images and outlines"):
        open_outlines(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="expected the folders images and polygons"):
        open_outlines(str(tmp_path))
    (tmp_path / "images").mkdir()
    (tmp_path / "polygons").mkdir()
    with pytest.raises(DataError, match="expected images in this folder"):
        open_outlines(str(tmp_path))
    photograph(tmp_path, "a", [])
    with pytest.raises(DataError, match=r"expected outlines of objects.*found none"):
        open_outlines(str(tmp_path))
    photograph(tmp_path, "a", [(1, box(0, 0, 9, 9))])
    other = "test" if half_of("a") == "train" else "train"
    with pytest.raises(DataError, match=f"found none in the half {other}"):
        open_outlines(f"{tmp_path}:{other}")
    with pytest.raises(UsageError, match="PATH:train or PATH:test"):
        open_outlines(f"{tmp_path}:val")


def test_files_that_cannot_be_used(tmp_path):
    photograph(tmp_path, "a", [(1, box(0, 0, 9, 9))])
    outlines = open_outlines(str(tmp_path))
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png: expected a readable image"):
        outlines[0]
    (tmp_path / "polygons" / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt: expected UTF-8"):
        open_outlines(str(tmp_path))


def test_outlines_that_two_images_share(tmp_path):
    photograph(tmp_path, "a", [(1, box(0, 0, 9, 9))])
    (tmp_path / "images" / "a.jpg").write_bytes((tmp_path / "images" / "a.png").read_bytes())
    with pytest.raises(DataError, match=r"a\.txt: expected the outlines of one image"):
        open_outlines(str(tmp_path))
