"""A data set that FiftyOne opens from disk: classes as a segmentation, doubt as a heat map.

OUT/metadata.json, OUT/samples.json     the data set; its images stay where they are
OUT/fields/classes/NAME.png             classes, from 1
OUT/fields/doubt/NAME.png               doubt, 8 bits, 255 is 1

Reference:
    https://docs.voxel51.com/user_guide/dataset_creation/datasets.html#fiftyonedataset
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doubtmap.files import write_atomically
from doubtmap.labelling.task import Region, Task
from doubtmap.reports.maps import grey_picture, plain_png


class FiftyOne:
    """Writes a data set, one image after the other.

    Args:
        out: folder.
        class_names: of the network.
        files: of all the images that will come; not used.
    """

    def __init__(self, out: Path, class_names: Sequence[str], files: Sequence[Path]) -> None:
        self.out, self.class_names = out, class_names
        self._samples: list[str] = []

    def add(self, task: Task) -> None:
        """Take an image."""
        fields = self.out / "fields"
        for kind, content in (
            ("classes", plain_png(task.classes + 1)),
            ("doubt", grey_picture(task.doubt)),
        ):
            (fields / kind).mkdir(parents=True, exist_ok=True)
            write_atomically(fields / kind / f"{task.name}.png", content)
        height, width = task.size
        sample: dict[str, Any] = {
            "filepath": str(task.file),
            "tags": [],
            "metadata": None,
            "_media_type": "image",
            "score": task.score,
            "classes": {
                "_cls": "Segmentation",
                "tags": [],
                "mask": None,
                "mask_path": f"fields/classes/{task.name}.png",
            },
            "doubt": {
                "_cls": "Heatmap",
                "tags": [],
                "map": None,
                "map_path": f"fields/doubt/{task.name}.png",
                "range": [0, 255],
            },
            "regions": {
                "_cls": "Detections",
                "detections": [_detection(region, height, width) for region in task.regions],
            },
        }
        self._samples.append(json.dumps(sample))

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        targets = {str(at): name for at, name in enumerate(self.class_names, 1)}
        # without a version, so that each sample is read by its fields, in FiftyOne of any version
        about = {"media_type": "image", "info": {"mask_targets": {"classes": targets}}}
        write_atomically(self.out / "metadata.json", json.dumps(about).encode())
        text = f'{{"samples": [{",".join(self._samples)}]}}'
        write_atomically(self.out / "samples.json", text.encode())
        return (
            f'{self.out}: fiftyone.Dataset.from_dir("{self.out}", '
            f"dataset_type=fiftyone.types.FiftyOneDataset)."
        )


def _detection(region: Region, height: int, width: int) -> dict[str, Any]:
    left, top, wide, high = region.box
    more = {"labelled": region.labelled} if region.labelled else {}
    return {
        "_cls": "Detection",
        "tags": [],
        "label": region.class_name,
        "bounding_box": [left / width, top / height, wide / width, high / height],
        "mask": {"$binary": {"base64": _mask(region.mask), "subType": "00"}},
        "confidence": region.score,
    } | more


def _mask(mask: NDArray[np.bool_]) -> str:
    """A mask as FiftyOne keeps it."""
    stream = io.BytesIO()
    np.save(stream, mask, allow_pickle=False)
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()
