"""Images that something was fitted to or chosen on, met again where it is to be judged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from doubtmap.datasets import fingerprints
from doubtmap.datasets.corruptions import Corrupted
from doubtmap.datasets.dataset import Dataset
from doubtmap.datasets.fingerprints import fingerprint_of
from doubtmap.datasets.pasting import Part, Pasted
from doubtmap.errors import DataError
from doubtmap.models.folders import images_trained_on, photographs_learnt
from doubtmap.prediction import Fitted, Segmenter


def who_has_seen(
    dataset: Dataset, segmenter: Segmenter, parts: Mapping[str, object]
) -> Iterator[str]:
    """A sentence for each thing that has seen images of a data set, so that its figures flatter.

    Args:
        dataset: to be judged on; images that cannot be read are passed over.
        segmenter: the network; its training, its calibrator and its negatives may have seen some.
        parts: what else takes part, by what it is called, such as `the threshold of entropy`.
    """
    yield from notes_of_training(segmenter, dataset)
    yield from filter(
        None, (note_of_overlap(segmenter, dataset), note_of_negatives(segmenter, dataset))
    )
    seen = {what: images_seen(part) for what, part in parts.items()}
    seen["negatives in the network's training"] = learnt_as_unknown(segmenter)
    yield from notes_of_seen(seen, dataset)


def images_seen(part: object) -> Sequence[str]:
    """Fingerprints of images: those that something fitted has seen, or those of a data set.

    Of a network behind windows or workers they are the network's own.
    """
    while not isinstance(part, Fitted) and hasattr(part, "segmenter"):
        part = part.segmenter
    if isinstance(part, Fitted):
        return part.origin.images
    return fingerprints(part) if isinstance(part, Dataset) else ()


def notes_of_seen(seen: Mapping[str, Collection[str]], dataset: Dataset) -> Iterator[str]:
    """A sentence for each thing that has seen images of a data set.

    Args:
        seen: fingerprints of images by what saw them, such as `the threshold of entropy`.
        dataset: to be judged on; images that cannot be read are passed over.
    """
    if not any(seen.values()):
        return
    here = list(_readable(dataset))
    for what, images in seen.items():
        held = set(images)
        again = sum(image in held for image in here)
        if again:
            yield (
                f"{again} of {len(dataset)} images of {dataset.name} were used for {what}, so its "
                f"figures are too good. Test on other images."
            )


def note_of_negatives(segmenter: Segmenter, dataset: Dataset) -> str | None:
    """A sentence where the network learnt photographs as unknown whose objects are now pasted.

    Args:
        segmenter: a network in a folder that `doubtmap train` wrote, which tells its negatives.
        dataset: to be judged on.
    """
    while isinstance(dataset, Corrupted | Part):
        dataset = dataset.dataset
    if not isinstance(dataset, Pasted):
        return None
    learnt = set(learnt_as_unknown(segmenter))
    photographs = {outline.image for outline in dataset.outlines.outlines} if learnt else set()
    again = sum(fingerprint_of(path) in learnt for path in photographs)
    if not again:
        return None
    return (
        f"{again} of the {len(photographs)} photographs whose objects are pasted were negatives in "
        f"the network's training, so its figures are too good. Paste those of another half."
    )


def learnt_as_unknown(segmenter: Segmenter) -> list[str]:
    """Fingerprints of the photographs that a network learnt as unknown, where its folder says."""
    return [
        mark
        for about in _networks(segmenter.description)
        for mark in photographs_learnt(str(about.get("source", "")))
    ]


def notes_of_training(segmenter: Segmenter, dataset: Dataset) -> Iterator[str]:
    """A sentence where a network was trained on images that it is to be judged or fitted on.

    Args:
        segmenter: a network in a folder that `doubtmap train` wrote, which tells its images.
        dataset: to be judged on; images that cannot be read are passed over.
    """
    sources = [str(about.get("source", "")) for about in _networks(segmenter.description)]
    learnt = {mark for source in sources for mark in images_trained_on(source)}
    again = sum(image in learnt for image in _readable(dataset)) if learnt else 0
    if again:
        yield (
            f"The network was trained on {again} of {len(dataset)} images of {dataset.name}, so it "
            f"doubts them too little, wrong labels among them, and its figures are too good. Take "
            f"other images."
        )


def cause(note: str) -> str:
    """What a note of this module found, without what follows from it, within a sentence."""
    found = note.partition(", so")[0]
    return found[0].lower() + found[1:]


def _networks(about: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a segmenter says of itself, or of each of its members."""
    members = about.get("members")
    if isinstance(members, list):
        for member in members:
            yield from _networks(member)
    else:
        yield about


def note_of_overlap(segmenter: Segmenter, dataset: Dataset) -> str | None:
    """A sentence where images of a data set are among those that a calibrator was fitted on."""
    seen = set(images_seen(segmenter))
    again = sum(image in seen for image in _readable(dataset)) if seen else 0
    if not again:
        return None
    about = segmenter.description.get("calibrator")
    source = about.get("source") if isinstance(about, Mapping) else ""
    return (
        f"{again} of {len(dataset)} images of {dataset.name} were used to fit the calibrator "
        f"{source or 'given'}, so calibration figures are too good. Test on other images."
    )


def _readable(dataset: Dataset) -> Iterator[str]:
    """Fingerprints of the images that can be read."""
    for index in range(len(dataset)):
        with suppress(DataError):
            yield fingerprints(dataset, [index])[0]
