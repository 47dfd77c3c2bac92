"""Tasks for Label Studio: predictions as brush masks, doubt as a second picture beside the image.

OUT/tasks.json          to import into a project
OUT/config.xml          the project's labelling interface
OUT/doubt/NAME.jpg      doubt laid over the image

Label Studio is served files from below one folder, which `root` is.

Reference:
    https://labelstud.io/guide/predictions; brush masks are packed as in
    https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from doubtmap.files import write_atomically
from doubtmap.files.writing import plain_xml
from doubtmap.labelling.task import Region, Task
from doubtmap.reports.colours import class_colours
from doubtmap.reports.overlay import write_overlay
from doubtmap.version import __version__

WORD = 8
"""Bits of a value."""
SIZES = (3, 4, 8, 16)
"""Bits of the lengths of runs, of four kinds."""
CHANNELS = 4
"""A mask is an RGBA picture."""


def packed(mask: NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio packs it: runs of bytes of an RGBA picture, as a list of bytes.

    Args:
        mask: `(H, W)`.
    """
    flat = mask.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.append(starts, flat.size)) * CHANNELS
    bits = [f"{flat.size * CHANNELS:032b}{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist()):
        value = "1" * WORD if flat[start] else "0" * WORD
        while length:
            run = min(length, 1 << SIZES[-1])
            kind = next(k for k, size in enumerate(SIZES) if run <= 1 << size)
            bits.append(f"1{kind:02b}{run - 1:0{SIZES[kind]}b}{value}")
            length -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


class LabelStudio:
    """Writes tasks, one image after the other.

    Args:
        out: folder.
        class_names: of the network.
        files: of all the images that will come.
    """

    def __init__(self, out: Path, class_names: Sequence[str], files: Sequence[Path]) -> None:
        self.out, self.class_names = out, class_names
        self.root = Path(os.path.commonpath([out.resolve(), *(path.parent for path in files)]))
        self._tasks: list[str] = []

    def add(self, task: Task) -> None:
        """Take an image."""
        picture = self.out / "doubt" / f"{task.name}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_overlay(picture, task.image, task.doubt, (0.0, 1.0))
        result = [_brush(task, number, region) for number, region in enumerate(task.regions)]
        said = {
            "data": {
                "image": self._address(task.file),
                "doubt": self._address(picture.resolve()),
                "name": task.name,
                "score": task.score,
            },
            "predictions": [
                {"model_version": f"doubtmap {__version__}", "score": task.score, "result": result}
            ],
        }
        self._tasks.append(json.dumps(said))

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        write_atomically(self.out / "tasks.json", f"[{','.join(self._tasks)}]".encode())
        write_atomically(self.out / "config.xml", _config(self.class_names))
        return (
            f"{self.out}: give config.xml to a project of Label Studio and import tasks.json; "
            f"start it with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={self.root}."
        )

    def _address(self, file: Path) -> str:
        return f"/data/local-files/?d={quote(file.relative_to(self.root).as_posix())}"


def _brush(task: Task, number: int, region: Region) -> dict[str, object]:
    height, width = task.size
    whole = region.thing.on_image(task.size)
    name = plain_xml(region.class_name)  # as the interface has it
    found: dict[str, object] = {
        "id": f"region-{number}",
        "type": "brushlabels",
        "from_name": "classes",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": region.score,
        "value": {"format": "rle", "rle": packed(whole), "brushlabels": [name]},
    }
    if region.labelled:
        found["meta"] = {"text": [f"labelled {region.labelled}"]}
    return found


def _config(class_names: Sequence[str]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", value="$name")
    labels = ElementTree.SubElement(view, "BrushLabels", name="classes", toName="image")
    for name, colour in zip(class_names, class_colours(len(class_names), class_names)):
        background = "#" + bytes(colour).hex()
        ElementTree.SubElement(labels, "Label", value=plain_xml(name), background=background)
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    ElementTree.SubElement(view, "Image", name="doubt", value="$doubt")
    ElementTree.indent(view)
    return bytes(ElementTree.tostring(view, "utf-8", xml_declaration=False))
