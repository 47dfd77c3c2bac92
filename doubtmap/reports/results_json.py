"""`results.json`: the figures of an evaluation as strict JSON, written and read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from doubtmap.atomic import write_atomically
from doubtmap.engine.results import Results
from doubtmap.errors import DataError


def write_results(results: Results, path: str | Path) -> None:
    """Write the figures as JSON that any parser takes.

    NaN and infinity, which JSON does not know, become `null` with a line in `notes`.

    Args:
        results: the evaluation; only its figures are written.
        path: the file, written atomically.

    Raises:
        DataError: for a figure that JSON cannot hold, or where the file cannot be written.
    """
    text = json.dumps(strict_figures(results.figures), indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode("utf-8", "backslashreplace"))


def read_results(path: str | Path) -> dict[str, Any]:
    """Read the figures that `write_results` wrote.

    Raises:
        DataError: where the file is missing or is not strict JSON with figures.
    """
    try:
        figures = json.loads(Path(path).read_text("utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected strict JSON, got {error}. Evaluate again.") from error
    if not isinstance(figures, dict):
        raise DataError(f"{path}: expected an object of figures, got {type(figures).__name__}.")
    return figures


def strict_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of plain Python values without NaN or infinity; notes say what they were.

    Example:
        >>> strict_figures({"ece": float("nan"), "notes": []})
        {'ece': None, 'notes': ['ece: no figure, its value was nan']}
    """
    lost: list[str] = []
    plain: dict[str, Any] = _plain(figures, "", lost)
    if lost:
        plain["notes"] = [*(plain.get("notes") or []), *lost]
    return plain


def _plain(value: Any, place: str, lost: list[str]) -> Any:
    if isinstance(value, dict):
        return {
            str(k): _plain(v, f"{place}.{k}" if place else str(k), lost) for k, v in value.items()
        }
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist(), place, lost)
    if isinstance(value, list | tuple):
        return [_plain(v, place, lost) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        lost.append(f"{place}: no figure, its value was {value}")
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise DataError(f"{place}: expected a number, text or list, got {type(value).__name__}.")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant}, which JSON does not know")
