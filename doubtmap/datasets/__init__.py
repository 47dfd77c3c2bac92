"""Data sets: layouts on disk to images and labels, and labels to a model's classes.

`open_dataset("camvid:PATH:test")` gives a `Dataset`; `LAYOUTS` holds what it knows, as data.
`match_labels` says which label is which class of a model, and which is unknown. `Pasted` puts
objects of `open_outlines` into the images of a data set.
"""

from doubtmap.datasets.corruptions import CORRUPTIONS, Corrupted, corrupt
from doubtmap.datasets.cutouts import CutOut, Outline, Outlines, open_outlines
from doubtmap.datasets.dataset import KNOWN, UNKNOWN, VOID, ComponentSizes, Dataset, Sample
from doubtmap.datasets.fingerprints import fingerprints
from doubtmap.datasets.labelled_folder import LabelledFolder
from doubtmap.datasets.labels import LabelValues, Matching, match_labels
from doubtmap.datasets.layouts import LAYOUTS, Layout
from doubtmap.datasets.opening import Photographs, open_dataset, open_images
from doubtmap.datasets.pasting import Pasted, Placed, draw_cut_out, paste, pasted_passes
from doubtmap.datasets.patterns import collect_images
from doubtmap.datasets.reading import read_image, read_label

__all__ = [
    "CORRUPTIONS",
    "KNOWN",
    "LAYOUTS",
    "UNKNOWN",
    "VOID",
    "ComponentSizes",
    "Corrupted",
    "CutOut",
    "Dataset",
    "LabelValues",
    "LabelledFolder",
    "Layout",
    "Matching",
    "Outline",
    "Outlines",
    "Pasted",
    "Photographs",
    "Placed",
    "Sample",
    "collect_images",
    "corrupt",
    "draw_cut_out",
    "fingerprints",
    "match_labels",
    "open_dataset",
    "open_images",
    "open_outlines",
    "paste",
    "pasted_passes",
    "read_image",
    "read_label",
]
