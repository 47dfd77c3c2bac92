"""What the site is made of beside the pages of `docs/`: hooks of MkDocs, see `mkdocs.yml`.

The reference of the commands comes from their help, that of Python from the docstrings, tutorials
are run and shown with what they said, and the pages of the repository's root come along.
"""

from __future__ import annotations

import posixpath
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import typer
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from notebook import as_ipynb, run, shown  # noqa: E402

from doubtmap.cli import app  # noqa: E402

OF_THE_ROOT = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "README.md": "index.md",
}
"""Pages of the repository's root, as the site calls them; README is the home page's other half."""
PACKAGES = (
    "doubtmap",
    "doubtmap.scores",
    "doubtmap.metrics",
    "doubtmap.models",
    "doubtmap.datasets",
    "doubtmap.evaluation",
    "doubtmap.calibration",
    "doubtmap.decisions",
    "doubtmap.segments",
    "doubtmap.objects",
    "doubtmap.training",
    "doubtmap.reports",
)
"""Whose public names the reference of Python holds."""
UNLISTED = ("main_job.md",)
"""Pages that are kept for their addresses, and are in no menu."""


def formula(source: str, *_: Any, **__: Any) -> str:
    """A formula as MathML, which browsers draw by themselves."""
    return f'<div class="formula">{convert(source, display="block")}</div>'


def on_config(config: Any) -> Any:
    """Put the generated references into the menu."""
    (reference,) = (part["Reference"] for part in config["nav"] if "Reference" in part)
    commands = [f"reference/{name}.md" for name in sorted(commands_by_name())]
    reference[:0] = [
        {"Commands": ["reference/commands.md", *commands]},
        {"Python": [{name: f"reference/{name}.md"} for name in PACKAGES]},
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file of `docs/` holds."""
    from mkdocs.structure.files import File, InclusionLevel

    pages = {to: of_the_root(name) for name, to in OF_THE_ROOT.items() if to != "index.md"}
    pages |= {f"reference/{name}.md": text for name, text in reference().items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        if path.name != "index.md":
            text = as_ipynb(cells_of(path))
            files.append(File.generated(config, f"tutorials/{path.stem}.ipynb", content=text))
    for name in UNLISTED:
        files.get_file_from_path(name).inclusion = InclusionLevel.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave out marks of the tables, lead to pages of the root, run tutorials."""
    path = page.file.src_uri
    if path.startswith("tutorials/") and path != "tutorials/index.md":
        markdown = shown(cells_of(ROOT / "docs" / path))
        markdown += f"\n\n[Download as a notebook]({page.file.name}.ipynb){{ .md-button }}\n"
    markdown = re.sub(r"^<!--.*?-->\n", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return re.sub(
        r"\]\(((?:\.\./)+)([A-Z]+\.md)(#[^)]*)?\)",
        lambda link: f"]({relative(OF_THE_ROOT[link[2]], path)}{link[3] or ''})",
        markdown,
    )


def cells_of(path: Path, ran: dict[Path, Any] = {}) -> Any:  # noqa: B006
    """The cells of a tutorial with what they gave; each tutorial is run once a build."""
    if path not in ran:
        ran[path] = run(path.read_text())
    return ran[path]


def relative(target: str, page: str) -> str:
    """The way from a page to another."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def of_the_root(name: str) -> str:
    """A page of the root as the site has it: links lead into `docs/`, or to other such pages."""
    text = (ROOT / name).read_text()
    for other, to in OF_THE_ROOT.items():
        text = text.replace(f"]({other}", f"]({to}")
    return text.replace("](docs/", "](")


def commands_by_name() -> dict[str, click.Command]:
    """Every command of the command line."""
    group = typer.main.get_command(app)
    context = click.Context(group)
    names = group.list_commands(context)  # type: ignore[attr-defined]
    return {name: group.resolve_command(context, [name])[1] for name in names}  # type: ignore[attr-defined]


def reference() -> dict[str, str]:
    """The pages of the reference, by name."""
    commands = commands_by_name()
    rows = [
        f"| [`{name}`]({name}.md) | {first_sentence(command.help)} |"
        for name, command in commands.items()
    ]
    pages = {"commands": "# Commands\n\n| command | |\n|---|---|\n" + "\n".join(rows) + "\n"}
    pages |= {name: command_page(name, command) for name, command in commands.items()}
    return pages | {name: package_page(name) for name in PACKAGES}


def first_sentence(text: str | None) -> str:
    """The first sentence of a help, on one line."""
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()), maxsplit=1)[0]


def command_page(name: str, command: click.Command) -> str:
    """Usage, help and options of one command, options in the groups of its help."""
    usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name)))
    parts = [f"# doubtmap {name}", f"    doubtmap {name} {usage}", help_text(command)]
    groups: dict[str, list[str]] = {}
    for option in command.params:
        panel = getattr(option, "rich_help_panel", None) or (
            "Arguments" if option.param_type_name == "argument" else "Options"
        )
        if not getattr(option, "hidden", False):
            groups.setdefault(panel, []).append(option_row(option))
    for panel, rows in groups.items():
        parts.append(f"## {panel}\n\n| | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def help_text(command: click.Command) -> str:
    """The help of a command as Markdown: lines that begin with the program are for the shell."""
    lines = (command.help or "").replace("\b", "").splitlines()
    text = "\n".join(line.strip() for line in lines)
    return re.sub(r"^(doubtmap .*)$", r"    \1", escaped(text), flags=re.MULTILINE)


def option_row(option: click.Parameter) -> str:
    """An option, what it takes, what it does, and its default."""
    if option.param_type_name == "argument":
        name = option.human_readable_name.upper()
    else:
        name = ", ".join((*option.opts, *option.secondary_opts))
    told = " ".join(str(getattr(option, "help", "") or "").split())
    default = option.default
    if default not in (None, False, (), [], "") and not callable(default):
        told += f" Default: `{default}`."
    return f"| `{name}` | {escaped(told)} |".replace("\n", " ")


def escaped(text: str) -> str:
    """Text that Markdown is to leave as it is."""
    return re.sub(r"(?<!`)([<*_|])(?!`)", r"\\\1", text)


def package_page(name: str) -> str:
    """The public names of a package; mkdocstrings fills them in."""
    module = import_module(name)
    told = (module.__doc__ or "").strip()
    packages = {each.rpartition(".")[2] for each in PACKAGES}
    names = [each for each in module.__all__ if each not in packages and each[0] != "_"]
    return f"# {name}\n\n{told}\n\n" + "\n\n".join(f"::: {name}.{each}" for each in names) + "\n"
