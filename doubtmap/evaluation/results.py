"""What one evaluation found: figures, curves and a few telling images, and `results.json`.

A plain value, filled by `evaluate` and read by the report; the figures are written and read as
strict JSON.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.catalogue import section
from doubtmap.files import write_atomically
from doubtmap.reports.digits import digits, number
from doubtmap.segments.look_first import LookFirst
from doubtmap.shown import Shown, later, listed

OF_ALL = ("results.json", "curves.json", "report.html", "images.parquet")
"""Files of an evaluation."""


@dataclass(frozen=True, eq=False)
class Example:
    """One image worth looking at.

    Args:
        name: the sample's name.
        reason: why it was picked: `most doubt` or `most missed`.
        detail: one line, such as `mean entropy 0.81`.
        image: `(H, W, 3)` uint8 RGB.
        label: `(H, W)` int16: the model's class index, or `KNOWN`, `UNKNOWN`, `VOID`.
        predicted: `(H, W)` int16: the model's class index.
        doubt: `(H, W)` float32, higher = more doubt.
        score: name of the score that `doubt` shows.
        epistemic: `(H, W)` float32, a score of what the network does not know, where one was asked
            for; `doubt` is then of what the image leaves open.
        epistemic_score: its name.
    """

    name: str
    reason: str
    detail: str
    image: NDArray[np.uint8]
    label: NDArray[np.int16]
    predicted: NDArray[np.int16]
    doubt: NDArray[np.float32]
    score: str
    epistemic: NDArray[np.float32] | None = None
    epistemic_score: str = ""


@dataclass(frozen=True, eq=False)
class Results(Shown):
    """Figures, curves and examples of one evaluation.

    Args:
        figures: the content of `results.json`. Beside a figure `NAME` there may be
            `NAME_interval: [lo, hi]` (confidence), `NAME_bounds: [lo, hi]` (numerical) and
            `NAME_per_image` (mean over images); `differences` lists paired differences as
            `{"figure": "unknown.auprc", "scores": [a, b], "difference": a - b, "interval"}`.
        curves: any of the following, each may be absent or empty; values are lists of numbers:
            `precision_recall` `{SCORE: {recall, precision}}` and `roc` `{SCORE: {fpr, tpr}}`, both
            of the unknown pixels where the data have any and of the wrong pixels otherwise;
            `risk_coverage` `{SCORE: {coverage, risk}}`;
            `sparsification` `{SCORE: {removed, error, oracle}}`;
            `removal` `{SCORE: {removed, miou, risk}}`;
            `patches` `{SCORE: {percentile, p_accurate_certain, p_uncertain_inaccurate, pavpu}}`,
            percentiles in [0, 100] or [0, 1]; `pixels`, the same with patches of one pixel;
            `reliability` `{confidence, accuracy, share}`, one entry for each bin, None where empty;
            `confusion` `[[pixels]]`, labelled classes down, predicted ones across;
            `thresholds` `{SCORE: {KIND: {threshold, recall, precision}}}`, of `unknown` and `wrong`
            pixels, for `score >= threshold`;
            `wrong_reliability` `{SCORE: {confidence, accuracy, share}}`, the same of each score
            that claims to be the probability of wrong, the confidence being one minus the score.
        class_names: the model's classes in the order of their indices, or empty.
        examples: images for the report.
        look_first: what a review would have shown first, where a meta model was given.
    """

    figures: dict[str, Any]
    curves: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    examples: list[Example] = field(default_factory=list)
    look_first: LookFirst | None = None

    def _facts(self) -> dict[str, object]:
        data, segmentation = section(self.figures, "data"), section(self.figures, "segmentation")
        facts = {"on": data.get("name"), "images": data.get("images")}
        facts |= {"scores": listed([*section(self.figures, "scores")])}
        if number(segmentation.get("miou")) is not None:
            facts["mIoU"] = digits(segmentation["miou"])
        return facts

    def _repr_html_(self) -> str:
        """The headline figures, and how they read."""
        said = later("doubtmap.evaluation.catalogue", "reading")(self.figures)
        return f"<p>{html.escape(said)}</p>{self.table('html')}"

    def table(self, style: str = "markdown", figures: Sequence[str] = ()) -> str:
        """The scores and their figures as a text, the best in bold: `runs_table` of this run.

        Args:
            style: `markdown`, `latex`, `html` or `csv`.
            figures: such as `unknown.auprc`; default: the headline figures.
        """
        found: str = later("doubtmap.evaluation.table", "runs_table")(
            {"": self.figures}, style, figures
        )
        return found

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of all figures of the scores: a row each, columns `GROUP.FIGURE`.

        Raises:
            UsageError: without pandas.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError(
                "to_pandas: expected pandas, which is not installed: pip install "
                "'doubtmap[notebook]'."
            ) from error
        rows = {
            score: {
                f"{group}.{key}": value
                for group in ("unknown", "wrong")
                for key, value in _flat(section(found, group))
            }
            for score, found in section(self.figures, "scores").items()
        }
        return pandas.DataFrame.from_dict(rows, orient="index", dtype=float)

    def save(self, folder: str | Path) -> None:
        """Write `results.json`, `curves.json` and `report.html` into a folder.

        Raises:
            DataError: where it cannot be written.
        """
        later("doubtmap.evaluation.report", "write_evaluation")(self, Path(folder))


def _flat(group: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The single numbers of a group, and of each unknown class: `CLASS.FIGURE`."""
    for key, value in group.items():
        if value is None or number(value) is not None:
            yield key, value
    for label, own in section(group, "by_class").items():
        yield from ((f"{label}.{key}", value) for key, value in _flat(own))


@dataclass(frozen=True)
class Reference:
    """The means by predicted class of another evaluation, such as of a student's teachers.

    Args:
        name: of it, as the results call it.
        score: which of its scores all are held against; empty: the one of the same name.
        means: by score and class; None where no pixel was taken for a class.
    """

    name: str
    score: str
    means: Mapping[str, Mapping[str, float | None]]

    @classmethod
    def read(
        cls, text: str, scores: Collection[str], class_names: Sequence[str], images: int
    ) -> Self:
        """Read it.

        Args:
            text: `FOLDER` of `evaluate`, or `FOLDER:SCORE`.
            scores: that are held against it.
            class_names: of the network that is held against it, in any order.
            images: how many are evaluated.

        Raises:
            UsageError: for an evaluation of other classes or images, or without that score.
            DataError: where it cannot be read.
        """
        folder, _, score = (text, "", "") if Path(text).is_dir() else text.partition(":")
        figures = read_results(Path(folder) / "results.json")
        found = section(figures, "scores")
        means = {name: section(own, "by_predicted_class", "mean") for name, own in found.items()}
        data, begin = section(figures, "data"), f"against: expected {folder} to be"
        seen = [data.get("images"), *section(data, "skipped")]
        if isinstance(seen[0], int) and seen[0] + len(seen) - 1 != images:
            raise UsageError(f"{begin} of the same {images} images, got {seen[0]}. Evaluate both.")
        if score and score not in means:
            raise UsageError(f"{begin} of the score {score}, got {', '.join(means)}. Name one.")
        common = [score] if score else [name for name in scores if name in means]
        if not common:
            raise UsageError(
                f"{begin} of one of the scores {', '.join(scores)}, got {', '.join(means)}. Name "
                f"the one to hold them against, as in {folder}:{next(iter(means), 'SCORE')}."
            )
        for name in common:
            if not means[name] or (class_names and {*means[name]} != {*class_names}):
                raise UsageError(
                    f"{begin} of the same classes with their means, got other or none for {name}. "
                    f"Evaluate both with this version, on networks of the same classes."
                )
        return cls(folder, score, means)

    def hold(self, figures: dict[str, Any]) -> None:
        """Add `error` and `against` to the figures by predicted class of each score.

        The error is the mean over classes of the absolute difference of the two means, over the
        classes for which both networks take any pixel.
        """
        for name, own in section(figures, "scores").items():
            at = self.score or name
            if at not in self.means:
                continue
            part, theirs = own["by_predicted_class"], self.means[at]
            pairs = [(mean, theirs.get(of)) for of, mean in part["mean"].items()]
            gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
            part["error"] = sum(gaps) / len(gaps) if gaps else None
            part["against"] = f"{self.name}: {at}"


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


def write_curves(results: Results, path: str | Path) -> None:
    """Write the curves and the names of the classes as JSON that any parser takes.

    Args:
        results: the evaluation.
        path: the file, written atomically.

    Raises:
        DataError: for a number that JSON cannot hold, or where the file cannot be written.
    """
    held = {"class_names": list(results.class_names), **results.curves}
    write_atomically(path, json.dumps(strict_figures(held), ensure_ascii=False).encode())


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
