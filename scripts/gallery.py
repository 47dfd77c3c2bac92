"""Draw the pictures of the concepts and of the gallery: streets, the embedded network, its doubt.

    python scripts/gallery.py            # all of them, in about a minute
    python scripts/gallery.py weather    # one

Badges of the README say what `pyproject.toml` says.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable

import numpy as np
import torch
from charts import HUES, legend, write
from markupsafe import Markup
from pictures import PICTURES, sheet
from PIL import Image

import doubtmap as dm
from doubtmap.decisions.threshold import pixels_of
from doubtmap.fitting import fit_score
from doubtmap.metrics import Missed, Ranking, Reliability
from doubtmap.metrics.missed import threshold_at
from doubtmap.reports import overlay
from doubtmap.reports.charts import ChartLine, Plane, guide, line_chart, reliability_chart
from doubtmap.reports.colours import colour_doubt, colour_labels, robust_limits
from doubtmap.scoring import prepared
from doubtmap.streets.synthetic import SyntheticStreets

Tiles = dict[str, np.ndarray]
SHOWN = 15
"""The street of `synthetic:24` that most pictures show; the default score does well on it."""


def demo(streets: dm.datasets.Dataset, index: int) -> tuple[dm.Prediction, Tiles]:
    """What the embedded network says of a street, and its image and labels as tiles."""
    sample = streets[index]
    segmenter = dm.load("demo")
    image = sample.image.permute(1, 2, 0).numpy()
    labels = colour_labels(sample.label.numpy(), segmenter.class_names)
    return segmenter(sample.image[None]), {"image": image, "labels (orange: unknown)": labels}


def tinted(values: torch.Tensor, limits: tuple[float, float] | None = None) -> np.ndarray:
    """A map in colours."""
    doubt = values[0].numpy()
    return colour_doubt(doubt, limits or robust_limits(doubt))


def laid_over(image: np.ndarray, values: torch.Tensor) -> np.ndarray:
    """A map over its image, up to its highest thousandth."""
    doubt = values[0].numpy()
    return overlay(image, doubt, (0.0, float(np.quantile(doubt, 0.999))))


def hero() -> None:
    """Image, prediction and doubt of one street."""
    prediction, tiles = demo(dm.open_dataset("synthetic:24"), SHOWN)
    names = dm.load("demo").class_names
    classes = colour_labels(prediction.classes[0].numpy().astype(np.int16), names)
    row = {"an image": tiles["image"], "what a network says": classes}
    row["where to doubt it"] = laid_over(tiles["image"], dm.scores.doubt(prediction))
    sheet([row], (400, 200)).save(PICTURES / "hero.png", optimize=True)


def two_kinds() -> None:
    """Entropy and the default score of one street."""
    prediction, tiles = demo(dm.open_dataset("synthetic:24"), SHOWN)
    tiles["entropy"] = tinted(dm.scores.entropy(prediction))
    tiles["doubt"] = tinted(dm.scores.doubt(prediction))
    sheet([tiles]).save(PICTURES / "two_kinds.png", optimize=True)


def native() -> None:
    """Entropy on the network's own grid, and at the image's size."""
    prediction, tiles = demo(dm.open_dataset("synthetic:24"), SHOWN)
    own = torch.distributions.Categorical(logits=prediction.native_logits.movedim(1, -1)).entropy()
    full = dm.scores.entropy(prediction)
    limits = robust_limits(full[0].numpy())
    sides = [size // cells for size, cells in zip(full.shape[1:], own.shape[1:])]
    blocks = own.repeat_interleave(sides[0], 1).repeat_interleave(sides[1], 2)
    grid = f"the network's own grid, {own.shape[2]} x {own.shape[1]}"
    row = {"image": tiles["image"], grid: tinted(blocks, limits)}
    row[f"as written, {full.shape[2]} x {full.shape[1]}"] = tinted(full, limits)
    sheet([row]).save(PICTURES / "native.png", optimize=True)


def scores() -> None:
    """One street under six scores."""
    prediction, tiles = demo(dm.open_dataset("synthetic:24"), SHOWN)
    names = ("doubt", "island", "entropy", "max_softmax", "divergence", "gradient")
    maps = {name: tinted(getattr(dm.scores, name)(prediction)) for name in names}
    parts = list((tiles | maps).items())
    halves = [sheet([dict(parts[:4])]).convert("RGB"), sheet([dict(parts[4:])]).convert("RGB")]
    whole = np.vstack([np.asarray(half) for half in halves])
    Image.fromarray(whole).quantize(200, dither=Image.Dither.NONE).save(PICTURES / "scores.png")


def weather() -> None:
    """The same street in four kinds of weather."""
    tops, feet = {}, {}
    for kind in ("clear", "fog", "night", "rain"):
        streets = SyntheticStreets(24, weather=kind, strength=None if kind == "clear" else 0.8)
        prediction, tiles = demo(streets, SHOWN)
        tops[kind] = tiles["image"]
        feet[kind] = laid_over(tiles["image"], dm.scores.doubt(prediction))
    sheet([tops, feet]).save(PICTURES / "weather.png", optimize=True)


def density() -> None:
    """Density of features beside entropy."""
    segmenter = dm.load("demo")
    fitted = fit_score("density", segmenter, SyntheticStreets(24, seed=9, unknowns=False))
    streets = dm.open_dataset("synthetic:24")
    prediction, tiles = demo(streets, SHOWN)
    tiles["entropy"] = tinted(dm.scores.entropy(prediction))
    listening = prepared(segmenter, {"density": fitted})
    tiles["density"] = tinted(fitted(listening(streets[SHOWN].image[None])))
    sheet([tiles]).save(PICTURES / "density.png", optimize=True)


def rainy() -> list[tuple[dm.Prediction, torch.Tensor]]:
    """Predictions and labels of streets in heavy rain."""
    segmenter = dm.load("demo")
    streets = SyntheticStreets(24, seed=2, weather="rain", strength=0.9)
    samples = [streets[index] for index in range(len(streets))]
    return [(segmenter(sample.image[None]), sample.label[None]) for sample in samples]


DIAGRAM = (
    "<style>.accuracy{fill:#b9d3e8}.over{fill:#d1661a;fill-opacity:.5}"
    ".under{fill:#007a56;fill-opacity:.4}.share{fill:#8fb8d6}.level{stroke:#0068a8;stroke-width:2}"
    "</style>"
)


def reliability() -> None:
    """Confidence against the share of right pixels, in rain."""
    found = Reliability(classes=len(dm.load("demo").class_names))
    for prediction, label in rainy():
        found.update(prediction.logits, label, label >= 0)
    confidence, accuracy, share = found.sums.diagram()
    chart = reliability_chart({"confidence": confidence, "accuracy": accuracy, "share": share})
    write("reliability.svg", Markup(str(chart).replace(">", f">{DIAGRAM}", 1)))


def missed() -> None:
    """Missed and flagged shares of wrong pixels by a threshold of entropy."""
    counted = Missed.empty()
    for prediction, label in rainy():
        wrong, valid = pixels_of(prediction, label, "wrong")
        counted.update(dm.scores.entropy(prediction)[0], wrong, valid)
    low, high = counted.range
    steps = np.arange(low, high, max(1, (high - low) // 400))
    nats = np.array([threshold_at(int(step)) for step in steps])
    figures = [counted.at(float(nat)) for nat in nats]
    plane = Plane("threshold, nats", "share", x_range=(0, 2), width=560, height=300)
    lines = []
    for style, key in enumerate(("missed", "flagged")):
        points = np.column_stack([nats, [each[key] for each in figures]])
        points = points[(nats >= 0) & (nats <= 2) & np.isfinite(points[:, 1])]
        lines.append(ChartLine(key, key, points, style))
    names = [("missed, of the wrong pixels", HUES[0]), ("flagged, of all", HUES[1])]
    behind = legend(names, 330, 60)
    write("missed.svg", line_chart(plane, lines, "Missed and flagged share by threshold", behind))


def ranking() -> None:
    """Precision by recall of unknown pixels, for three scores."""
    segmenter, streets = dm.load("demo"), dm.open_dataset("synthetic:24")
    names = ("doubt", "gradient", "max_softmax")
    found = {name: Ranking() for name in names}
    for index in range(len(streets)):
        sample = streets[index]
        prediction = segmenter(sample.image[None])
        for name, each in found.items():
            unknown = sample.label == dm.datasets.UNKNOWN
            values = getattr(dm.scores, name)(prediction)[0]
            each.update(values, unknown, sample.label != dm.datasets.VOID)
    plane = Plane("recall", "precision", y_range=(0, 0.6), width=560, height=300)
    lines, entries = [], []
    for style, (name, each) in enumerate(found.items()):
        curve = each.curve
        precision = curve.true_positives / (curve.true_positives + curve.false_positives)
        recall = curve.true_positives / curve.true_positives[-1]
        keep = np.unique(
            np.searchsorted(recall, np.linspace(0.005, 1, 200)).clip(0, len(recall) - 1)
        )
        points = np.column_stack([recall, precision.clip(0, 0.6)])[keep]
        lines.append(ChartLine(name, name, points, style))
        entries.append((f"{name}, AUPRC {each.average_precision():.3f}", HUES[style]))
    share = curve.positives.sum() / (curve.positives.sum() + curve.negatives.sum())
    chance = guide(plane, np.array([[0, share], [1, share]]), "guessing")
    behind = legend(entries, 330, 40) + chance
    write("ranking.svg", line_chart(plane, lines, "Precision by recall of unknown pixels", behind))


BADGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" '
    'aria-label="{text}"><rect width="{width}" height="20" rx="3" fill="#3c4a57"/>'
    '<text x="8" y="14" font-family="system-ui,sans-serif" font-size="11" fill="#fff">{text}'
    "</text></svg>\n"
)


def badges() -> None:
    """What `pyproject.toml` says of Python and the licence."""
    project = tomllib.loads((PICTURES.parents[1] / "pyproject.toml").read_text())["project"]
    texts = {"python": f"Python {project['requires-python']}", "license": project["license"]}
    for name, text in texts.items():
        shown = text.replace(">=", "\N{GREATER-THAN OR EQUAL TO} ")
        drawn = BADGE.format(text=shown, width=16 + round(6.4 * len(shown)))
        (PICTURES / f"badge_{name}.svg").write_text(drawn)


DRAWN: tuple[Callable[[], None], ...] = (
    hero,
    two_kinds,
    native,
    scores,
    weather,
    density,
    reliability,
    missed,
    ranking,
    badges,
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    for draw in DRAWN:
        if not sys.argv[1:] or draw.__name__ in sys.argv[1:]:
            draw()
