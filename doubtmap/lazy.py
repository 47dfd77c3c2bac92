"""Names of a room that are imported when they are first asked for, so that `import` is quick.

A room says its names twice: to type checkers under `if TYPE_CHECKING`, and to `lazily` as a table.
`tests/test_lazy.py` holds the two together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


def lazily(
    room: str, homes: Mapping[str, Sequence[str]], rooms: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a room (PEP 562).

    Args:
        room: its `__name__`.
        homes: for each module, by its full name, the names that the room takes from it. No module
            of the room has the name of something that the room gives: importing it would hide that.
        rooms: modules in the room that are names of it themselves.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name in rooms:
            return import_module(f"{room}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {room!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(home_of[name]), name)
        setattr(sys.modules[room], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[room]), *home_of, *rooms})

    return find, names


class kept(Generic[Value]):
    """As `functools.cached_property`, without the lock that `torch.compile` cannot follow."""

    def __init__(self, made: Callable[[Any], Value]) -> None:
        self.made, self.__doc__ = made, made.__doc__

    def __get__(self, owner: Any, of: type | None = None) -> Value:
        """The value, made at the first call; then it lies in the object and is found there."""
        value = self.made(owner)
        object.__setattr__(owner, self.made.__name__, value)  # owners may be frozen
        return value
