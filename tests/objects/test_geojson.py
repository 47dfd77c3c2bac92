"""GeoJSON: right-hand rings, reference systems, and a stand-in for pyproj."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from doubtmap.errors import DataError, UsageError
from doubtmap.objects import Georeference, ObjectRule, find_objects, outlines
from doubtmap.objects.geojson import feature, feature_collection, plan_map
from doubtmap.objects.georeference import named_crs

NORTH_UP = (0.01, 0.0, 10.0, 0.0, -0.01, 50.0)
TURNED = (0.006, 0.008, 10.0, 0.008, -0.006, 50.0)
FLIPPED = (0.01, 0.0, 10.0, 0.0, 0.01, 50.0)
SIZE = (12, 20)
A, B = Path("a.tif"), Path("b.tif")


def place(crs="EPSG:4326", affine=NORTH_UP):
    return Georeference(affine, crs, SIZE)


def ring_and_corner():
    doubt = np.zeros(SIZE)
    doubt[2:7, 3:8] = 0.9
    doubt[4, 5] = 0
    doubt[9, 2:4] = doubt[10, 4:6] = 0.6
    return find_objects(doubt, np.ones(SIZE, int), ObjectRule(0.5, 1))


def area(ring):
    x, y = (np.array(ring) - ring[0]).T
    return (x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2


@pytest.mark.parametrize("affine", [NORTH_UP, TURNED, FLIPPED])
def test_rings_follow_the_right_hand_and_areas_are_those_of_the_pixels(affine):
    ring, pair = ring_and_corner()
    where = place(affine=affine)
    pixel = abs(affine[0] * affine[4] - affine[1] * affine[3])
    found = feature(ring, outlines(ring.mask, ring.box[:2]), where, {"image": "a"}, ("x", "road"))
    assert found["geometry"]["type"] == "Polygon"
    outer, hole = found["geometry"]["coordinates"]
    assert area(outer) == pytest.approx(25 * pixel) and area(hole) == pytest.approx(-pixel)
    assert outer[0] == outer[-1] and hole[0] == hole[-1]
    assert found["properties"] == {
        "image": "a",
        "score": pytest.approx(0.9),
        "score_max": 0.9,
        "area_pixels": 24,
        "predicted_class": "road",
        "predicted_share": 1.0,
    }
    several = feature(pair, outlines(pair.mask, pair.box[:2]), where, {})
    assert several["geometry"]["type"] == "MultiPolygon"
    areas = [area(polygon[0]) for polygon in several["geometry"]["coordinates"]]
    assert areas == pytest.approx([2 * pixel] * 2)


def test_coordinates_by_hand():
    ring, _ = ring_and_corner()
    found = feature(ring, outlines(ring.mask, ring.box[:2]), place(), {})
    outer = found["geometry"]["coordinates"][0]
    assert {tuple(point) for point in outer} == {
        (10.03, 49.98),
        (10.08, 49.98),
        (10.08, 49.93),
        (10.03, 49.93),
    }


def test_degrees_are_written_plainly():
    for crs in ("EPSG:4326", "OGC:CRS84"):
        found = plan_map({A: place(crs)}, 1)
        assert (found.crs, found.notes, list(found.places)) == (None, (), [A])
        assert found.places[A](np.array([[0, 0]])).tolist() == [[10, 50]]
    assert "crs" not in feature_collection([], None)


def test_an_unnamed_system_is_left_out_unless_the_user_names_it():
    found = plan_map({A: place(None), B: place()}, 3)
    assert list(found.places) == [B]
    assert any("--crs" in note and "a.tif" in note for note in found.notes)
    assert any("1 of 3" in note for note in found.notes)
    assert list(plan_map({A: place(None), B: place()}, 2, "epsg:4326").places) == [A, B]


def test_without_pyproj_one_foreign_system_is_kept_and_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    metres = (0.5, 0.0, 330000.0, 0.0, -0.5, 2780000.0)
    found = plan_map({A: place("EPSG:32640", metres)}, 1)
    assert found.crs == "EPSG:32640"
    assert any("doubtmap[geo]" in note for note in found.notes)
    assert found.places[A](np.array([[2, 2]])).tolist() == [[330001, 2779999]]
    member = feature_collection([], found.crs)["crs"]
    assert member == {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32640"}}
    with pytest.raises(UsageError, match=r"EPSG:32640, EPSG:4326.*doubtmap\[geo\]"):
        plan_map({A: place("EPSG:32640", metres), B: place()}, 2)


class ProjError(RuntimeError):
    pass


@pytest.fixture
def pyproj(monkeypatch):
    """A stand-in that halves eastings and northings, and knows one system."""
    asked = []

    class Transformer:
        @staticmethod
        def from_crs(source, target, always_xy=False):
            asked.append((source, target, always_xy))
            if source != "EPSG:32640":
                raise ProjError("no such system")
            return Transformer()

        def transform(self, x, y):
            far = x > 1000
            return np.where(far, np.inf, x / 2), np.where(far, np.inf, y / 2)

    module, exceptions = types.ModuleType("pyproj"), types.ModuleType("pyproj.exceptions")
    module.Transformer, exceptions.ProjError = Transformer, ProjError
    module.exceptions = exceptions
    monkeypatch.setitem(sys.modules, "pyproj", module)
    monkeypatch.setitem(sys.modules, "pyproj.exceptions", exceptions)
    return asked


def test_with_pyproj_all_become_degrees(pyproj):
    metres = (1.0, 0.0, 20.0, 0.0, -1.0, 100.0)
    found = plan_map({A: place("EPSG:32640", metres), B: place()}, 2)
    assert found.crs is None and found.notes == ()
    assert pyproj == [("EPSG:32640", "EPSG:4326", True)]
    assert found.places[A](np.array([[2, 10]])).tolist() == [[11, 45]]
    assert found.places[B](np.array([[0, 0]])).tolist() == [[10, 50]]
    with pytest.raises(UsageError, match=r"EPSG:99999.*no such system"):
        plan_map({A: place("EPSG:99999")}, 1)
    far = (1.0, 0.0, 2000.0, 0.0, -1.0, 100.0)
    with pytest.raises(DataError, match=r"a.tif.*inf"):
        plan_map({A: place("EPSG:32640", far)}, 1)


def test_metres_said_to_be_degrees_are_refused():
    metres = (0.5, 0.0, 330000.0, 0.0, -0.5, 2780000.0)
    with pytest.raises(DataError, match="330000"):
        plan_map({A: place(None, metres)}, 1, "EPSG:4326")
    # latitudes are limited too, at every corner
    with pytest.raises(DataError, match="latitudes"):
        plan_map({A: place(affine=(0.01, 0, 10, 0, 0.01, 89.95))}, 1)


def test_what_the_user_says_must_fit():
    with pytest.raises(DataError, match="--crs: expected georeferenced"):
        plan_map({}, 2, "EPSG:4326")
    with pytest.raises(UsageError, match=r"a.tif says EPSG:32640"):
        plan_map({A: place("EPSG:32640")}, 1, "EPSG:4326")
    assert plan_map({A: place()}, 1, "EPSG:4326").crs is None
    for text in ("4326", "EPSG:", "EPSG:12", "WGS84", "EPSG:43 26"):
        with pytest.raises(UsageError, match="--crs"):
            named_crs(text)


def test_no_georeference_is_no_map():
    found = plan_map({}, 2)
    assert not found.places and "no GeoJSON" in found.notes[0]
