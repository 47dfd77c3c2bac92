"""One part of an evaluation as files, and all parts as the evaluation that one process would do.

OUT/part.json           what was asked for, and what was seen of network and data; written last
OUT/sums.safetensors    the sums over the part's images
OUT/maps/               labels and score maps of each image, where the thresholds of the components
                        follow from the images of all parts
OUT/components          else the components of each image, at the thresholds that were given
OUT/examples/N          the part's images that may be worth looking at

The sums do not depend on how the images were parted, so that the merge has the figures of one
process to the last bit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Never

import numpy as np
import safetensors.numpy
import safetensors.torch

from doubtmap.datasets import reading
from doubtmap.datasets.dataset import ComponentSizes, Dataset, Sample
from doubtmap.datasets.fingerprints import (
    file_hashes,
    image_files,
    range_of,
    told_of_files,
)
from doubtmap.datasets.labels import Matching
from doubtmap.engine.journal import going_on, journalled, records_in, write_records
from doubtmap.engine.parts import (
    PART,
    as_written,
    check_alike,
    damaged,
    hashes_of,
    read_parts,
    write_part,
)
from doubtmap.engine.places import PartNumber
from doubtmap.engine.run import Run, Skipped, read_ahead
from doubtmap.engine.shelf import ENOUGH, Looked, Shelf, Shelves
from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.asking import PLAIN, Asked, Options, may_be_unknown
from doubtmap.evaluation.components import find_components
from doubtmap.evaluation.evaluate import figures_of
from doubtmap.evaluation.examples import telling
from doubtmap.evaluation.first_look import tally_pixels
from doubtmap.evaluation.results import OF_ALL, Results, strict_figures
from doubtmap.evaluation.tally import VERSION, Observation, Tally
from doubtmap.files import alone, write_atomically, writing_to
from doubtmap.files.afar import path_of
from doubtmap.files.earlier import begin_in
from doubtmap.prediction import Prediction
from doubtmap.scoring import score_maps
from doubtmap.version import __version__

SUMS = "sums.safetensors"
EXAMPLES = "examples/"
SAID = ("settings", "images", "data", "seconds", "hashes", "maps")
"""What a part says."""

READERS = 2
"""Threads that read parts while others are summed."""


@alone
def evaluate_part(asked: Asked, out: Path, *, resume: bool = False) -> str:
    """Look at one part of the images and write what the merge needs.

    Args:
        asked: what was asked for; its place says which part.
        out: folder for it.
        resume: go on with what a killed run has left there.

    Returns:
        One sentence about what was written.

    Raises:
        UsageError, DataError, ModelError: as `evaluate`.
    """
    start, run, folder = time.perf_counter(), asked.run, out / ".progress"
    place = going_on(asked.options.place, folder if resume else None)
    part, asked = place.part, replace(asked, options=replace(asked.options, place=place))
    assert part is not None
    settings = asked.settings | {"part": str(part)}
    unknown = may_be_unknown(run)
    given = unknown and all(name in asked.given for name in run.scores)
    with place.alike(), journalled(folder, settings, resume) as journal:
        if not resume:
            _clear(out)
        with ExitStack() as closed:
            maps = out / "maps" if unknown and not given else None
            if maps:
                maps.mkdir(exist_ok=True)
            numbers = part.numbers(len(run.dataset))
            tally, held, shelf = tally_pixels(asked, journal, maps, numbers)
            closed.callback(shelf.close)
            own = sorted(int(row["index"]) for row in tally.images)
            if run.matching is None and own:  # a resumed run that had seen all images
                run.predict(run.dataset[own[0]])
            if given:
                found: list[Observation] = []
                find_components(
                    *(run, tally, asked.given, asked.sizes, journal, asked.given, held, shelf),
                    keep=found.append,
                )
                write_records(out / "components", (seen.to_bytes() for seen in found))
            elif maps:
                missing = [index for index in own if index not in shelf]
                _fill(run, Shelf(ENOUGH, maps / "more"), missing)
                shelf = Shelves(maps)
                closed.callback(shelf.close)
            files = [SUMS, *(["components"] if given else [])]
            for index in sorted(telling(run, tally, asked.options.examples)):
                files.append(f"{EXAMPLES}{index}")
                _keep_example(run, index, shelf, out / files[-1])
            arrays = {name: np.ascontiguousarray(array) for name, array in tally.state().items()}
            write_atomically(out / SUMS, safetensors.numpy.save(arrays))
            run.seconds["total"] = time.perf_counter() - start
            written = {"hashes": hashes_of(out, files), "maps": _sizes(out / "maps")}
            write_part(out, "evaluate", part, strict_figures(_about(asked, part, own) | written))
    return f"Part {part} of {run.dataset.name}, {len(own)} images: {out}. {part.then}"


def _sizes(maps: Path) -> dict[str, int]:
    """Bytes of each file of score maps, which are too large to be read once more."""
    return {path.name: path.stat().st_size for path in sorted(maps.glob("*"))}


def _clear(out: Path) -> None:
    """Remove what an earlier part, or a whole evaluation, has left.

    Raises:
        UsageError: for folders that a part writes, where no evaluation has left anything else.
    """
    earlier = [name for name in (PART, SUMS, "components", *OF_ALL) if (out / name).exists()]
    folders = [out / name for name in ("maps", "examples") if (out / name).is_dir()]
    if folders and not earlier:
        raise UsageError(
            f"--part: expected no folder {folders[0].name} in {out}, which the part writes and "
            f"which no evaluation there has left. Name another --out, or move it away."
        )
    with writing_to(out):
        for name in earlier:
            (out / name).unlink()
        begin_in(out, "evaluate", [], [])
        for folder in folders:
            shutil.rmtree(folder)


def _fill(run: Run, shelf: Shelf, numbers: Sequence[int]) -> None:
    """Put images on a shelf that others lack, as after a kill."""
    with closing(shelf):
        for index, sample in read_ahead(run.dataset, [n for n in numbers if n not in shelf]):
            prediction, label = run.predict(sample)
            shelf.put(index, label, prediction.classes[0], score_maps(prediction, run.scores))
            if index not in shelf:
                raise DataError(
                    f"{sample.name}: expected room for its score maps on the disk of --out. Make "
                    f"room, take more parts, or give the thresholds of all scores with --threshold."
                )


def _keep_example(run: Run, index: int, shelf: Shelf, path: Path) -> None:
    """Keep an image with all that is shown of it."""
    sample = run.dataset[index]
    if index in shelf:
        looked = shelf.get(index)
    else:
        prediction, label = run.predict(sample)
        maps = score_maps(prediction, run.scores)
        looked = Looked(label.cpu(), prediction.classes[0].cpu(), maps)
    tensors = {f"map/{name}": values.cpu().contiguous() for name, values in looked.maps.items()}
    tensors |= {"image": sample.image, "label": looked.label, "classes": looked.classes}
    write_atomically(path, safetensors.torch.save({n: t.contiguous() for n, t in tensors.items()}))


def _about(asked: Asked, part: PartNumber, own: Sequence[int]) -> dict[str, Any]:
    """What the merge must know beside the sums."""
    run = asked.run
    dataset, matching, skipped = run.dataset, run.matching, run.skipped
    numbers = part.numbers(len(dataset))
    mine = {dataset.sample_name(index) for index in numbers} if skipped else set()
    files = image_files(dataset)
    sizes = dataset.component_sizes
    return {
        "doubtmap": __version__,
        "settings": asked.settings,
        "images": own,
        "model": run.segmenter.description,
        "class_names": list(run.segmenter.class_names),
        "matching": matching and {"targets": matching.targets, "notes": matching.notes},
        "data": {
            "name": dataset.name,
            "images": len(dataset),
            "class_names": list(dataset.class_names),
            "component_sizes": sizes and [sizes.predicted, sizes.labelled],
            "hashes": file_hashes(dataset, part.number - 1, part.of),
            "range": range_of(dataset),
            "files": {index: str(files[index]) for index in own if files[index] is not None},
        },
        "examples": asked.options.examples,
        "unknown": list(run.unknown),
        "skipped": skipped and {n: why for n, why in skipped.reasons.items() if n in mine},
        "seconds": run.seconds,
        "notes": run.notes,
    }


@alone
def merge_parts(out: Path, parts: Sequence[Path], options: Options = PLAIN) -> Results:
    """The evaluation whose parts these are, as one process would have done it.

    Args:
        out: folder for the report.
        parts: folders of the parts, in any order.
        options: of which only `command` and `save` count.

    Raises:
        UsageError: for parts that do not belong together, are there twice, or are missing.
        DataError: for a folder without a part, or one that is damaged.
    """
    start = time.perf_counter()
    folders, abouts = read_parts("evaluate", out, parts, SAID)
    check_alike([*map(_compared, abouts)], folders)
    _check_version(abouts[0]["settings"], folders[0])
    asked = _asked(abouts, folders, options)
    tally = asked.tally()
    places = [(folder, about["hashes"]) for folder, about in zip(folders, abouts)]
    for sums in reading.read_ahead(sums_of, places, READERS, ahead=1):
        tally.absorb(sums)
    hashes = [about["data"]["hashes"] for about in abouts]
    every = None if hashes[0] is None else [each for own in hashes for each in own]
    with closing(_Kept(folders, abouts)) as shelf:
        results = figures_of(
            asked,
            tally,
            told_of_files(every, abouts[0]["data"]["range"]),
            held=[*map(Observation.from_bytes, _components(folders, abouts))],
            journal=None,
            shelf=shelf,
        )
    seconds = {key: sum(about["seconds"][key] for about in abouts) for key in abouts[0]["seconds"]}
    seconds["metrics"] += time.perf_counter() - start
    seconds["total"] += time.perf_counter() - start
    seed = abouts[0]["settings"]["seed"]
    results.figures.update(command=options.command, seed=seed, seconds=seconds)
    _tell_threads(results.figures, abouts)
    if options.save:
        options.save(results)
    return results


def _check_version(settings: Mapping[str, Any], folder: Path) -> None:
    if (told := settings.get("version of the sums")) != VERSION:
        raise UsageError(
            f"merge: expected parts whose sums are of version {VERSION}, as this doubtmap makes "
            f"them, got {told} in {folder}. Make the parts again."
        )


def _tell_threads(figures: dict[str, Any], abouts: Sequence[Mapping[str, Any]]) -> None:
    """Say how many threads the parts had; a note where that differs between them."""
    told = sorted({about["settings"]["threads"] for about in abouts})
    figures["threads"] = told[0] if len(told) == 1 else told
    if len(told) > 1:
        figures["notes"].append(
            f"PyTorch had {' and '.join(map(str, told))} threads in different parts, so figures "
            f"may differ from one process's in the last digits."
        )


def sums_of(part: tuple[Path, Mapping[str, str]]) -> Tally:
    """The sums of a part, by its folder and the hashes of its files.

    Raises:
        DataError: for others than the part wrote.
    """
    folder, hashes = part
    return Tally.from_state(safetensors.numpy.load_file(as_written(folder, SUMS, hashes)))


def _compared(about: Mapping[str, Any]) -> dict[str, Any]:
    """Settings but where the data are, and threads, which a note tells of."""
    settings = dict(about["settings"])
    return {k: v for k, v in settings.items() if k not in ("folder", "threads")} | {
        "examples": about["examples"]
    }


class _Told:
    """A network as parts have told of it; it is not here."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.class_names = tuple(about["class_names"])
        self.description: dict[str, object] = about["model"]

    def __call__(self, images: object) -> Prediction:
        """Refuse to predict.

        Raises:
            DataError: always.
        """
        _not_kept()


def _not_kept(*_: object) -> Never:
    raise DataError(
        "merge: expected the score maps of all images in the parts, since some pixels are unknown, "
        "but a part has none. Make the parts with --unknown, or with --threshold for every score."
    )


@dataclass(frozen=True, eq=False)
class _DataTold:
    """A data set as parts have told of it: of its images, those that are examples are here."""

    name: str
    class_names: tuple[str, ...]
    component_sizes: ComponentSizes | None
    count: int
    examples: Mapping[int, Callable[[], Path]]
    told_files: Mapping[int, Path]

    def __len__(self) -> int:
        return self.count

    def sample_name(self, index: int) -> str:
        """Not known, and not needed."""
        return str(index)

    def __getitem__(self, index: int) -> Sample:
        """An example."""
        tensors = _tensors(self.examples.get(index))
        return Sample(self.sample_name(index), tensors["image"], tensors["label"])


class _Kept(Shelf):
    """The images that all parts have kept."""

    def __init__(self, folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(0)
        for folder, about in zip(folders, abouts):
            _check_sizes(folder / "maps", about["maps"])
        self._shelves = [Shelves(folder / "maps") for folder in folders]
        pairs = zip(self._shelves, abouts)
        self._of = {index: shelf for shelf, about in pairs for index in about["images"]}
        self._examples = examples_in(folders, abouts)

    def __contains__(self, index: int) -> bool:
        return index in self._examples or index in self._of[index]

    def get(self, index: int) -> Looked:
        """An image that is kept."""
        if index in self._of[index]:
            return self._of[index].get(index)
        tensors = _tensors(self._examples[index])
        maps = {n.removeprefix("map/"): t for n, t in tensors.items() if n.startswith("map/")}
        return Looked(tensors["label"], tensors["classes"], maps)

    def close(self) -> None:
        """Let go of the files."""
        for shelf in self._shelves:
            shelf.close()


def _check_sizes(maps: Path, sizes: Mapping[str, int]) -> None:
    """Refuse score maps that are not as long as their part wrote them."""
    found = _sizes(maps)
    for name, size in sizes.items():
        if found.get(name) != size:
            raise DataError(damaged(maps / name))


def examples_in(
    folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]
) -> dict[int, Callable[[], Path]]:
    """What finds the file of each example of all parts, by number of the image."""
    return {
        int(name.removeprefix(EXAMPLES)): partial(as_written, folder, name, about["hashes"])
        for folder, about in zip(folders, abouts)
        for name in about["hashes"]
        if name.startswith(EXAMPLES)
    }


def _tensors(find: Callable[[], Path] | None) -> dict[str, Any]:
    return dict(safetensors.torch.load_file((find or _not_kept)()))


def _components(folders: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    for folder, about in zip(folders, abouts):
        if "components" in about["hashes"]:
            yield from records_in(as_written(folder, "components", about["hashes"]))


def _asked(abouts: Sequence[Mapping[str, Any]], folders: Sequence[Path], options: Options) -> Asked:
    """What the parts were asked for, with stand-ins for network and data."""
    first = next((about for about in abouts if about["matching"]), abouts[0])
    data, settings = first["data"], first["settings"]
    sizes = data["component_sizes"]
    dataset: Dataset = _DataTold(
        data["name"],
        tuple(data["class_names"]),
        ComponentSizes(*sizes) if sizes else None,
        data["images"],
        examples_in(folders, abouts),
        {int(at): path_of(file) for each in abouts for at, file in each["data"]["files"].items()},
    )
    skipped = None
    if first["skipped"] is not None:
        skipped = Skipped({n: why for each in abouts for n, why in each["skipped"].items()})
    scores = dict.fromkeys(settings["scores"], _not_kept)
    run = Run(_Told(first), dataset, scores, tuple(first["unknown"]), None, skipped)  # type: ignore[arg-type]
    matching = first["matching"]
    run.matching = matching and Matching(tuple(matching["targets"]), tuple(matching["notes"]))
    run.notes.extend(abouts[0]["notes"])
    return _Merged(
        run,
        settings["thresholds"],
        ComponentSizes(*settings["component_sizes"]),
        settings["replicates"],
        settings["seed"],
        replace(options, bins=settings["bins"], examples=first["examples"]),
        told_claims=settings["claims"],
    )


@dataclass(frozen=True, eq=False)
class _Merged(Asked):
    """What the parts were asked for."""

    told_claims: Sequence[str] = ()

    @property
    def claims(self) -> list[str]:
        """As the parts say."""
        return list(self.told_claims)
