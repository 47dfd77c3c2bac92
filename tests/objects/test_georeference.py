"""Where images lie: tags and world files by hand, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from doubtmap.errors import DataError
from doubtmap.objects import read_georeference
from doubtmap.objects.georeference import corners

SCALE, TIEPOINTS, TRANSFORMATION, GEO_KEYS = 33550, 33922, 34264, 34735
DOUBLE, SHORT = 12, 3


def keys(model=1, raster=1, code=32640):
    entries = [(1024, model), (1025, raster), (3072 if model == 1 else 2048, code)]
    return [1, 1, 0, len(entries), *(n for key, value in entries for n in (key, 0, 1, value))]


@pytest.fixture
def geotiff(tmp_path):
    def write(directory=None, name="tile.tif", size=(40, 30), **tags):
        info = ImageFileDirectory_v2()
        numbers = {"scale": SCALE, "tie": TIEPOINTS, "matrix": TRANSFORMATION}
        for tag, values in tags.items():
            info[numbers[tag]] = tuple(map(float, values))
            info.tagtype[numbers[tag]] = DOUBLE
        if directory:
            info[GEO_KEYS] = tuple(directory)
            info.tagtype[GEO_KEYS] = SHORT
        Image.new("RGB", size).save(tmp_path / name, tiffinfo=info)
        return tmp_path / name

    return write


def at(found, x, y):
    return found(np.array([[x, y]]))[0].tolist()


def test_scale_and_tiepoint(geotiff):
    found = read_georeference(
        geotiff(keys(), scale=(0.5, 0.25, 0), tie=(10, 20, 0, 330000, 2780000, 0))
    )
    assert found.crs == "EPSG:32640" and found.size == (30, 40)
    assert at(found, 10, 20) == [330000, 2780000]
    assert at(found, 12, 24) == [330001, 2779999]
    assert corners(found).tolist() == [
        [329995, 2780005],
        [330015, 2780005],
        [330015, 2779997.5],
        [329995, 2779997.5],
    ]


def test_where_a_pixel_is_a_point_the_tags_speak_of_its_centre(geotiff):
    tags = {"scale": (2, 3, 0), "tie": (0, 0, 0, 100, 200, 0)}
    found = read_georeference(geotiff(keys(raster=2), **tags))
    assert at(found, 0.5, 0.5) == [100, 200]
    assert at(found, 0, 0) == [99, 201.5]
    assert at(read_georeference(geotiff(keys(raster=1), **tags)), 0, 0) == [100, 200]


@pytest.mark.parametrize("raster", [1, 2])
def test_a_rotated_transformation(geotiff, raster):
    matrix = [0, 2, 0, 1000, 3, 0, 0, 5000, 0, 0, 0, 0, 0, 0, 0, 1]
    found = read_georeference(geotiff(keys(raster=raster), matrix=matrix))
    shift = 0.5 if raster == 2 else 0
    assert at(found, 0 + shift, 0 + shift) == [1000, 5000]
    assert at(found, 1 + shift, 4 + shift) == [1008, 5003]


@pytest.mark.parametrize(
    ("directory", "crs"),
    [
        (keys(model=2, code=4326), "EPSG:4326"),
        (keys(model=1, code=32767), None),  # defined by parameters that are not read
        (keys(model=3, code=4978), None),
        (None, None),
        ([1, 1, 0, 9, 1024], None),  # cut short
        ([1, 1, 0, 1, 1024, 34736, 1, 0], None),
    ],
)
def test_the_reference_system(geotiff, directory, crs):
    found = read_georeference(geotiff(directory, scale=(1, 1, 0), tie=(0, 0, 0, 5, 6, 0)))
    assert found.crs == crs and at(found, 0, 0) == [5, 6]


@pytest.mark.parametrize(
    ("image", "world"),
    [
        *[("a.jpg", "a.jgw"), ("a.jpg", "a.jpgw"), ("a.jpeg", "a.jgw"), ("a.png", "a.pgw")],
        *[("a.png", "a.wld"), ("a.tif", "a.tfw"), ("a.tiff", "a.TFW"), ("a.JPG", "a.jgw")],
    ],
)
def test_a_world_file_speaks_of_pixel_centres(tmp_path, image, world):
    Image.new("RGB", (4, 3)).save(tmp_path / image)
    assert read_georeference(tmp_path / image) is None
    (tmp_path / world).write_text("2.0\n0.0\n0.0\n-3.0\n100.0\n200.0\n")
    found = read_georeference(tmp_path / image)
    assert found.crs is None and found.size == (3, 4)
    assert at(found, 0.5, 0.5) == [100, 200]
    assert at(found, 0, 0) == [99, 201.5]


def test_a_rotated_world_file(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    # lines: x by column, y by column, x by row, y by row
    (tmp_path / "a.pgw").write_text("0.6 0.8 0.8 -0.6 10 20")
    found = read_georeference(tmp_path / "a.png")
    assert at(found, 0.5, 0.5) == [10, 20]
    assert at(found, 1.5, 0.5) == pytest.approx([10.6, 20.8])
    assert at(found, 0.5, 1.5) == pytest.approx([10.8, 19.4])


def test_tags_go_before_a_world_file(geotiff, tmp_path):
    path = geotiff(keys(), scale=(1, 1, 0), tie=(0, 0, 0, 5, 6, 0))
    (tmp_path / "tile.tfw").write_text("9 0 0 -9 9 9")
    assert at(read_georeference(path), 0, 0) == [5, 6]


@pytest.mark.parametrize(
    "text", ["", "1 0 0 -1 5", "1 0 0 -1 5 6 7", "1,0 0 0 -1 5 6", "nan 0 0 1 5 6", "1 2 2 4 0 0"]
)
def test_a_world_file_with_wrong_numbers_is_refused(tmp_path, text):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_text(text)
    with pytest.raises(DataError, match=r"expected a (world file of six|georeference of finite)"):
        read_georeference(tmp_path / "a.png")


def test_a_world_file_of_bytes_is_refused(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "a.pgw").write_bytes(b"\xff\xfe\x00\x9d")
    with pytest.raises(DataError, match=r"a\.pgw"):
        read_georeference(tmp_path / "a.png")


@pytest.mark.parametrize(
    "tags",
    [
        {"scale": (0, 1, 0), "tie": (0, 0, 0, 5, 6, 0)},
        {"scale": (1, 1, 0), "tie": (0, 0, 0)},
        {"matrix": (1, 0, 0, 0, 1, 0)},
        {"matrix": [1, 2, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]},
    ],
)
def test_tags_that_cannot_be_meant_are_refused(geotiff, tags):
    with pytest.raises(DataError, match=r"tile\.tif"):
        read_georeference(geotiff(keys(), **tags))


def test_a_turned_image_is_refused_where_it_has_a_georeference(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg", exif=exif)
    assert read_georeference(tmp_path / "a.jpg") is None
    (tmp_path / "a.jgw").write_text("1 0 0 -1 5 6")
    with pytest.raises(DataError, match="orientation 6"):
        read_georeference(tmp_path / "a.jpg")


def test_no_image_has_no_georeference(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\x00nothing")
    assert read_georeference(tmp_path / "a.tif") is None
    assert read_georeference(tmp_path / "missing.tif") is None
