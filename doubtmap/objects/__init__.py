"""Unknown objects as things: found in a doubt map, outlined, and written for other tools."""

from doubtmap.objects.find import ObjectRule, UnknownObject, find_objects, to_supervision
from doubtmap.objects.georeference import Georeference, read_georeference
from doubtmap.objects.polygons import Polygon, outlines
from doubtmap.objects.probability import ObjectProbability
from doubtmap.objects.simplify import simplified

__all__ = [
    "Georeference",
    "ObjectProbability",
    "ObjectRule",
    "Polygon",
    "UnknownObject",
    "find_objects",
    "outlines",
    "read_georeference",
    "simplified",
    "to_supervision",
]
