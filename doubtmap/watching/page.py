"""The files of `doubtmap watch`, and its page: the evidence, what is expected, what changed.

OUT/state.json   all that was seen; the next call goes on from it
OUT/watch.json   what is said of it, as `--json` prints it on a line
OUT/watch.html   the same as a page
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from doubtmap.datasets.dataset import Dataset
from doubtmap.engine.run import Progress, Skipped
from doubtmap.errors import UsageError
from doubtmap.files import alone, write_atomically
from doubtmap.metrics.accumulator import Array
from doubtmap.prediction import Segmenter
from doubtmap.reports.charts import ChartLine, Plane, guide, line_chart, rounded_up
from doubtmap.reports.digits import digits
from doubtmap.reports.page import framed, header, page_table
from doubtmap.watching.judging import WATCHED, Expected, Risk, Verdict
from doubtmap.watching.promise import ONLY
from doubtmap.watching.watch import Watch

SHOWN = 12
"""Changes that the page lists."""
FLOOR = -3.0
"""Powers of ten below which the plot does not go."""


@alone
def write_watch(
    segmenter: Segmenter,
    images: Dataset | None,
    out: Path,
    *,
    promise: str | Path | None = None,
    reference: Dataset | None = None,
    labelled: Dataset | None = None,
    rate: float | None = None,
    block: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> tuple[Verdict, list[str]]:
    """Begin a watch in a folder, or go on with the one that is there.

    The state is written while images come: what ends a run early leaves those before it seen.

    Args:
        segmenter: the network.
        images: new ones, in the order in which they came; None where there are none yet.
        out: the folder.
        promise: its file; a watch that goes on knows it.
        reference: of a new watch; of one that goes on, the same or None.
        labelled: images to hold the promise's risk to.
        rate: of false alarms; default: the watch's, or .05.
        block: so many consecutive images count as one; default: the watch's, or 1.
        seed: of a new watch.
        skip_bad: count images that cannot be used, and go on.
        command: what to write as the origin.
        progress: told after each image.

    Returns:
        What is to be said, and sentences for the user.

    Raises:
        UsageError, DataError, ModelError: each with one sentence that says what to do.
    """
    place, skipped = out / "state.json", Skipped() if skip_bad else None
    if place.exists():
        watch = Watch.resume(place, segmenter, promise)
        _hold(watch, place, rate, block, reference)
    else:
        if promise is None or reference is None:
            raise UsageError(
                f"watch: expected --promise FILE and --reference DATA where none was begun, got "
                f"no {'--promise' if promise is None else '--reference'}; there is no {place}. "
                f"Add it."
            )
        watch = Watch.begin(
            segmenter,
            promise,
            reference,
            rate=0.05 if rate is None else rate,
            block=block or 1,
            seed=seed,
            skipped=skipped,
            command=command,
            progress=progress,
        )
        watch.save(place)
    if images is not None:
        watch.update(images, skipped=skipped, place=place, progress=progress)
    if labelled is not None:
        watch.check(labelled, place=place, progress=progress)
    verdict, notes = watch.verdict, [*watch.notes, *notes_of(watch, skipped)]
    watch.save(place)
    write_atomically(out / "watch.json", json.dumps(verdict.figures, indent=1).encode())
    write_atomically(out / "watch.html", watch_page(watch, verdict, notes))
    return verdict, notes


def _hold(
    watch: Watch, place: Path, rate: float | None, block: int | None, reference: Dataset | None
) -> None:
    """Refuse to go on with other settings, or another reference.

    Raises:
        UsageError: for them.
    """
    from doubtmap.datasets import fingerprints

    state = watch.state
    other = [
        f"{name} {was:g}"
        for name, was, asked in (
            ("--false-alarms", state.rate, rate),
            ("--block", state.block, block),
        )
        if asked is not None and asked != was
    ]
    if other:
        raise UsageError(
            f"{place}: expected the settings that it was begun with, {' and '.join(other)}. Leave "
            f"the options out, or begin anew in another --out."
        )
    if reference is not None and fingerprints(reference) != tuple(state.origin.images):
        raise UsageError(
            f"{place}: expected the reference that it was begun with, {state.origin.data}, got "
            f"{reference.name} with other images. Leave --reference out, or begin anew in another "
            f"--out."
        )


def notes_of(watch: Watch, skipped: Skipped | None = None) -> list[str]:
    """Sentences for the user on what was left out."""
    state, found = watch.state, []
    if watch.again:
        found.append(f"{watch.again} images had been seen before, and are left out.")
    if skipped is not None and skipped.reasons:
        first = next(iter(skipped.reasons.values()))
        found.append(f"{len(skipped.reasons)} images could not be used, the first: {first}")
    if left := len(state.new) % state.block:
        found.append(f"{left} images wait for others to fill their block of {state.block}.")
    return found


def summary(verdict: Verdict) -> str:
    """One or two sentences: whether there is an alarm, and what is expected of the images."""
    if not verdict.images:
        said = f"a reference of {verdict.reference} images, and no new image yet"
    else:
        wrong, miou = verdict.wrong[1], verdict.miou[1]
        assert wrong is not None and miou is not None
        said = (
            f"{_told(verdict)}; expected wrong {shown(wrong)} of the pixels (reference "
            f"{shown(verdict.wrong[0])}), mIoU {shown(miou)}"
        )
        if verdict.alarm_at is not None:
            said += ". What is expected was promised for images like the reference only"
    return said if not verdict.risks else f"{said}. {_risks(verdict)}"


def _told(verdict: Verdict) -> str:
    most = math.exp(min(float(verdict.evidence.max(initial=0.0)), 700.0))
    if verdict.alarm_at is None:
        return (
            f"no alarm after {verdict.images} images (evidence at most {most:.3g} of "
            f"{1 / verdict.rate:g})"
        )
    return f"ALARM after {verdict.alarm_at} of {verdict.images} images (evidence {most:.3g})"


def _risks(verdict: Verdict) -> str:
    """Of one loss what it comes to; of several those that are too large, or how many are kept."""
    risks, broken = verdict.risks, verdict.broken
    if broken or len(risks) == 1:
        return "; ".join(_risk(risk, verdict.rate) for risk in broken or risks)
    kept = sum(risk.kept for risk in risks)
    most = max(risk.losses for risk in risks)
    rest = "" if kept == len(risks) else ", the others are not settled by so few"
    return f"{most} labelled images: {kept} of {len(risks)} promises are kept{rest}"


def _risk(risk: Risk, rate: float) -> str:
    ends = f"{digits(float(risk.low[-1]))} to {digits(float(risk.high[-1]))}"
    sure = f"{ends} at a level of {1 - rate:g}"
    loss = "loss" if risk.name == ONLY else f"loss of {risk.name}"
    start = f"{risk.losses} labelled images: mean {loss} {digits(risk.mean)}, {sure}"
    if risk.broken_at is not None:
        return f"ALARM: {start}, and {risk.limit:g} was promised"
    settled = "is kept" if risk.kept else "is not settled by so few"
    return f"{start}; the promise of {risk.limit:g} {settled}"


def shown(one: Expected) -> str:
    """A figure with its interval."""
    if one.interval is None:
        return digits(one.value)
    return f"{digits(one.value)} [{digits(one.interval[0])}, {digits(one.interval[1])}]"


def watch_page(watch: Watch, verdict: Verdict, notes: Sequence[str] = ()) -> bytes:
    """One self-contained HTML page."""
    state = watch.state
    heading = "Alarm" if verdict.alarm else "No alarm" if verdict.images else "A watch begins"
    about = (
        f"Held to {verdict.reference} images of {state.origin.data}; the promise is "
        f"{state.promise}: {watch.promise.said}."
    )
    said = summary(verdict)
    parts = [header("watch", heading, f"{said[:1].upper()}{said[1:]}.", about, *notes)]
    if len(verdict.evidence):
        parts += [_HOW.format(1 / verdict.rate, verdict.rate), evidence_chart(verdict, state.block)]
    parts.append(Markup("<h2>What is expected</h2>"))
    parts.append(page_table("What is expected", _expected_rows(verdict)))
    if verdict.changes:
        parts += [Markup("<h2>What changed</h2>"), _CHANGES.format(_p(verdict))]
        parts.append(page_table("What changed", _change_rows(verdict)))
        parts.append(page_table("Scores of pixels", _quantile_rows(verdict, watch.promise.name)))
    if verdict.risks:
        parts.append(Markup("<h2>With labels</h2>"))
    for risk in verdict.risks:
        title = Markup("") if risk.name == ONLY else Markup("<h3>{}</h3>").format(risk.name)
        parts += [title, risk_chart(risk)]
    return framed(f"Watch: {heading}", *parts)


_HOW = Markup(
    "<h2>Evidence</h2><p>Each gambler bets that new images rank otherwise among the reference than "
    "chance has it. Where they are as if shuffled among it, the bold line ever reaches {:g} with a "
    "probability of at most {:g}, however often one looks.</p>"
)
_CHANGES = Markup(
    "<p>Means over images. An effect is the difference in standard deviations. p is of Kolmogorov "
    "and Smirnov's test by permutations, corrected for all figures at once (the smallest is {}), "
    "and holds for one look that was planned; looking again and again is what the "
    "evidence above is for.</p>"
)


def evidence_chart(verdict: Verdict, block: int = 1) -> Markup:
    """The evidence, and what each gambler has, after each image, in powers of ten."""
    needed = -math.log10(verdict.rate)
    paths = {f"by {name}": path for name, path in zip(WATCHED, verdict.capital.T)}
    paths = {
        name: path / math.log(10) for name, path in (paths | {"both": verdict.evidence}).items()
    }
    top = min(max(*(float(path.max()) for path in paths.values()), needed) * 1.1, 3 * needed + 3)
    low = max(FLOOR, min(0.0, *(float(path.min()) for path in paths.values())))
    images = np.arange(len(verdict.evidence) + 1) * block
    lines = {
        name: np.stack([images, np.concatenate([[0.0], path])], 1) for name, path in paths.items()
    }
    plane = _plane("new images", "evidence, power of ten", (0, int(images[-1])), (low, top))
    alarm = f"alarm at {1 / verdict.rate:g}"
    return _chart(plane, lines, "both", alarm, needed, "Evidence after each image")


def risk_chart(risk: Risk) -> Markup:
    """The bounds of the mean loss after each labelled image, and the promise."""
    images = np.arange(1, risk.losses + 1)
    ends = {"at least": risk.low, "at most": risk.high}
    lines = {name: np.stack([images, values], 1) for name, values in ends.items()}
    low, high = min(0.0, float(risk.low.min())), rounded_up(float(risk.high.max()))
    plane = _plane("labelled images", "mean loss", (1, max(risk.losses, 2)), (low, high))
    return _chart(
        plane, lines, "", f"promised {risk.limit:g}", risk.limit, "Bounds of the mean loss"
    )


def _plane(x: str, y: str, across: tuple[float, float], up: tuple[float, float]) -> Plane:
    """With room for the names of lines to the right."""
    return Plane(x, y, across, up, width=680, height=320, right=112)


def _chart(
    plane: Plane, lines: Mapping[str, Array], best: str, limit: str, level: float, label: str
) -> Markup:
    """Lines with their names at their ends, and a level that they may reach."""
    drawn = [
        ChartLine(name, name, points, style, name == best)
        for style, (name, points) in enumerate(lines.items())
    ]
    behind = guide(plane, np.array([[x, level] for x in plane.x_range]), limit)
    low, high = plane.y_range
    ends = {name: float(points[-1, 1]) for name, points in lines.items()} | {limit: level}
    heights = [plane.y(min(max(value, low), high)) for value in ends.values()]
    names = [
        Markup('<text class="tick" x="{}" y="{:.1f}">{}</text>').format(
            plane.width - plane.right + 6, height + 4, name
        )
        for name, height in zip(ends, apart(heights, 14))
    ]
    return line_chart(plane, drawn, label, behind + Markup("").join(names))


def apart(places: Sequence[float], least: float) -> list[float]:
    """Places in their order, moved down where they are nearer to the one before than `least`.

    Example:
        >>> apart([5.0, 0.0, 6.0], 4)
        [5.0, 0.0, 9.0]
    """
    moved, last = list(places), -math.inf
    for at in sorted(range(len(places)), key=places.__getitem__):
        last = moved[at] = max(places[at], last + least)
    return moved


def _p(verdict: Verdict) -> str:
    return "-" if verdict.p is None else f"{verdict.p:.4f}"


def _expected_rows(verdict: Verdict) -> list[list[str]]:
    rows = [["", "reference", "new images"]]
    for name, both in (("share of wrong pixels", verdict.wrong), ("mIoU", verdict.miou)):
        rows.append([name, *("-" if one is None else shown(one) for one in both)])
    return rows


def _change_rows(verdict: Verdict) -> list[list[str]]:
    rows = [["figure", "reference", "new images", "effect", "p"]]
    for each in verdict.changes[:SHOWN]:
        figures = map(digits, (each.before, each.now))
        rows.append([each.name, *figures, f"{each.effect:+.2f}", f"{each.p:.4f}"])
    return rows


def _quantile_rows(verdict: Verdict, name: str) -> list[list[str]]:
    rows = [[f"{name} of pixels", "reference", "new images"]]
    for share, before, now in verdict.quantiles:
        rows.append([f"{share:.0%} lie below", digits(before), digits(now)])
    return [*rows, ["share that lies elsewhere", "", digits(verdict.distance)]]
