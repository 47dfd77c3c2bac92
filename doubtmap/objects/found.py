"""What was found in images, as files will have it, and what several parts of a run found as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doubtmap.objects.geopackage import Layer

COLUMNS = (
    *("image", "object", "score", "score_max", "left", "top", "width", "height", "area"),
    *("share_of_image", "predicted_class", "predicted_share", "probability", "area_m2"),
)
"""Of the CSV; `object` is the annotation's id in the JSON."""


@dataclass
class Found:
    """What a run has found so far, as it will be written.

    Args:
        placed: the reference system of the first image that has a place on earth; None: none has.
        crs: of the GeoJSON; None for longitude and latitude.
        images: of the JSON.
        annotations: of the JSON.
        features: of the GeoJSON.
        layers: of the GeoPackage, by reference system.
        rows: of the CSV.
    """

    placed: str | None = None
    crs: str | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    features: list[dict[str, Any]] = field(default_factory=list)
    layers: dict[str, Layer] = field(default_factory=dict)
    rows: list[Sequence[Any]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """The same as JSON values, which `take` reads."""
        layers = {
            name: {"shapes": [shape.hex() for shape in layer.shapes], "of": layer.properties}
            for name, layer in self.layers.items()
        }
        kept = ("placed", "crs", "images", "annotations", "features", "rows")
        return {name: getattr(self, name) for name in kept} | {"layers": layers}

    def take(self, told: Mapping[str, Any]) -> None:
        """Take what the next part has found; ids go on where these end.

        Args:
            told: of the part, as read from JSON.
        """
        self.placed, self.crs = told["placed"], told["crs"]
        images, objects = len(self.images), len(self.annotations)
        self.images += [each | {"id": each["id"] + images} for each in told["images"]]
        for each in told["annotations"]:
            more = {"id": each["id"] + objects, "image_id": each["image_id"] + images}
            self.annotations.append(each | more)
        for each in told["features"]:
            self.features.append(each | {"properties": _later(each["properties"], objects)})
        for name, layer in told["layers"].items():
            own = self.layers.setdefault(name, Layer(name))
            own.shapes += map(bytes.fromhex, layer["shapes"])
            own.properties += [_later(each, objects) for each in layer["of"]]
        at = COLUMNS.index("object")
        self.rows += [[*row[:at], row[at] + objects, *row[at + 1 :]] for row in told["rows"]]


def _later(properties: Mapping[str, Any], by: int) -> dict[str, Any]:
    """Of an object, whose id is a later one."""
    return {**properties, "object": properties["object"] + by}
