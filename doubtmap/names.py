"""Class names that must tell classes apart."""

from __future__ import annotations

import re
from collections.abc import Sequence


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
