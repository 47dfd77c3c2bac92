"""Hold the figures of a page's prose to `benchmarks/results/`.

A page says at its end, in a comment, where each of its numbers comes from:

    <!-- figures
    55 = speed: set=19 x 1024 x 2048; name=all scores from quarter size; speedup_over_textbook
    38 = speed: ...; ratio_to_copy / speed: ...; ratio_to_copy
    0.5 = setting
    -->

`python scripts/figures.py PAGE...` names what is not so, and a test does for the pages of `PAGES`.
A number of prose is one with a point, a share in %, or so many `times`; what is in code is none.
"""

from __future__ import annotations

import operator
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
from stages import read  # noqa: E402

PAGES = (
    "README.md",
    *sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "docs").rglob("*.md")
        if path.parent.name != "measured"
    ),
)
"""Pages that must say of every figure where it comes from; those of `measured` stand apart."""
OPERATIONS = {" / ": operator.truediv, " minus ": operator.sub}
LIST = re.compile(r"<!-- figures\n(.*?)-->", re.DOTALL)
NOT_PROSE = re.compile(
    r"<!--.*?-->|```.*?```|(?m:^ {4}[^\n]*$)|!\[[^]]*\]|`[^`]*`|\]\([^)]*\)|https?://\S+|\d{4}\.\d{5}",
    re.DOTALL,
)
NUMBER = re.compile(r"(?<![\w.])(?:\d*\.\d+|\d+(?= ?%| times))(?![\w.]*\d)")


def listed(text: str) -> list[tuple[str, str]]:
    """What a page says of its numbers: how each is written, and where it comes from."""
    lines = "".join(LIST.findall(text)).splitlines()
    pairs = (line.split(" = ", 1) for line in lines if line.strip())
    return [(number.strip(), source.strip()) for number, source in pairs]


def told(text: str) -> list[str]:
    """The numbers in a page's prose, tables included."""
    return NUMBER.findall(NOT_PROSE.sub(" ", text))


def figure(source: str) -> float:
    """The value that `TOPIC: key=value; ...; figure` names; exactly one row must be it."""
    for sign, combine in OPERATIONS.items():
        if sign in source:
            first, second = source.split(sign)
            return float(combine(figure(first), figure(second)))
    topic, _, rest = source.partition(": ")
    *keys, name = rest.split("; ")
    wanted = dict(key.split("=", 1) for key in keys)
    rows = [row for row in read(topic)["rows"] if wanted.items() <= written(row).items()]
    if len(rows) != 1:
        raise LookupError(f"expected one row for '{source}', got {len(rows)}")
    key, _, place = name.partition("[")
    return float(rows[0][key][int(place[:-1])] if place else rows[0][key])


def written(row: dict[str, object]) -> dict[str, str]:
    """A row's values as text."""
    return {key: str(value) for key, value in row.items()}


def equal(number: str, value: float) -> bool:
    """Whether a value, rounded as a number is written, is that number; a share may be in %."""
    digits = len(number.rstrip(" %").partition(".")[2])
    scaled = 100 * value if number.endswith("%") else value
    return f"{abs(scaled):.{digits}f}".lstrip("0") == number.rstrip(" %").lstrip("0")


def faults(text: str) -> list[str]:
    """One line for each number that no file of results holds."""
    sources = listed(text)
    known = {number.rstrip(" %") for number, _ in sources}
    found = [f"{number}: said nowhere" for number in told(text) if number not in known]
    for number, source in sources:
        if number.rstrip(" %") not in told(text):
            found.append(f"{number}: not on the page")
        elif source != "setting" and not equal(number, figure(source)):
            found.append(f"{number}: {source} is {figure(source):g}")
    return found


if __name__ == "__main__":
    for page in sys.argv[1:] or PAGES:
        for fault in faults((ROOT / page).read_text()):
            print(f"{page}: {fault}")
