"""How things say themselves: one line at a prompt, a small table in a notebook.

A class that takes part says its facts; nothing of tensors is printed, and nothing is computed for
it. Texts come from users and their data, and are escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from markupsafe import Markup

MOST = 60
"""Letters of a fact on the line."""


def later(module: str, name: str) -> Callable[..., Any]:
    """A function of a room above, for a method that is there for the hand of who explores.

    Args:
        module: by its full name.
        name: of the function.
    """
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


class Shown:
    """Says itself by `_facts`, whether it is a dataclass or not."""

    __slots__ = ()

    def __init_subclass__(cls, **given: Any) -> None:
        """Keep `dataclass` from writing a representation of all fields."""
        super().__init_subclass__(**given)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]

    def _facts(self) -> Mapping[str, object]:
        """What there is to say, by what it is of."""
        return {}

    def __repr__(self) -> str:
        """One line."""
        facts = (f"{name} {_short(str(said))}" for name, said in self._facts().items())
        return f"{type(self).__name__}({', '.join(facts)})"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        row = Markup('<tr><th style="text-align:left">{}</th><td>{}</td></tr>')
        rows = Markup("").join(row.format(name, str(said)) for name, said in self._facts().items())
        return Markup("<table><caption>{}</caption>{}</table>").format(type(self).__name__, rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST else f"{line[: MOST - 3]}..."


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names, and how many more there are.

    Example:
        >>> listed(["sky", "road", "car"], most=2)
        '3 (sky, road ...)'
    """
    more = " ..." if len(names) > most else ""
    return f"{len(names)} ({', '.join(names[:most])}{more})" if names else "0"


class ShownSegmenter(Shown):
    """A network says where it comes from and which classes it knows."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, object]:
        described: Mapping[str, object] = self.description  # type: ignore[attr-defined]
        told = next((described[k] for k in ("source", "path", "kind") if described.get(k)), "")
        return {
            "of": str(told).rstrip("/").rsplit("/", 1)[-1],
            "classes": listed(self.class_names),  # type: ignore[attr-defined]
        }


class ShownDataset(Shown):
    """A data set says its name, its size and its classes, and shows samples."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, object]:
        return {
            "name": self.name,  # type: ignore[attr-defined]
            "images": len(self),  # type: ignore[arg-type]
            "classes": listed(self.class_names),  # type: ignore[attr-defined]
        }

    def show(self, count: int = 3, first: int = 0) -> Any:
        """Pictures of samples beside their labels, for notebooks.

        Args:
            count: how many.
            first: index of the first.

        Returns:
            `doubtmap.notebooks.Pictures`; its `save` writes a page.
        """
        return later("doubtmap.notebooks", "samples_of")(self, count, first)


class ShownFit(Shown):
    """Whatever was fitted says on what, and to which network."""

    __slots__ = ()

    def _facts(self) -> Mapping[str, object]:
        origin = getattr(self, "origin", None)
        if origin is None:
            return {}
        of = origin.network.get("source") or origin.network.get("path") or ""
        facts = {
            "fitted on": origin.data or "nothing that it names",
            "images": len(origin.images),
            "network": str(of).rstrip("/").rsplit("/", 1)[-1],
            "classes": listed(origin.class_names),
            "version": origin.version,
        }
        return {name: said for name, said in facts.items() if said not in ("", 0, "0")}
