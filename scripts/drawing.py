"""Charts of the library as files of their own, for the pages of `docs/`."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
HUES = ("#0068a8", "#c44a00", "#007a56", "#a8327d", "#2f8fc0", "#9a7200", "#3c3c44")
STYLE = Markup(
    "<style>svg{font:12px system-ui,sans-serif;background:#fff}.grid{stroke:#e9e6e0;fill:none}"
    ".tick{fill:#5c5b60;font-size:11.5px}.axis{fill:#1d1d21;font-size:12.5px}.hit{display:none}"
    ".guide{stroke:#5c5b60;fill:none;stroke-dasharray:4 4}.line{fill:none;stroke-width:1.8}"
    ".best .line{stroke-width:2.8}.bar{fill:#0068a8}.text{fill:#1d1d21;font-size:12px}"
    + "".join(f".hue{k} .line{{stroke:{hue}}}" for k, hue in enumerate(HUES))
    + "</style>"
)


def write(name: str, chart: Markup) -> None:
    """A file of its own: with namespace and style."""
    text = str(chart).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    start = text.index(">") + 1
    (PICTURES / name).write_text(text[:start] + str(STYLE) + text[start:] + "\n")


def legend(entries: list[tuple[str, str]], x: float, y: float) -> Markup:
    """Texts in their colours, one below the other; `entries` are `(text, colour)`."""
    lines = [
        Markup('<text class="text" style="fill:{}" x="{}" y="{}">{}</text>').format(
            colour, x, y + 17 * at, text
        )
        for at, (text, colour) in enumerate(entries)
    ]
    return Markup("").join(lines)
