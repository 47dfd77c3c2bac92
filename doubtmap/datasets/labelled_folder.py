"""A data set read from a folder by its layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from doubtmap.datasets.dataset import ComponentSizes, Sample
from doubtmap.datasets.layouts import Layout
from doubtmap.datasets.patterns import fill, find, first_file
from doubtmap.datasets.reading import read_image, read_label
from doubtmap.errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class LabelledFolder:
    """Images and labels in a folder; implements `Dataset`.

    Args:
        name: how results call the data set.
        layout: what the files mean.
        sample_names: unique name of each sample.
        files: image and label of each sample.
    """

    name: str
    layout: Layout
    sample_names: tuple[str, ...]
    files: tuple[tuple[Path, Path], ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the label classes; empty where labels only tell known from unknown."""
        return self.layout.values.class_names

    @property
    def component_sizes(self) -> ComponentSizes | None:
        """The benchmark's component sizes, where it published any."""
        return self.layout.component_sizes

    def __len__(self) -> int:
        return len(self.files)

    def sample_name(self, index: int) -> str:
        """Name of a sample, without reading it."""
        return self.sample_names[index]

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            DataError: a file is damaged, the two differ in size, or a label value has no meaning.
        """
        image_path, label_path = self.files[index]
        image, raw = read_image(image_path), read_label(label_path)
        if image.shape[1:] != raw.shape:
            raise DataError(
                f"Expected an image and a label of one size, got {image_path} with "
                f"{image.shape[2]} x {image.shape[1]} and {label_path} with "
                f"{raw.shape[1]} x {raw.shape[0]} (width x height). Bring the label to the "
                "image's size without blending its values (nearest neighbour)."
            )
        label = torch.from_numpy(self.layout.values.translate(raw, label_path))
        return Sample(self.sample_names[index], image, label)


def open_folder(root: Path, layout: Layout, layout_name: str, split: str | None) -> LabelledFolder:
    """Find the images and labels of a data set; nothing is read yet.

    Args:
        root: folder of the data set, which exists.
        layout: how it lies there.
        layout_name: what to call it in results and messages.
        split: the split, or `None` for the layout's default.

    Raises:
        UsageError: a split is needed, or was named where there is none.
        DataError: images, the split or a label are missing.
    """
    split = _split(root, layout, layout_name, split)
    images = _images(root, layout, {"split": split} if split else {})
    if not images:
        raise DataError(_no_images(root, layout, layout_name, split))
    return LabelledFolder(
        name=f"{layout_name}:{split}" if split else layout_name,
        layout=layout,
        sample_names=_unique_names([image["file"] for image in images]),
        files=tuple(_with_labels(root, layout, layout_name, images)),
    )


def _split(root: Path, layout: Layout, layout_name: str, split: str | None) -> str | None:
    if not layout.has_splits:
        if split:
            raise UsageError(
                f"{layout_name} has no splits, got {split}. Leave :{split} away, or check the path."
            )
        return None
    if split or layout.default_split:
        return split or layout.default_split
    raise UsageError(
        f"{layout_name} needs a split, as in LAYOUT:PATH:SPLIT. {_existing_splits(root, layout)}"
    )


def _images(root: Path, layout: Layout, fields: dict[str, str]) -> list[dict[str, str]]:
    if layout.listing:
        return _listed_images(root, layout, layout.listing, fields)
    for pattern in layout.images:
        if images := list(find(root, pattern, fields)):
            return images
    return []


def _listed_images(
    root: Path, layout: Layout, listing: str, fields: dict[str, str]
) -> list[dict[str, str]]:
    path = root / fill(listing, fields)
    if not path.is_file():
        return []
    images = []
    for frame in sorted(set(path.read_text(encoding="utf-8").split())):
        named = {**fields, "frame": frame}
        found = next(find(root, layout.images[0], named), None)
        if found is None:
            missing = root / fill(layout.images[0], named)
            raise DataError(f"{path} lists {frame}, but there is no {missing}. Complete the data.")
        images.append(found)
    return images


def _no_images(root: Path, layout: Layout, layout_name: str, split: str | None) -> str:
    fields = {"split": split} if split else {}
    patterns = (layout.listing,) if layout.listing else layout.images
    searched = " or ".join(fill(pattern, fields, "*") for pattern in patterns)
    what = f"images of the split {split}" if split else "images"
    hint = _existing_splits(root, layout) if split else "Check the path."
    return f"{root}: expected {what}, found no file {searched} ({layout_name} layout). {hint}"


def _existing_splits(root: Path, layout: Layout) -> str:
    splits: set[str] = set()
    for pattern in (layout.listing,) if layout.listing else layout.images:
        for found in find(root, pattern, {}):
            labelled = layout.listing or found["split"] in splits or _label(root, layout, found)
            splits.update([found["split"]] if labelled else [])
    if not splits:
        return "There are no images of any split: check the path."
    return f"Splits there: {', '.join(sorted(splits))}."


def _with_labels(
    root: Path, layout: Layout, layout_name: str, images: Sequence[dict[str, str]]
) -> list[tuple[Path, Path]]:
    pairs, missing = [], []
    for image in images:
        label = _label(root, layout, image)
        if label is None:
            missing.append(image)
        else:
            pairs.append((root / image["file"], label))
    if missing:
        wanted = " or ".join(str(root / fill(label, missing[0])) for label in layout.labels)
        more = f" {len(missing)} of {len(images)} images lack theirs." if len(missing) > 1 else ""
        raise DataError(
            f"{root / missing[0]['file']}: expected its label {wanted}, found none "
            f"({layout_name} layout).{more} Add the label or remove the image."
        )
    return pairs


def _label(root: Path, layout: Layout, image: dict[str, str]) -> Path | None:
    return first_file(root, layout.labels, image)


def _unique_names(files: Sequence[str]) -> tuple[str, ...]:
    """The shortest names that are unique, also where file names ignore case."""
    paths = [PurePosixPath(file) for file in files]
    for names in (
        [path.stem for path in paths],
        [str(path.with_suffix("")).replace("/", "__") for path in paths],
        [str(path).replace("/", "__").replace(".", "_") for path in paths],
    ):
        if len({name.casefold() for name in names}) == len(names):
            return tuple(names)
    return tuple(f"{index:06d}_{path.stem}" for index, path in enumerate(paths))
