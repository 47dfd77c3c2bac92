"""Images handed on to labelling tools: which forms there are, and all of them in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from doubtmap.errors import UsageError
from doubtmap.files import writing_to
from doubtmap.labelling.coco import Coco
from doubtmap.labelling.cvat import Cvat
from doubtmap.labelling.fiftyone import FiftyOne
from doubtmap.labelling.label_studio import LabelStudio
from doubtmap.labelling.task import Task


class Form(Protocol):
    """Writes the files of one tool."""

    def add(self, task: Task) -> None:
        """Take an image."""
        ...

    def finish(self) -> str:
        """Write the files; a sentence on what to do with them."""
        ...


FORMS: dict[str, Callable[[Path, Sequence[str], Sequence[Path]], Form]] = {
    "label-studio": LabelStudio,
    "cvat": Cvat,
    "fiftyone": FiftyOne,
    "coco": Coco,
}
"""By what `--to` calls them, which is the folder that each writes, too."""


def check_forms(forms: Sequence[str]) -> tuple[str, ...]:
    """The forms, where there are such.

    Raises:
        UsageError: for another.
    """
    for form in forms:
        if form not in FORMS:
            raise UsageError(f"--to: expected some of {', '.join(FORMS)}, got {form}.")
    return tuple(dict.fromkeys(forms))


def hand_on(
    tasks: Iterable[Task],
    forms: Sequence[str],
    out: Path,
    class_names: Sequence[str],
    files: Sequence[Path],
) -> list[str]:
    """Write images for labelling tools, each form into a folder of its name.

    Args:
        tasks: of the images, gone through once.
        forms: of `FORMS`.
        out: folder of the run.
        class_names: of the network.
        files: of the images, absolute, in the order of the tasks.

    Returns:
        What to do with each, in sentences.

    Raises:
        UsageError: for a form that there is not.
        DataError: for files that cannot be written.
    """
    writers = [FORMS[form](out / form, class_names, files) for form in check_forms(forms)]
    with writing_to(out):
        for task in tasks:
            for writer in writers:
                writer.add(task)
        return [writer.finish() for writer in writers]
