"""Objects in any reference system: where they lie, how large they are, and what reads them back."""

import json
import math
import sys

import numpy as np
import pytest
import torch

import doubtmap as dm
from doubtmap.errors import UsageError
from doubtmap.objects import Georeference, ObjectRule, outlines
from doubtmap.objects.georeference import place_of, square_metres, to_degrees
from doubtmap.objects.writing import Form, write_objects

pyproj = pytest.importorskip("pyproj", reason="pyproj is not installed")
pyogrio = pytest.importorskip("pyogrio", reason="pyogrio is not installed")
rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")

UTM = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 320000, 0, -0.5, 2790000)}
CUSTOM = "+proj=laea +lat_0=25 +lon_0=55 +x_0=7 +y_0=9 +ellps=GRS80 +units=m"
"""A system without a code."""


class Bright(torch.nn.Module):
    """Sure of the second class where pixels are bright; doubt is 0 there, and else log 2."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x[:, :1]), 50 * (x[:, :1] > 0.5)], 1)


@pytest.fixture(scope="module")
def network():
    return dm.load(Bright(), mean=[0] * 3, std=[1] * 3, classes=["a", "b"])


def scene(path, dark=((2, 12, 3, 13), (20, 24, 30, 36)), size=(40, 60), **about):
    pixels = np.full((3, *size), 200, np.uint8)
    for top, bottom, left, right in dark:
        pixels[:, top:bottom, left:right] = 9
    profile = {"height": size[0], "width": size[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", **profile | UTM | about) as target:
        target.write(pixels)
    return path


def found(network, paths, out, *to, rule=None, **form):
    rule = rule or ObjectRule(0.5, 1)
    form = Form(to=to or ("geojson", "gpkg"), **form)
    return write_objects(network, paths, ("entropy", dm.scores.entropy), rule, out, form=form)


def square(side, affine):
    place = Georeference(affine, None, (side, side))
    return outlines(np.ones((side, side), bool)), place


def chained(place, crs):
    turn = to_degrees(crs)
    return lambda points: turn(place(points))


def test_areas_are_true_whatever_the_projection_does_to_them():
    shape, place = square(100, (0.5, 0, 320000, 0, -0.5, 2790000))
    stretched = pyproj.Proj("EPSG:32640").get_factors(
        *to_degrees("EPSG:32640")(np.array([[320025.0, 2789975.0]]))[0]
    )
    area = square_metres(shape, chained(place, "EPSG:32640"))
    assert area == pytest.approx(2500 / stretched.areal_scale, rel=1e-6)
    shape, place = square(100, (0.5, 0, 320000, 0, -0.5, 2790000))
    area = square_metres(shape, chained(place, "EPSG:6933"))  # of equal areas
    assert area == pytest.approx(2500, rel=1e-6)
    mercator = square_metres(shape, chained(place, "EPSG:3857"))
    assert mercator < 2400  # by the square of the cosine of 24 degrees


def test_areas_in_degrees_are_those_of_the_ellipsoid():
    shape, place = square(10, (1e-3, 0, 55.0, 0, -1e-3, 60.0))
    a, f = 6378137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))

    def up_to(latitude):
        s = math.sin(math.radians(latitude))
        return s / (2 * (1 - (e * s) ** 2)) + math.atanh(e * s) / (2 * e)

    exact = a**2 * (1 - e**2) * math.radians(0.01) * (up_to(60.0) - up_to(59.99))
    assert square_metres(shape, place) == pytest.approx(exact, rel=1e-6)


def test_holes_are_taken_off_and_the_antimeridian_is_no_wall():
    mask = np.ones((6, 6), bool)
    mask[2:4, 2:4] = False
    place = Georeference((1e-3, 0, 10.0, 0, -1e-3, 0.003), None, (6, 6))
    whole = square_metres(outlines(np.ones((6, 6), bool)), place)
    assert square_metres(outlines(mask), place) == pytest.approx(whole * 32 / 36, rel=1e-5)
    across = Georeference((1e-3, 0, 179.998, 0, -1e-3, 0.003), None, (6, 6))

    def turned(points):
        degrees = across(points)
        return np.where(degrees > 180, degrees - 360, degrees)

    assert square_metres(outlines(np.ones((6, 6), bool)), turned) == pytest.approx(whole, rel=1e-9)


def test_a_geopackage_lies_where_its_image_lies(network, tmp_path):
    path = scene(tmp_path / "scene.tif")
    said = found(network, [path], tmp_path / "out", "gpkg", rule=ObjectRule(0.5, 1))
    file = tmp_path / "out/objects.gpkg"
    assert str(file) in said["files"] and not (tmp_path / "out/objects.geojson").exists()
    assert [list(layer) for layer in pyogrio.list_layers(file)] == [["objects", "MultiPolygon"]]
    assert pyogrio.read_info(file)["crs"] == "EPSG:32640"
    about, _, _, values = pyogrio.raw.read(file)
    columns = dict(zip(about["fields"], values))
    assert columns["area_pixels"].tolist() == [100, 24]
    stretched = columns["area_m2"] / (columns["area_pixels"] * 0.25)
    assert np.ptp(stretched) < 1e-4 and abs(stretched[0] - 1) < 2e-3
    assert columns["image"].tolist() == [str(path)] * 2 and columns["score"] == pytest.approx(
        0.693, 1e-3
    )
    _, boxes = pyogrio.read_bounds(file)
    assert boxes.T.tolist() == [
        [320001.5, 2789994.0, 320006.5, 2789999.0],
        [320015.0, 2789988.0, 320018.0, 2789990.0],
    ]


def test_geojson_is_in_degrees_and_says_the_same(network, tmp_path):
    path = scene(tmp_path / "scene.tif")
    found(network, [path], tmp_path / "out")
    features = json.loads((tmp_path / "out/objects.geojson").read_text())
    assert set(features) == {"type", "features"}  # RFC 7946 knows no other system
    _, boxes = pyogrio.read_bounds(tmp_path / "out/objects.geojson")
    _, metres = pyogrio.read_bounds(tmp_path / "out/objects.gpkg")
    turn = to_degrees("EPSG:32640")
    for at in (0, 1):
        corners = turn(np.array([[metres[0, at], metres[1, at]], [metres[2, at], metres[3, at]]]))
        np.testing.assert_allclose(boxes[:, at], corners.ravel(), atol=1e-5)
    row = (tmp_path / "out/objects.csv").read_text().splitlines()[1]
    assert float(row.split(",")[-1]) == features["features"][0]["properties"]["area_m2"]


def test_systems_without_a_code_and_ground_control_points_are_kept(network, tmp_path):
    custom = scene(tmp_path / "custom.tif", crs=CUSTOM)
    points = [
        rasterio.control.GroundControlPoint(row, column, 55 + column * 1e-5, 25 - row * 1e-5)
        for row, column in [(0, 0), (0, 60), (40, 0), (40, 60)]
    ]
    ground = scene(tmp_path / "ground.tif", crs="EPSG:4326", transform=None, gcps=points)
    place = place_of(ground)
    assert place.crs == "EPSG:4326"
    np.testing.assert_allclose(place(np.array([[60, 40]])), [[55 + 60e-5, 25 - 40e-5]], atol=1e-9)
    found(network, [custom, ground, scene(tmp_path / "utm.tif")], tmp_path / "out")
    layers = pyogrio.list_layers(tmp_path / "out/objects.gpkg")[:, 0].tolist()
    assert layers == ["objects_1", "objects_2", "objects_3"]
    read = pyogrio.read_info(tmp_path / "out/objects.gpkg", layer="objects_1")
    origin = {each.name: each.value for each in pyproj.CRS(read["crs"]).coordinate_operation.params}
    assert origin["Latitude of natural origin"] == 25 and origin["False northing"] == 9
    features = json.loads((tmp_path / "out/objects.geojson").read_text())["features"]
    assert len(features) == 6
    back = pyproj.Transformer.from_crs("EPSG:4326", CUSTOM, always_xy=True)
    corners = np.array(features[0]["geometry"]["coordinates"][0])
    x, y = back.transform(*corners.T)
    assert (min(x), max(y)) == pytest.approx((320001.5, 2789999.0), abs=1e-3)


def test_what_has_no_data_is_no_object(network, tmp_path):
    path = scene(tmp_path / "scene.tif", nodata=9)
    said = found(network, [path], tmp_path / "out")
    assert said["objects"] == 0
    assert pyogrio.read_info(tmp_path / "out/objects.gpkg")["features"] == 0


@pytest.mark.parametrize("kind", ["nan", "-9999", "depth", "mask", "palette"])
def test_rasters_are_read_as_score_reads_them(network, tmp_path, kind):
    """Values without data move no range, and every kind of raster is read."""
    pixels = np.full((3, 40, 60), 0.8, np.float32)
    pixels[:, 2:12, 3:13] = 0.1
    void = np.zeros((40, 60), bool)
    void[20:24, 30:36] = True
    about = {}
    if kind == "depth":  # 11 bits of 16
        pixels, about = (pixels * 2047).astype(np.uint16), {"nodata": 65535}
        pixels[:, void] = 65535
    elif kind == "mask":
        pixels = (pixels * 255).astype(np.uint8)
        pixels[:, void] = 9
    elif kind == "palette":
        pixels, about = (pixels[:1] < 0.5).astype(np.uint8), {"nodata": 7}
        pixels[:, void] = 7
    else:
        pixels[:, void] = float(kind)
        about = {} if kind == "nan" else {"nodata": float(kind)}
    profile = {"height": 40, "width": 60, "count": len(pixels), "dtype": pixels.dtype}
    path = tmp_path / "scene.tif"
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver="GTiff", **profile | UTM | about) as target,
    ):
        target.write(pixels)
        if kind == "mask":
            target.write_mask(np.where(void, 0, 255).astype(np.uint8))
        if kind == "palette":
            target.write_colormap(1, {0: (204,) * 3, 1: (25,) * 3, 7: (9,) * 3})
    said = found(network, [path], tmp_path / "out")
    assert said["objects"] == 1
    (thing,) = json.loads((tmp_path / "out/objects.json").read_text())["annotations"]
    assert thing["bbox"] == [3, 2, 10, 10]


def test_maps_of_an_earlier_run_go(network, tmp_path):
    path = scene(tmp_path / "scene.tif")
    found(network, [path], tmp_path / "out")
    found(network, [path], tmp_path / "out", "geojson")
    assert not (tmp_path / "out/objects.gpkg").exists()


def test_forms_that_cannot_be_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="--to: expected geojson or gpkg, got kml"):
        Form(to=("kml",))
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(UsageError, match="pip install"):
        Form(to=("gpkg",))
