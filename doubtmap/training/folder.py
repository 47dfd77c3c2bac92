"""What a training leaves on disk: the network's folder, and beside it how it came about.

```
DIR/                 a folder that doubtmap.load takes
  config.json, model.safetensors, preprocessor_config.json     for Hugging Face networks
  doubtmap.json, model.safetensors                             for others
  distilled.safetensors, negative.safetensors                  a second head, where there is one
  training/
    settings.json    what was asked; only the same goes on where it stopped
    log.csv          a row for each epoch; the command draws it as log.svg after each
    checkpoint.pt    all that the next epoch needs
```
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from doubtmap.errors import DataError, UsageError
from doubtmap.files import held, sweep, write_atomically, writing_to
from doubtmap.files.resuming import differing, listed
from doubtmap.models.distilled import FILES, head_file, take_off
from doubtmap.models.folders import DESCRIPTION, WEIGHTS, Description
from doubtmap.training.networks import Start, huggingface_files
from doubtmap.version import __version__

log = logging.getLogger("doubtmap")


class Folder:
    """The folder of one training.

    Args:
        path: where; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.inner = path, path / "training"

    @contextmanager
    def held(self, settings: dict[str, Any], *, resume: bool) -> Iterator[None]:
        """Keep the folder for this run while the block lasts.

        Raises:
            UsageError: for a folder that is in use, holds something else, or, with `resume`, a run
                of other settings.
            DataError: where it cannot be written.
        """
        self._check(resume)
        with held(self.path):
            with writing_to(self.path):
                self.inner.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.inner):
                sweep(folder)
            self._hold_to(settings, resume and self.begun)
            yield

    @property
    def begun(self) -> bool:
        """Whether a run has written its settings here, if not yet a checkpoint."""
        return (self.inner / "settings.json").exists()

    def _check(self, resume: bool) -> None:
        if resume and not self.begun:
            log.warning("%s: found no run to go on with, and begins one.", self.path)
        if (self.inner / "checkpoint.pt").exists() and not resume:
            raise UsageError(
                f"{self.path}: expected no run there, found one. Pass --resume to go on with it, "
                f"or choose another --out."
            )
        if not self.begun and any((self.path / name).exists() for name in (WEIGHTS, "config.json")):
            raise UsageError(
                f"{self.path}: expected a folder without a network, found one. Choose another "
                f"--out."
            )

    def _hold_to(self, settings: dict[str, Any], resume: bool) -> None:
        """Write the settings, or compare them; a run without a checkpoint is begun anew."""
        path, after = self.inner / "settings.json", _read(json.dumps(settings, default=str))
        if not resume:
            text = json.dumps(after, sort_keys=True, indent=1, allow_nan=False)
            write_atomically(path, text.encode(), durable=True)
            return
        try:
            before = dict(_read(path.read_text()))
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise DataError(
                f"{path}: cannot be used ({error}). Remove it to start anew."
            ) from error
        changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
        if changed:
            told = ", ".join(_told(key, before.get(key), after.get(key)) for key in changed)
            raise UsageError(
                f"resume: expected the settings of the run in {self.path}, but {told}. Use the "
                f"same settings, or another --out."
            )

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint.

        Raises:
            DataError: where it cannot be written, or the run's folder is gone.
        """
        if not self.begun:
            raise DataError(
                f"{self.path}: the folder was removed while the run wrote to it. Train again."
            )
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.inner / "checkpoint.pt", buffer.getvalue(), durable=True)

    def checkpoint(self, device: torch.device) -> dict[str, Any] | None:
        """The last checkpoint, or None.

        Raises:
            DataError: for a file that cannot be read.
        """
        path = self.inner / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            raise DataError(
                f"{path}: expected a checkpoint, but it cannot be read ({error}). Remove it to "
                f"start anew."
            ) from error
        return state

    def save_log(self, rows: list[dict[str, Any]]) -> None:
        """Replace `log.csv`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.inner / "log.csv", text.getvalue().encode(), durable=True)

    def save_network(self, network: nn.Module, start: Start, recipe: str) -> None:
        """Write the network so that `doubtmap.load` takes the folder, file by file in one step.

        Args:
            network: trained; a second head is taken off it and gets a file of its own.
            start: what it was before.
            recipe: how it was trained.

        Raises:
            DataError: where the folder cannot be written.
        """
        head = take_off(network)
        if start.maker == "huggingface":
            files = huggingface_files(network, start.mean, start.std)
        else:
            about = Description(
                start.maker, start.class_names, start.mean, start.std, recipe, __version__
            )
            state = {name: part.cpu().contiguous() for name, part in network.state_dict().items()}
            files = {DESCRIPTION: about.to_json().encode(), WEIGHTS: to_safetensors(_untied(state))}
        if head is not None:
            files[FILES[head.says]] = head_file(head, files[WEIGHTS])
        for name in FILES.values():
            if name not in files:  # of a run that got no further, and of other weights
                self._remove(name)
        for name, content in files.items():
            write_atomically(self.path / name, content, durable=True)

    def _remove(self, name: str) -> None:
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"{self.path / name}: cannot be removed ({error.strerror or error}). Choose "
                f"another --out."
            ) from error


WORDS = {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}
"""What Python writes of numbers that JSON has not, and what the command line calls them."""


def _read(text: str) -> Any:
    """Settings as JSON has them; files of earlier versions hold `Infinity`.

    Example:
        >>> _read('{"flow_trust": Infinity, "seed": 0}')
        {'flow_trust': 'inf', 'seed': 0}
    """
    return json.loads(text, parse_constant=WORDS.__getitem__)


def _told(key: str, before: object, after: object) -> str:
    """How a setting differs; of a mapping, which of its entries do."""
    if isinstance(before, dict) and isinstance(after, dict):
        return f"{key} ({listed(differing(before, after))}) became others"
    return f"{key} {shortened(before)} became {shortened(after)}"


def shortened(value: object, most: int = 60) -> str:
    """A value as text of so many characters at most.

    Example:
        >>> shortened("a" * 9, 6)
        'aaa...'
    """
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _untied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors that share memory, which safetensors refuses."""
    seen: set[int] = set()
    free = {}
    for name, part in state.items():
        pointer = part.untyped_storage().data_ptr()
        free[name] = part.clone() if pointer in seen else part
        seen.add(pointer)
    return free
