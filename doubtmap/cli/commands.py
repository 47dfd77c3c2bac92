"""How a function becomes a command: its options in groups, its example, and how it is run.

`command = as_command("fit", fit, EXAMPLE)` stands below a function whose parameters are arguments
and options. A parameter that is a dataclass, `Annotated[Settings, "Training"]`, becomes an option
for each field that says so with `doubtmap.option.Option`, all in the group of that name.
"""

from __future__ import annotations

import functools
import inspect
import io
import multiprocessing
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from doubtmap.cli.configuration import configured, keep_options
from doubtmap.cli.telling import listening, log
from doubtmap.errors import DoubtmapError, Stopped
from doubtmap.names import as_addressed, in_options
from doubtmap.option import Option
from doubtmap.version import __version__

MODEL, DATA, SCORES, OUTPUT, RUNNING = "Model", "Data", "Scores", "Output", "Running"
"""The groups of options, in the order of `--help`; a command's own ones stand before Output."""


def option(group: str, help: str, *flags: str, **limits: Any) -> Any:
    """An option in a group of `--help`."""
    return typer.Option(*flags, help=help, rich_help_panel=group, **limits)


class Command(TyperCommand):
    """A command whose `--help` stands in the group of how it is run.

    Where it takes `--scores`, it takes them as `--score` too, as commands that take one once did.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, `--score` by the name that `--help` says."""
        if any("--scores" in parameter.opts for parameter in self.params):
            args = [re.sub(r"^--score(?==|$)", "--scores", word) for word in args]
        return super().parse_args(ctx, args)

    def get_help_option(self, ctx: Any) -> Any:
        """`-h`, `--help`."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = RUNNING
        return found


def as_command(name: str, function: Callable[..., None], example: str) -> Any:
    """Make a command of a function.

    Args:
        name: of the command.
        function: whose parameters are its arguments and options, and whose docstring is its help.
        example: three lines that work, for the end of `--help`.
    """
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    lines = "\n".join(example.strip().splitlines())
    alone.command(name, cls=Command, epilog=f"Example:\n{lines}")(expanded(function))
    return typer.main.get_command(alone)


@dataclass(frozen=True)
class _Group:
    """The options of a dataclass."""

    name: str
    kind: type
    options: dict[str, tuple[Option, inspect.Parameter]]

    def read(self, given: dict[str, Any]) -> Any:
        """The dataclass, of what is taken out of the values that were given."""
        chosen = {}
        for name, (says, parameter) in self.options.items():
            value = given.pop(parameter.name)
            if says.read is None or value is None:
                if says.read is None:
                    chosen[name] = value
            else:
                chosen[name] = says.read(_flag(parameter.name, says).split("/")[0], value)
        return self.kind(**chosen)


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Give a function an option for each field of its parameters that are dataclasses.

    What all commands have in common is added: `--config`, `--verbose` and `--quiet`.
    """
    parameters = dict(_common())
    groups = []
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        kind = (get_args(hint) or (hint,))[0]
        if isinstance(kind, type) and is_dataclass(kind):
            groups.append(_group(parameter.name, kind, hint.__metadata__[0]))
            parameters |= {option.name: option for _, option in groups[-1].options.values()}
        else:
            parameters[parameter.name] = parameter.replace(
                annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY
            )
    flags = _flags_of(groups, parameters)

    @functools.wraps(function)
    def run(**given: Any) -> None:
        context, _ = given.pop("context"), given.pop("config")
        with listening(verbose=given.pop("verbose"), quiet=given.pop("quiet")):
            _run(function, groups, context, flags, given)

    ordered = sorted(parameters.values(), key=_place)
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return run


def _run(
    function: Callable[..., None],
    groups: list[_Group],
    context: typer.Context,
    flags: Mapping[str, str],
    given: dict[str, Any],
) -> None:
    """Call the function; errors name options, and the run's folder keeps what it was run with.

    What is written to an address is written here first; errors and answers name the address.
    """
    begun = time.monotonic()
    log.info(f"doubtmap {__version__}: {command_line()}")
    given.update({name: _where(value) for name, value in given.items()})
    if given.get("workers", 0) > 0 and given.get("engine") == "local":
        _begin_workers(given.get("model") or "")
    try:
        with _written(given) as folder:
            try:
                function(**{group.name: group.read(given) for group in groups}, **given)
            except Stopped:
                keep_options(context, folder)
                raise
            keep_options(context, folder)
    except Stopped:
        raise
    except DoubtmapError as error:
        raise type(error)(in_options(as_addressed(str(error)), flags)) from error
    log.info(f"took {time.monotonic() - begun:.1f} s")


def _begin_workers(model: str) -> None:
    """Let the process that workers start from import what they need while this one does so, too."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    from multiprocessing import forkserver

    known = [Path(name, "config.json").exists() for name in model.split(",")]
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [*WORKERS_NEED, *(NETWORKS_NEED if any(known) else ()), "doubtmap.engine.freezing"]
    )
    forkserver.ensure_running()


WORKERS_NEED = ("doubtmap.evaluation.first_look", "doubtmap.images", "doubtmap.models.loading")
NETWORKS_NEED = ("doubtmap.models.huggingface", "transformers.modeling_utils")
"""Of networks in Hugging Face's folders."""


@contextmanager
def _written(given: dict[str, Any]) -> Iterator[Path | None]:
    """The place here of what is written; for an address it is put in its stead, and sent."""
    out = given.get("out")
    if out is None or not _may_be_afar(out):
        yield out
        return
    from doubtmap.files.stores import sent

    said = io.StringIO()
    try:
        with sent(out, given.get("resume")) as place, redirect_stdout(said):
            given["out"] = place
            yield place
    finally:
        typer.echo(as_addressed(said.getvalue()), nl=False)


def _may_be_afar(path: Path) -> bool:
    """Whether it is worth to load what knows."""
    return str(path).startswith("/vsi") or ":/" in str(path)


def _where(value: Any) -> Any:
    """A path, or several, by which a file is read wherever it lies."""
    if isinstance(value, list):
        return [*map(_where, value)]
    if not isinstance(value, Path) or not _may_be_afar(value):
        return value
    from doubtmap.files.afar import path_of

    return path_of(value)


def _group(name: str, kind: type, panel: str) -> _Group:
    hints = get_type_hints(kind, include_extras=True)
    options = {}
    for field in fields(kind):
        base, *extras = get_args(hints[field.name]) or (hints[field.name],)
        for says in extras:
            if isinstance(says, Option):
                default = says.text if says.read else field.default
                shown: Any = base if says.read is None else str if says.text else str | None
                flag = _flag(field.name, says)
                options[field.name] = (
                    says,
                    inspect.Parameter(
                        flag.split("/")[0].removeprefix("--").replace("-", "_"),
                        inspect.Parameter.KEYWORD_ONLY,
                        default=default,
                        annotation=Annotated[shown, option(says.group or panel, says.help, flag)],
                    ),
                )
    return _Group(name, kind, options)


def _flag(name: str, says: Option) -> str:
    return says.flag or f"--{name.replace('_', '-')}"


def flags_of(kind: type) -> list[str]:
    """The options of a dataclass, as they are typed."""
    return [
        _flag(name, says).split("/")[0] for name, (says, _) in _group("", kind, "").options.items()
    ]


def _flags_of(groups: list[_Group], parameters: Mapping[str, inspect.Parameter]) -> dict[str, str]:
    """What Python calls an argument, to what the command line does."""
    own = {name: f"--{name.replace('_', '-')}" for name in parameters}
    of_fields = {
        name: _flag(name, says).split("/")[0]
        for group in groups
        for name, (says, _) in group.options.items()
    }
    return own | of_fields


def _common() -> Iterator[tuple[str, inspect.Parameter]]:
    """What every command takes."""
    for name, kind, default in (
        ("context", typer.Context, inspect.Parameter.empty),
        (
            "config",
            Annotated[
                Path | None,
                option(
                    RUNNING,
                    "TOML file of options; those given here win. A run keeps its own in "
                    "OUT/options.toml.",
                    metavar="FILE",
                    callback=configured,
                    is_eager=True,
                ),
            ],
            None,
        ),
        ("verbose", Annotated[bool, option(RUNNING, "Tell more.", "--verbose", "-v")], False),
        (
            "quiet",
            Annotated[
                bool, option(RUNNING, "No progress and no notes: errors only.", "--quiet", "-q")
            ],
            False,
        ),
    ):
        yield (
            name,
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            ),
        )


ORDER = {MODEL: 0, DATA: 1, SCORES: 2, OUTPUT: 4, RUNNING: 5}


def _place(parameter: inspect.Parameter) -> tuple[int, int]:
    """Arguments, then the groups in their order; what all commands take comes last."""
    extras = get_args(parameter.annotation)[1:]
    panel = next((getattr(extra, "rich_help_panel", None) for extra in extras), None)
    last = parameter.name in ("config", "verbose", "quiet")
    return (ORDER.get(panel, 3) if panel else -1, int(last))


def command_line() -> str:
    """What the user typed, for the results."""
    return shlex.join(["doubtmap", *sys.argv[1:]])
