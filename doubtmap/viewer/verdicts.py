"""What a person says of images, kept in `verdicts.json` beside the run."""

from __future__ import annotations

import csv
import io
import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doubtmap.errors import DataError, UsageError
from doubtmap.files import cell, write_atomically
from doubtmap.version import __version__
from doubtmap.viewer.gathering import Gathered

VERDICTS = ("label wrong", "network wrong", "unknown", "fine")
LONGEST = 2000
"""Letters of a note."""

Verdict = dict[str, str]


@dataclass
class Verdicts:
    """Verdicts by the images' names.

    Args:
        file: where they are kept.
        held: `verdict`, `note` and `when` of each image that has one.
    """

    file: Path
    held: dict[str, Verdict] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, gathered: Gathered) -> Verdicts:
        """Those beside the first run.

        Raises:
            DataError: where the file is there and cannot be read.
        """
        file = gathered.runs[0].folder / "verdicts.json"
        if not file.exists():
            return cls(file)
        try:
            held = json.loads(file.read_text("utf-8"))["verdicts"]
            return cls(file, {name: _checked(each) for name, each in held.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise DataError(
                f"{file}: expected verdicts as the viewer writes them, got {error}. "
                f"Mend or move it."
            ) from error

    def judge(self, name: str, said: Any) -> None:
        """Take a verdict on an image, and write all of them; an empty one takes it back.

        Raises:
            UsageError: for a verdict that there is not.
            DataError: where the file cannot be written.
        """
        verdict = _checked(said)
        with self._lock:
            held = {key: each for key, each in self.held.items() if key != name}
            if verdict["verdict"] or verdict["note"]:
                held[name] = verdict | {"when": datetime.now(UTC).isoformat(timespec="seconds")}
            content = {"doubtmap": __version__, "verdicts": held}
            write_atomically(self.file, json.dumps(content, indent=1).encode(), option="folder")
            self.held = held

    def table(self, gathered: Gathered) -> str:
        """All verdicts as CSV that no spreadsheet takes for formulas."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image", "file", "verdict", "note", "when"])
        for image, name in enumerate(gathered.names):
            if (each := self.held.get(name)) is not None:
                texts = (name, gathered.file(image), each["verdict"], each["note"], each["when"])
                writer.writerow([cell(text) for text in texts])
        return stream.getvalue()


def _checked(said: Any) -> Verdict:
    verdict, note = str(said["verdict"]), str(said.get("note", ""))
    if verdict not in ("", *VERDICTS) or len(note) > LONGEST:
        raise UsageError(
            f"verdict: expected one of {', '.join(VERDICTS)}, and a note of at most {LONGEST} "
            f"letters, got {verdict!r}."
        )
    return {"verdict": verdict, "note": note, "when": str(said.get("when", ""))}
