"""Lay out the pages of the site in `build/docs`, and its settings in `build/mkdocs.yml`.

    python scripts/site_pages.py

The pages of `docs/` come along, and those of the repository's root. The reference of the commands
is made of their help, that of Python of the docstrings; tutorials are run and shown with what they
gave, and formulas become MathML.
"""

from __future__ import annotations

import ast
import posixpath
import re
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import typer
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from notebook import as_ipynb, run, shown  # noqa: E402

from doubtmap.cli import app  # noqa: E402

OUT = ROOT / "build" / "docs"
OF_THE_ROOT = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages of the repository's root, as the site calls them."""
PACKAGES = (
    "doubtmap",
    "doubtmap.prediction",
    "doubtmap.scores",
    "doubtmap.scores.yours",
    "doubtmap.metrics",
    "doubtmap.metrics.torchmetric",
    "doubtmap.models",
    "doubtmap.datasets",
    "doubtmap.images",
    "doubtmap.evaluation",
    "doubtmap.evaluation.yours",
    "doubtmap.fitting",
    "doubtmap.calibration",
    "doubtmap.decisions",
    "doubtmap.watching",
    "doubtmap.labelling",
    "doubtmap.segments",
    "doubtmap.objects",
    "doubtmap.training",
    "doubtmap.engine",
    "doubtmap.engine.spread",
    "doubtmap.reports",
)
"""Packages and modules whose public names the reference of Python holds."""
MENU_PLACE = "      # commands and packages\n"


def menu() -> str:
    """The entries of `mkdocs.yml` for all commands and packages."""
    lines = []
    for title, page, names in (
        ("Commands", "commands", sorted(commands_by_name())),
        ("Python", "python", PACKAGES),
    ):
        lines += [f"      - {title}:", f"          - reference/{page}.md"]
        lines += [f"          - {name}: reference/{name}.md" for name in names]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write all pages anew."""
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.copytree(ROOT / "docs", OUT)
    for name, to in OF_THE_ROOT.items():
        (OUT / to).write_text(of_the_root((ROOT / name).read_text()))
    for path in (ROOT / "docs" / "tutorials").glob("*.md"):
        if path.name != "index.md":
            lay_out_tutorial(path)
    for path in OUT.rglob("*.md"):
        path.write_text(as_the_site_has_it(path.read_text(), str(path.relative_to(OUT))))
    (OUT / "reference").mkdir()
    for name, text in reference().items():
        (OUT / "reference" / f"{name}.md").write_text(text)
    settings = (ROOT / "mkdocs.yml").read_text()
    (OUT.parent / "mkdocs.yml").write_text(settings.replace(MENU_PLACE, menu()))


def lay_out_tutorial(path: Path) -> None:
    """Run a tutorial, and write it with its outputs, also as a notebook."""
    cells = run(path.read_text())
    to = OUT / "tutorials" / path.name
    (to.with_suffix(".ipynb")).write_text(as_ipynb(cells))
    link = f"[Download as a notebook]({path.stem}.ipynb){{ .md-button }}"
    to.write_text(f"{shown(cells)}\n\n{link}\n")


def as_the_site_has_it(text: str, page: str) -> str:
    """Leave out marks of tables and figures, draw formulas, lead to pages of the root."""
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"```math\n(.*?)```", lambda found: formula(found[1]), text, flags=re.DOTALL)
    return re.sub(
        r"\]\((?:\.\./)+([A-Z]+\.md)(#[^)]*)?\)",
        lambda link: f"]({relative(OF_THE_ROOT[link[1]], page)}{link[2] or ''})",
        text,
    )


def formula(source: str) -> str:
    """A formula as MathML, which browsers draw by themselves."""
    return f'<div class="formula">{convert(source.strip(), display="block")}</div>'


def relative(target: str, page: str) -> str:
    """The way from a page to another."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def of_the_root(text: str) -> str:
    """A page of the root: links lead into `docs/`, or to other such pages; no badge of a host."""
    text = re.sub(r"^\[!\[tests\].*\n", "", text, flags=re.MULTILINE)
    for other, to in OF_THE_ROOT.items():
        text = text.replace(f"]({other}", f"]({to}")
    text = re.sub(r"\[([^]]+)\]\((?:CITATION\.cff|LICENSE)\)", r"`\1`", text)
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
    rows = [f"| [`{name}`]({name}.md) | {first_line(name)} |" for name in PACKAGES]
    pages["python"] = "# Python\n\n| package | |\n|---|---|\n" + "\n".join(rows) + "\n"
    return pages | {name: package_page(name) for name in PACKAGES}


def docstring(name: str) -> str:
    """What a package or module says of itself; it is not imported, since it may need an extra."""
    return (ast.get_docstring(parsed(name)) or "").strip()


def parsed(name: str) -> ast.Module:
    """The source of a package or module."""
    found = find_spec(name)
    assert found is not None and found.origin is not None, name
    return ast.parse(Path(found.origin).read_text())


def first_line(name: str) -> str:
    """The first line of a docstring."""
    return docstring(name).partition("\n")[0]


def first_sentence(text: str | None) -> str:
    """The first sentence of a help, on one line."""
    return re.split(r"(?<=\.)\s", " ".join((text or "").split()), maxsplit=1)[0]


def command_page(name: str, command: click.Command) -> str:
    """Usage, help and options of one command, options in the groups of its help."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    usage = " ".join(("[OPTIONS]", *(metavar(each) for each in arguments)))
    parts = [f"# doubtmap {name}", f"    doubtmap {name} {usage}", help_text(command)]
    groups: dict[str, list[str]] = {}
    for option in command.params:
        panel = getattr(option, "rich_help_panel", None)
        panel = panel or ("Arguments" if option in arguments else "Options")
        if not getattr(option, "hidden", False):
            groups.setdefault(panel, []).append(option_row(option))
    for panel, rows in groups.items():
        title = "argument" if panel == "Arguments" else "option"
        parts.append(f"## {panel}\n\n| {title} | |\n|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def help_text(command: click.Command) -> str:
    """Help and examples of a command; lines that begin with the program are for the shell."""
    told = f"{command.help or ''}\n\n{getattr(command, 'epilog', '') or ''}".replace("\b", "")
    lines = "\n".join(line.strip() for line in told.splitlines())
    return re.sub(r"((?:^doubtmap .*\n?)+)", r"\n```sh\n\1\n```\n", lines, flags=re.MULTILINE)


def metavar(option: click.Parameter) -> str:
    """How the help calls an argument, or what an option takes."""
    return option.metavar or (option.name or "").upper()


def option_row(option: click.Parameter) -> str:
    """An option, what it does, and its default."""
    argument = option.param_type_name == "argument"
    name = metavar(option) if argument else ", ".join((*option.opts, *option.secondary_opts))
    told = " ".join(str(getattr(option, "help", "") or "").split())
    default = option.default
    if isinstance(default, (str, int, float, Path)) and default not in ("", False):
        told += f" Default: `{default}`."
    cells = (f"`{name}`", told)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def public_names(name: str) -> list[str]:
    """The names that a package exports, or the classes and functions that a module defines."""
    if (ROOT / name.replace(".", "/") / "__init__.py").is_file():
        packages = {each.rpartition(".")[2] for each in PACKAGES}
        exported = import_module(name).__all__
        return [each for each in exported if each not in packages and each[0] != "_"]
    defined = (ast.ClassDef, ast.FunctionDef)
    found = [each.name for each in parsed(name).body if isinstance(each, defined)]
    return [each for each in found if each[0] != "_"]


def package_page(name: str) -> str:
    """The public names of a package or module; mkdocstrings fills them in."""
    entries = "\n\n".join(entry(f"{name}.{each}") for each in public_names(name))
    return f"# {name}\n\n{docstring(name)}\n\n{entries}\n"


def entry(name: str) -> str:
    """A public name; of a table, such as that of all layouts, not what stands in it."""
    module, _, own = name.rpartition(".")
    told = f"::: {name}"
    if own.isupper() and isinstance(getattr(import_module(module), own), Mapping):
        told += "\n    options:\n      show_attribute_values: false"
    return told


if __name__ == "__main__":
    main()
