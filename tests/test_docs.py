"""What README and docs say is so: tables, links, snippets of Python, and lines for the shell."""

import functools
import importlib.util
import re
import runpy
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import typer
from PIL import Image

import doubtmap as dm
from doubtmap.calibration import selective
from doubtmap.calibration.pixels import draw_pixels
from doubtmap.cli import app
from doubtmap.files.resuming import TYPED
from doubtmap.segments import estimators
from doubtmap.streets import synthetic
from doubtmap.streets.synthetic import SyntheticStreets
from doubtmap.training import spectral

ROOT = Path(__file__).parents[1]
TABLES = runpy.run_path(str(ROOT / "scripts" / "tables.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
USES = sorted((ROOT / "docs").glob("*.md"))
STAND_INS = {
    "MODEL": "demo",
    "MODEL2": "demo",
    "MODEL3": "demo",
    "MODEL1,MODEL2,MODEL3": "demo,demo,demo",
    "path/to/segformer": "demo",
    "IMAGES": "photographs",
    "PHOTOGRAPHS": "photographs",
    "DIR": "out",
    "DATA": "synthetic:6",
    "FIT": "synthetic:6",
    "HELD_OUT": "synthetic:12",
    "VAL": "synthetic:6",
    "TRAIN": "synthetic:6",
    "CAL": "synthetic:12 --seed 1",
    "TEST": "synthetic:3 --seed 2",
}
"""What the names in capitals stand for here; the embedded network and small drawn streets."""
NETWORK = """import torch

def MyNetwork():
    return torch.nn.Conv2d(3, 3, 1)"""
"""What the function of docs/bring_your_network.md leaves to its reader."""
READERS = (
    "README.md",
    "calibration.md",
    "decisions.md",
    "density.md",
    "objects.md",
    "segments.md",
    "start.md",
    "how_to/find_unknown.md",
)
"""Pages whose lines run here; others need real images, train for hours, or repeat these."""
ELSEWHERE = ("calibrate", "export", "fit", "review", "serve", "table", "view", "watch")
"""Commands of README that other tests run: they take seconds, do not end, or want a store."""
OTHERS_LIBRARIES = ("lightning", "supervision", "torchmetrics")
"""Which snippets may need, and which need not be there."""


@pytest.mark.parametrize("name", TABLES["PAGES"])
def test_tables_are_those_of_the_results(name):
    text = (ROOT / "docs" / "measured" / name).read_text()
    assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
    assert TABLES["page"](name, text) == text


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|\.\./\.\./actions/)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


def test_every_measured_page_and_its_use_name_each_other():
    for page in set((ROOT / "docs" / "measured").glob("*.md")) - {ROOT / "docs/measured/index.md"}:
        use = ROOT / "docs" / page.name
        assert f"(measured/{page.name})" in use.read_text()
        assert f"(../{page.name})" in page.read_text()


def lines_for_the_shell(page, inline=False):
    """Words of each line; with `inline` also of those within sentences and tables."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [
        *re.findall(r"^    (?:\$ )?(doubtmap .*)$", text, re.MULTILINE),
        *re.findall(r"^(doubtmap .*)$", "\n".join(fenced), re.MULTILINE),
    ]
    rows = re.findall(r"^\| .* \|$", text, re.MULTILINE) if page.name == "README.md" else ()
    for prose in [text] if inline else rows:
        lines += re.findall(r"`(doubtmap [a-z][^`]*)`", prose)
    for line in lines:
        yield shlex.split(re.sub(r"\s# .*|\s\.\.\.", "", line))[1:]


def command_of(name):
    group = typer.main.get_command(app)
    return group.resolve_command(click.Context(group), [name])[1]


def options_of(command):
    found = command_of(command)
    return {flag for each in found.params for flag in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_for_the_shell_name_options_that_exist(page):
    for command, *words in lines_for_the_shell(page, inline=True):
        assert {word for word in words if word.startswith("--")} <= options_of(command), command


def test_settings_are_called_by_options_that_exist():
    known = set().union(*map(options_of, ("evaluate", "score", "objects", "review")))
    assert set(re.findall(r"--[a-z-]+", " ".join(TYPED.values()))) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_for_the_shell_are_whole(page):
    """Each parses as its command's: no argument is missing, and none is too much."""
    for name, *words in lines_for_the_shell(page):
        command_of(name).make_context(name, words)


@pytest.mark.parametrize("page", USES, ids=lambda page: page.stem)
def test_names_in_capitals_are_explained(page):
    words = [word for line in lines_for_the_shell(page) for word in line]
    names = {word for word in words if re.fullmatch("[A-Z_]{3,}", word)}
    explained = (ROOT / "docs" / "how_to" / "index.md").read_text()
    assert all(f"`{name}`" in explained for name in names), names
    assert not names or "#what-the-names-in-capitals-stand-for)" in page.read_text()


@pytest.fixture
def place(tmp_path, monkeypatch, small_streets):
    """A folder to work in: photographs, objects to paste; `synthetic:N` draws smaller streets."""
    small = functools.partial(SyntheticStreets, size=(80, 120))
    monkeypatch.setattr(synthetic, "SyntheticStreets", small)
    monkeypatch.setattr(spectral.settle, "__defaults__", (3, spectral.GRID))  # else seconds
    monkeypatch.setattr(estimators, "TREES", 10)
    monkeypatch.setitem(draw_pixels.__kwdefaults__, "values", 30_000)
    monkeypatch.setattr(selective, "VALUES", 30_000)
    monkeypatch.chdir(tmp_path)
    for folder in ("photographs", "coco128/images", "coco128/polygons"):
        (tmp_path / folder).mkdir(parents=True)
    for index, name in enumerate("abcdefgh"):
        pixels = small(8)[index].image.permute(1, 2, 0).numpy().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{name}.png")
        Image.fromarray(pixels).save(tmp_path / "coco128/images" / f"{name}.png")
        outline = "22 0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6"
        (tmp_path / "coco128/polygons" / f"{name}.txt").write_text(outline)
    page = (ROOT / "docs" / "bring_your_network.md").read_text()
    (function,) = re.findall(r"```\n(def build.*?)```", page, re.DOTALL)
    score = "def second_guess(prediction):\n    return prediction.probabilities.topk(2, 1)[0][:, 1]"
    (tmp_path / "mine.py").write_text(f"{NETWORK}\n\n{function}\n\n{score}\n")
    torch.save(torch.nn.Conv2d(3, 3, 1).state_dict(), tmp_path / "best.pt")
    return tmp_path


def given(words):
    """The words of a line with what stands for their names here."""
    for word in words:
        word = word.replace("density:FILE", "density:density.safetensors")
        yield from STAND_INS.get(word, word).split()


@pytest.mark.parametrize("name", READERS)
def test_lines_for_the_shell_run(name, place, run):
    page = ROOT / name if name == "README.md" else ROOT / "docs" / name
    if "density:FILE" in page.read_text():
        assert run("fit", "density", "demo", "synthetic:8", "--out", "density.safetensors")[0] == 0
    lines = [line for line in lines_for_the_shell(page) if "PATH" not in " ".join(line)]
    assert lines
    for line in lines:
        apart = any(word in ("--probability", "s3://bucket/net.onnx") for word in line)
        if line[0] not in ("demo", "train", *(ELSEWHERE if name == "README.md" else ())) and not (
            name == "README.md" and apart
        ):
            code, _, error = run(*given(line))
            assert code == 0, (line, error)


def python_of(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page.name != "README.md" and python_of(page) and page not in TUTORIALS
    ],
    ids=lambda page: page.stem,
)
def test_snippets_of_python_run(page, place):
    known = {}
    exec(python_of(ROOT / "README.md")[0], known)
    images = known["streets"][0].image[None]
    known |= {"held_out": known["streets"], "dataset": known["streets"], "images": images}
    missing = set()
    for code in python_of(page):
        lacks = [name for name in OTHERS_LIBRARIES if lacking(name, code)]
        missing.update(lacks)
        if not lacks:
            exec(code, known)
    if missing:
        pytest.skip(f"{', '.join(sorted(missing))} not installed: the other snippets ran")


def lacking(library, code):
    module = library.removesuffix("s")  # doubtmap.metrics.torchmetric needs torchmetrics
    named = re.search(rf"^(?:import|from) [\w.]*\b{module}", code, re.MULTILINE)
    return named and importlib.util.find_spec(library) is None


def test_the_callback_of_lightning_logs_our_figures(place, recwarn):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    page = python_of(ROOT / "docs" / "how_to" / "add_yours.md")
    (code,) = (each for each in page if "lightning.Callback" in each)
    known = {}
    exec(code, known)
    streets = dm.open_dataset("synthetic:2")
    how = {"classes": dm.load("demo").class_names, "mean": (0, 0, 0), "std": (1, 1, 1)}

    class Learning(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Conv2d(3, len(how["classes"]), 1)
            self.frozen = torch.nn.BatchNorm2d(3).eval()

        def forward(self, images):
            return self.head(self.frozen(images))

        def training_step(self, batch):
            assert self.head.training and not self.frozen.training
            return self(batch).square().mean()

        def validation_step(self, batch):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    images = torch.utils.data.DataLoader([torch.rand(3, 16, 16) for _ in range(2)])
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[known["Doubts"](streets, **how)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    network = Learning()
    trainer.fit(network, images, images)
    logged = trainer.callback_metrics
    figures = dm.evaluate(dm.load(network, **how), streets, ["entropy"], replicates=20).figures
    wanted = figures["scores"]["entropy"]["wrong"]["auroc"], figures["calibration"]["ece"]
    found = logged["doubt/wrong_auroc"], logged["doubt/ece"]
    assert [float(each) for each in found] == pytest.approx(wanted, abs=1e-6)
