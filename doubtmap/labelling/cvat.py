"""Annotations for CVAT, in its own format, "CVAT for images 1.1", and doubt as context images.

OUT/annotations.xml                     masks, each with its score, to upload into a task
OUT/related_images/FILE_SUFFIX/doubt.jpg
                                        context images: put these beside the images in the archive
                                        that a task is made of

Reference:
    https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from doubtmap.files import write_atomically
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
    return np.diff(starts, prepend=0, append=flat.size).tolist()


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
        job = ElementTree.SubElement(ElementTree.SubElement(self._root, "meta"), "job")
        ElementTree.SubElement(job, "size").text = str(len(files))
        ElementTree.SubElement(job, "mode").text = "annotation"
        labels = ElementTree.SubElement(job, "labels")
        for name, colour in zip(class_names, class_colours(len(class_names), class_names)):
            _label(labels, name, "#" + bytes(colour).hex())
        self._count = 0

    def add(self, task: Task) -> None:
        """Take an image."""
        height, width = task.size
        image = ElementTree.SubElement(
            self._root,
            "image",
            id=str(self._count),
            name=plain_xml(task.file.name),
            width=str(width),
            height=str(height),
        )
        self._count += 1
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
        folder = self.out / "related_images" / task.file.name.replace(".", "_")
        folder.mkdir(parents=True, exist_ok=True)
        write_overlay(folder / "doubt.jpg", task.image, task.doubt, (0.0, 1.0))

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        ElementTree.indent(self._root)
        content = ElementTree.tostring(self._root, "utf-8", xml_declaration=True)
        write_atomically(self.out / "annotations.xml", content)
        return (
            f"{self.out}: make a task in CVAT of the images, with related_images beside them in "
            f"the archive, and upload annotations.xml as CVAT 1.1."
        )


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
