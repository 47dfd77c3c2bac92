"""What the site and the papers beside the code are made of holds together."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

from doubtmap import __version__

ROOT = Path(__file__).parents[1]
FIGURES = runpy.run_path(str(ROOT / "scripts" / "figures.py"))
NOTEBOOK = runpy.run_path(str(ROOT / "scripts" / "notebook.py"))
TUTORIALS = sorted(
    path for path in (ROOT / "docs" / "tutorials").glob("*.md") if path.name != "index.md"
)


@pytest.mark.parametrize("page", FIGURES["PAGES"])
def test_every_figure_of_prose_is_in_the_results(page):
    assert FIGURES["faults"]((ROOT / page).read_text()) == []


COPY = "speed: set=19 x 1024 x 2048; name=copy; ratio_to_copy"
TEXTBOOK = "speed: set=19 x 1024 x 2048; name=textbook; ratio_to_copy"
VALUE = FIGURES["figure"](TEXTBOOK)
TRUE, OFF = f"{VALUE:.1f}", f"{VALUE + 0.1:.1f}"


@pytest.mark.parametrize(
    ("prose", "sources", "fault"),
    [
        (f"It is {TRUE} here.", [f"{TRUE} = {TEXTBOOK}"], ""),
        (f"It is {VALUE:.0f} times slower.", [f"{VALUE:.0f} = {TEXTBOOK} / {COPY}"], ""),
        (f"It is {OFF} here.", [f"{OFF} = {TEXTBOOK}"], f"{OFF}: "),
        ("It is .5 here.", [], ".5: said nowhere"),
        ("It is 5 % here.", [], "5: said nowhere"),
        ("It is 5 here.", [f"{TRUE} = {TEXTBOOK}"], f"{TRUE}: not on the page"),
        ("`0.25` and [a](b/0.25.md), arXiv 2111.00079", [], ""),
        ("    doubtmap 0.25\n\n```\n0.25\n```", [], ""),
        ("By 0.1 as set.", ["0.1 = setting"], ""),
    ],
)
def test_a_figure_that_no_result_holds_is_found(prose, sources, fault):
    listed = "\n".join(sources)
    found = FIGURES["faults"](f"{prose}\n\n<!-- figures\n{listed}\n-->\n")
    assert len(found) == bool(fault)
    assert not fault or found[0].startswith(fault)


def test_a_source_that_is_no_row_is_refused():
    with pytest.raises(LookupError, match="expected one row"):
        FIGURES["figure"]("speed: name=nothing; seconds")


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_tutorials_run(path, small_streets, recwarn):
    cells = NOTEBOOK["run"](path.read_text())
    assert any(cell.said for cell in cells)


def test_cells_keep_what_they_gave():
    text = "Text.\n\n```python\nx = 2\nprint(x)\nx + 1\n```\n\nMore <b>.\n"
    cells = NOTEBOOK["run"](text)
    assert [(cell.kind, cell.said) for cell in cells] == [
        ("markdown", ""),
        ("code", "2\n3\n"),
        ("markdown", ""),
    ]
    assert '<pre class="said">2\n3</pre>' in NOTEBOOK["shown"](cells)
    notebook = yaml.safe_load(NOTEBOOK["as_ipynb"](cells))
    assert notebook["cells"][1]["outputs"][0]["text"] == "2\n3\n"


def pages_of(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_the_menu_has_every_page():
    text = (ROOT / "mkdocs.yml").read_text()
    assert (
        text.count("      # commands and packages\n") == 1
    )  # scripts/site_pages.py puts them there
    menu = list(pages_of(yaml.safe_load(text)["nav"]))
    assert len(menu) == len(set(menu))
    docs = ROOT / "docs"
    written = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} - {"main_job.md"}
    assert set(menu) == written | {"index.md", "changelog.md", "contributing.md", "security.md"}


def test_assistants_are_led_to_every_page():
    named = set(re.findall(r"\]\(([^)]+)\)", (ROOT / "docs" / "llms.txt").read_text()))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    apart = {page for page in pages if page.startswith("measured/") or page.endswith("/index.md")}
    assert named >= pages - apart - {"main_job.md"}
    assert named <= pages


def test_the_citation_names_this_version_and_the_papers_of_the_docs():
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert about["version"] == __version__
    cited = {reference["url"] for reference in about["references"]}
    for reference in about["references"]:  # the schema of CFF wants each author once
        people = [tuple(author.values()) for author in reference["authors"]]
        assert len(set(people)) == len(people) > 1
    pages = [path.read_text() for path in (ROOT / "docs" / "papers").glob("*.md")]
    first = [re.search(r"\[.*?\d{4}\]\((https://arxiv.org/abs/.*?)\)", page) for page in pages]
    assert cited == {found[1] for found in first if found} and len(cited) == 5


def test_badges_say_what_the_project_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    badges = ROOT / "docs" / "pictures"
    python = project["requires-python"].removeprefix(">=")
    assert (
        f"Python \N{GREATER-THAN OR EQUAL TO} {python}<"
        in (badges / "badge_python.svg").read_text()
    )
    assert f">{project['license']}<" in (badges / "badge_license.svg").read_text()


def test_readme_of_a_release_leads_to_the_repository():
    absolute = runpy.run_path(str(ROOT / "scripts" / "release_readme.py"))["absolute"]
    text = absolute((ROOT / "README.md").read_text(), "https://host/we/it", "abc")
    assert "](https://host/we/it/blob/abc/docs/start.md)" in text
    assert "](https://host/we/it/raw/abc/docs/pictures/hero.png)" in text
    assert "[![tests](https://host/we/it/actions/workflows/tests.yml/badge.svg)]" in text
    assert not re.findall(r"\]\((?!https://)", text)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_workflows_and_forms_are_whole(path):
    content = yaml.safe_load(path.read_text())
    steps = [step for job in content.get("jobs", {}).values() for step in job["steps"]]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
        for target in re.findall(r"make ([\w-]+)", step.get("run", "")):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    if "jobs" in content:
        assert "permissions" in content and steps
