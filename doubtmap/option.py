"""What a field of settings says of itself where the command line makes an option of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doubtmap.errors import UsageError


@dataclass(frozen=True)
class Option:
    """Stands in `Annotated[...]` of a field: it is an option of commands, too.

    Args:
        help: what `--help` says of it.
        flag: the option's name; default: the field's, with hyphens.
        read: from the text on the line to the field's value, called with the flag and the text;
            default: none, the option has the field's type.
        group: of `--help`; default: that of all fields.
        text: the default as text, where there is `read` and a default other than None.
    """

    help: str
    flag: str = ""
    read: Callable[[str, str], Any] | None = None
    group: str = ""
    text: str | None = None


def read_names(_: str, text: str) -> tuple[str, ...]:
    """Names separated by commas.

    Example:
        >>> read_names("--layers", "stem, head")
        ('stem', 'head')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_path(_: str, text: str) -> Path:
    """A file or folder."""
    return Path(text)


def read_size(flag: str, text: str) -> tuple[int, int]:
    """`HxW` in pixels.

    Raises:
        UsageError: for anything else.

    Example:
        >>> read_size("--crop", "360x480")
        (360, 480)
    """
    return _two(flag, text.lower(), "x", "HxW such as 360x480")


def read_sides(flag: str, text: str) -> tuple[int, int]:
    """`MIN-MAX` in pixels.

    Raises:
        UsageError: for anything else.

    Example:
        >>> read_sides("--patch", "16-80")
        (16, 80)
    """
    return _two(flag, text, "-", "MIN-MAX such as 16-80")


def _two(flag: str, text: str, between: str, form: str) -> tuple[int, int]:
    first, _, second = text.partition(between)
    if not (first.isdecimal() and second.isdecimal()):
        raise UsageError(f"{flag}: expected {form}, got {text}.")
    return int(first), int(second)
