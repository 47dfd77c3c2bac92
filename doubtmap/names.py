"""Class names that must tell classes apart, and what Python and the command line call a thing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def plain_name(name: str) -> str:
    """A class name as it is compared: without case, `_`, `-` and space being one."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def twins(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two names that are the same, where there are any."""
    spelled: dict[str, str] = {}
    for name in names:
        if plain_name(name) in spelled:
            return spelled[plain_name(name)], name
        spelled[plain_name(name)] = name
    return None


def made_distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that came before numbered: road, road becomes road, road (2).

    Example:
        >>> made_distinct(["road", "Road", "sky"])
        ('road', 'Road (2)', 'sky')
    """
    taken = {plain_name(name) for name in names}
    seen: set[str] = set()
    distinct = []
    for name in names:
        number, fresh = 2, name
        while plain_name(fresh) in seen or (fresh != name and plain_name(fresh) in taken):
            number, fresh = number + 1, f"{name} ({number})"
        seen.add(plain_name(fresh))
        distinct.append(fresh)
    return tuple(distinct)


ADDRESSES: dict[str, str] = {}
"""Places on this machine, and the addresses of what lies elsewhere and was fetched to them, or is
written there first."""


def as_addressed(text: str) -> str:
    """A text that names places of this machine, with the addresses that the user knows instead."""
    for place, address in ADDRESSES.items():
        text = text.replace(place, address)
    return text


SIZES = ("--input-size", "--crop")
"""Options whose value is written HxW."""


def in_options(message: str, flags: Mapping[str, str]) -> str:
    """A message that names Python arguments, with the command line's options instead.

    Args:
        message: a sentence of an error.
        flags: the option of each argument.

    Example:
        >>> in_options("Pass input_size=(512, 1024).", {"input_size": "--input-size"})
        'Pass --input-size 512x1024.'
    """
    for name, flag in flags.items():
        alone = rf"(?<![\w./-]){name}(?![\w/-]|\.\w)"
        message = re.sub(rf"{alone}(=| )\((\w+), (\w+)\)", rf"{flag} \2x\3", message)
        message = re.sub(rf"{alone}= ?\({flag}\)", flag, message)
        message = re.sub(rf"{alone}= ?(?!=)", f"{flag} ", message)
        message = re.sub(rf"expected {alone}(?= to be | as )", f"expected {flag}", message)
        if "_" in name:
            message = re.sub(alone, flag, message)
        if flag in SIZES and flag in message:
            message = re.sub(r"as \(height, width\)( in pixels)?", r"as HxW\1", message)
            message = re.sub(r"\((\d+), (\d+)\)", r"\1x\2", message)
    return message
