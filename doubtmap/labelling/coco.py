"""Predicted masks in the JSON that COCO's tools read, with scores; doubt as pictures beside it.

OUT/annotations.json    images, categories and annotations, masks as run lengths
OUT/doubt/NAME.png      doubt of each pixel in 8 bits, 255 is 1; named in the image's `doubt_map`
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from doubtmap.files import write_atomically
from doubtmap.labelling.task import Task
from doubtmap.objects.coco import run_lengths
from doubtmap.reports.maps import grey_picture
from doubtmap.version import __version__


class Coco:
    """Writes annotations, one image after the other.

    Args:
        out: folder.
        class_names: of the network.
        files: of all the images that will come; not used.
    """

    def __init__(self, out: Path, class_names: Sequence[str], files: Sequence[Path]) -> None:
        self.out = out
        self._ids = {name: number for number, name in enumerate(class_names, 1)}
        self._images: list[dict[str, object]] = []
        self._annotations: list[str] = []

    def add(self, task: Task) -> None:
        """Take an image."""
        (self.out / "doubt").mkdir(parents=True, exist_ok=True)
        write_atomically(self.out / "doubt" / f"{task.name}.png", grey_picture(task.doubt))
        height, width = task.size
        number = len(self._images) + 1
        self._images.append(
            {
                "id": number,
                "file_name": str(task.file),
                "width": width,
                "height": height,
                "score": task.score,
                "doubt_map": f"doubt/{task.name}.png",
            }
        )
        for region in task.regions:
            annotation = {
                "id": len(self._annotations) + 1,
                "image_id": number,
                "category_id": self._ids[region.class_name],
                "bbox": list(region.box),
                "area": int(region.mask.sum()),
                "segmentation": run_lengths(region.thing, task.size),
                "iscrowd": 0,
                "score": region.score,
            } | ({"labelled": region.labelled} if region.labelled else {})
            self._annotations.append(json.dumps(annotation))

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        categories = [{"id": number, "name": name} for name, number in self._ids.items()]
        info = {"description": "Predicted masks", "doubtmap": __version__}
        head = json.dumps({"info": info, "images": self._images, "categories": categories})
        text = f'{head[:-1]}, "annotations": [{",".join(self._annotations)}]}}'
        write_atomically(self.out / "annotations.json", text.encode())
        return f"{self.out / 'annotations.json'}: masks with scores, as COCO's tools read them."
