"""A task for CVAT: annotations in its own format, "CVAT for images 1.1", and images with doubt.

OUT/images.zip          the images, and their doubt as context images: make a task of it
OUT/annotations.xml     masks, each with its score: upload it into the task
OUT/doubt/NAME.jpg      the context images

Reference:
    https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/; context images:
    https://docs.cvat.ai/docs/annotation/manual-annotation/utilities/contextual-images/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from doubtmap.files import beside, write_atomically
from doubtmap.files.writing import plain_xml
from doubtmap.labelling.task import Task
from doubtmap.reports.colours import class_colours
from doubtmap.reports.overlay import write_overlay

ATTRIBUTES = ("score", "labelled")
"""Of masks: the score, and the class that the labels say."""


def run_lengths_of_rows(mask: NDArray[np.bool_]) -> list[int]:
    """A mask within its box as lengths of runs, along the rows, off and on in turn, first off.

    Example:
        >>> run_lengths_of_rows(np.array([[True, False], [True, True]]))
        [0, 1, 1, 2]
    """
    flat = mask.reshape(-1).astype(np.int8)
    starts = np.flatnonzero(np.diff(flat, prepend=0))
    return list(map(int, np.diff(starts, prepend=0, append=flat.size)))


class Cvat:
    """Writes annotations, one image after the other.

    Args:
        out: folder.
        class_names: of the network.
        files: of all the images that will come.
    """

    def __init__(self, out: Path, class_names: Sequence[str], files: Sequence[Path]) -> None:
        self.out = out
        self._root = ElementTree.Element("annotations")
        ElementTree.SubElement(self._root, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "task")
        for name, said in (("name", out.name), ("size", str(len(files))), ("mode", "annotation")):
            ElementTree.SubElement(task, name).text = said
        labels = ElementTree.SubElement(task, "labels")
        for name, colour in zip(class_names, class_colours(len(class_names), class_names)):
            _label(labels, name, "#" + bytes(colour).hex())
        self._archive: list[tuple[Path, str]] = []

    def add(self, task: Task) -> None:
        """Take an image."""
        height, width = task.size
        named = f"{task.name}{task.file.suffix}"
        image = ElementTree.SubElement(
            self._root,
            "image",
            id=str(len(self._archive) // 2),
            name=plain_xml(named),
            width=str(width),
            height=str(height),
        )
        for region in task.regions:
            left, top, wide, high = map(str, region.box)
            lengths = ", ".join(map(str, run_lengths_of_rows(region.mask)))
            mask = ElementTree.SubElement(
                image,
                "mask",
                label=plain_xml(region.class_name),
                source="auto",
                occluded="0",
                rle=lengths,
                left=left,
                top=top,
                width=wide,
                height=high,
                z_order="0",
            )
            for name, value in zip(ATTRIBUTES, (f"{region.score:.4f}", region.labelled)):
                if value:
                    ElementTree.SubElement(mask, "attribute", name=name).text = plain_xml(value)
        picture = self.out / "doubt" / f"{task.name}.jpg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_overlay(picture, task.image, task.doubt, (0.0, 1.0))
        related = f"related_images/{named.replace('.', '_')}/doubt.jpg"
        self._archive += [(task.file, named), (picture, related)]

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        ElementTree.indent(self._root)
        content = ElementTree.tostring(self._root, "utf-8", xml_declaration=True)
        write_atomically(self.out / "annotations.xml", content)
        with beside(self.out / "images.zip") as file, ZipFile(file, "w") as archive:
            for source, name in self._archive:
                archive.write(source, name)
        return f"{self.out}: make a task in CVAT of images.zip, upload annotations.xml as CVAT 1.1."


def _label(labels: ElementTree.Element, name: str, colour: str) -> None:
    label = ElementTree.SubElement(labels, "label")
    ElementTree.SubElement(label, "name").text = plain_xml(name)
    ElementTree.SubElement(label, "color").text = colour
    ElementTree.SubElement(label, "type").text = "mask"
    attributes = ElementTree.SubElement(label, "attributes")
    for attribute in ATTRIBUTES:
        each = ElementTree.SubElement(attributes, "attribute")
        ElementTree.SubElement(each, "name").text = attribute
        ElementTree.SubElement(each, "mutable").text = "False"
        ElementTree.SubElement(each, "input_type").text = "text"
        ElementTree.SubElement(each, "default_value").text = ""
        ElementTree.SubElement(each, "values").text = ""
