"""The options of a run as a TOML file: read with --config, kept in the run's folder.

Keys are the options' names without their hyphens at the front (`input-size = "image"`) and the
arguments' (`model`, `data`, `images`); paths start at the current folder, as on the line.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

import typer

from doubtmap.errors import DataError, UsageError
from doubtmap.names import as_addressed
from doubtmap.version import __version__

KEPT = "options.toml"
"""What a run's folder calls its options."""
OF_THE_MOMENT = {"config", "help", "verbose", "quiet", "resume", "json", "csv"}
"""What says how one call is run and shown, not what comes of it; not kept."""


def configured(context: typer.Context, file: Path | None) -> Path | None:
    """Make the values of a file the defaults of a command.

    Raises:
        DataError: for a file that cannot be read.
        UsageError: for a key that is no option of the command, or a value that cannot be one.
    """
    if file is None:
        return None
    known = _known(context)
    defaults = {}
    for key, value in _read(file).items():
        if key == "score" and "scores" in known:  # as commands that take one once called it
            key = "scores"
        if key not in known:
            raise UsageError(_unknown(file, key, known, context.info_name or "doubtmap"))
        defaults[known[key].name] = _value(file, key, value, known[key])
    context.default_map = defaults
    return file


def keep_options(context: typer.Context, folder: Path | None) -> None:
    """Write what a command was run with into its folder, so that it can be run again.

    Raises:
        DataError: where that cannot be written.
    """
    if folder is None or not folder.is_dir():
        return
    from doubtmap.files import write_atomically

    values = {key: context.params.get(known.name) for key, known in _known(context).items()}
    lines = [
        f"{key} = {_toml(value)}"
        for key, value in values.items()
        if key not in OF_THE_MOMENT and value not in (None, "", (), [])
    ]
    about = (
        f"# Options of a run of doubtmap {__version__}. To run it again:\n"
        f"# doubtmap {context.info_name} --config {as_addressed(str(folder / KEPT))}\n"
    )
    text = about + "\n".join(lines) + "\n"
    write_atomically(folder / KEPT, text.encode(errors="replace"))


def _known(context: typer.Context) -> dict[str, Any]:
    """The parameters of a command by the names that a file gives them."""
    known = {}
    for parameter in context.command.params:
        if parameter.param_type_name == "argument":
            known[str(parameter.name)] = parameter
        else:
            long = next(flag for flag in parameter.opts if flag.startswith("--"))
            known[long.removeprefix("--")] = parameter
    return {key: parameter for key, parameter in known.items() if key not in ("config", "help")}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"--config: {file} cannot be read ({error.strerror or error}). Check the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"--config: {file} is not TOML: {error}. Correct it.") from error


def _unknown(file: Path, key: str, known: dict[str, Any], command: str) -> str:
    near = difflib.get_close_matches(key.replace("_", "-"), known, 1)
    hint = f"Did you mean {near[0]}?" if near else f"See doubtmap {command} --help."
    return f"--config: {file}: expected options of doubtmap {command}, got {key}. {hint}"


def _value(file: Path, key: str, value: Any, parameter: Any) -> Any:
    """The value as the command line has it; a list becomes text with commas where that is asked."""
    several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
    flag = getattr(parameter, "is_flag", False)
    items = value if isinstance(value, list) else [value]
    if flag != isinstance(value, bool) or not all(isinstance(i, str | int | float) for i in items):
        form = "true or false" if flag else "text, a number" + (" or a list" if several else "")
        raise UsageError(f"--config: {file}: expected {key} to be {form}, got {value!r}.")
    if several:
        return [str(item) for item in items]
    return ",".join(map(str, items)) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    """A value as TOML, whose strings are JSON's, and numbers Python's."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Path):
        from doubtmap.files.afar import address_of

        value = address_of(str(value))
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
