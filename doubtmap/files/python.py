"""What a user's Python file holds: `python:FILE.py:NAME` or `python:FILE.py:NAME(key=value,...)`.

The file is run, as `python FILE.py` would: open only what you trust.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from doubtmap.errors import ModelError, UsageError, first_line
from doubtmap.files.resuming import hash_of_files

START = "python:"


@dataclass(frozen=True)
class Named:
    """Something in a Python file, by its name.

    Args:
        text: `FILE.py:NAME` or `FILE.py:NAME(key=value,...)`.
        what: it shall be, for sentences, such as `a network`.
        file, name, arguments: the parts of the text.

    Raises:
        UsageError: for another form, or a file that is not there.
    """

    text: str
    what: str
    file: Path = field(init=False)
    name: str = field(init=False)
    arguments: Mapping[str, object] = field(init=False)

    def __post_init__(self) -> None:
        called, _, given = self.text.partition("(")
        file, _, name = called.rpartition(":")
        if not file or not name:
            raise UsageError(f"{self}: expected python:FILE.py:FUNCTION. Add the function's name.")
        if not Path(file).is_file():
            raise UsageError(f"{self}: expected a file {file}, found none. Check the path.")
        for key, value in (
            ("file", Path(file)),
            ("name", name),
            ("arguments", _arguments(str(self), given)),
        ):
            object.__setattr__(self, key, value)

    def __str__(self) -> str:
        return START + self.text

    @property
    def code(self) -> str:
        """A hash of the file and of what it imports of the files beside it."""
        return code_of(self.file)

    def found(self) -> object:
        """What has the name; the arguments are not looked at.

        Raises:
            UsageError: where it is not there or cannot be called.
            ModelError: where the file raises.
        """
        with neighbours_importable(self.file), redirect_stdout(sys.stderr):
            module = self._imported()
        found: object = getattr(module, self.name, None)
        if not callable(found):
            known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise UsageError(
                f"{self}: expected a function {self.name} in {self.file}, found "
                f"{', '.join(known) or 'no function'}. Check the name."
            )
        return found

    def called(self) -> object:
        """What it returns, called with the arguments.

        Raises:
            UsageError: as `found`.
            ModelError: where the file or the call raises.
        """
        function = self.found()
        assert callable(function)
        with neighbours_importable(self.file), redirect_stdout(sys.stderr):
            try:
                return function(**self.arguments)
            except Exception as error:
                raise ModelError(self.raised("the function", error)) from error

    def raised(self, what: str, error: Exception) -> str:
        """What to say of an error of the user's own."""
        return (
            f"{self}: expected {self.what}, but {what} raised {type(error).__name__}: "
            f"{first_line(error)}. Run it by itself to see where."
        )

    def _imported(self) -> ModuleType:
        name = f"doubtmap_user_{self.file.stem}"
        spec = importlib.util.spec_from_file_location(name, self.file)
        if spec is None or spec.loader is None:
            raise UsageError(
                f"{self}: expected a Python file, got {self.file}. Give it the suffix .py."
            )
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickle look their module up by name
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ModelError(self.raised("the file", error)) from error
        return module


def code_of(path: Path) -> str:
    """A hash of a Python file and of what it imports of the files beside it, directly or not."""
    start = path.resolve()
    seen, todo = {start}, [start]
    while todo:
        new = {file for file in _imports(todo.pop(), start.parent) if file not in seen}
        seen |= new
        todo += new
    return hash_of_files(sorted(seen))


def _imports(path: Path, folder: Path) -> Iterator[Path]:
    """The files below a folder that a Python file names in its imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # whoever runs it hears of it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [(folder, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = path.parents[node.level - 1] if node.level else folder
            inner = [f"{node.module}.{alias.name}" for alias in node.names if node.module]
            named = [(start, name) for name in (node.module, *inner) if name]
            named += [(start, alias.name) for alias in node.names if not node.module]
        else:
            continue
        for start, name in named:
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                place = start.joinpath(*parts[:depth])
                files = (place.with_suffix(".py"), place / "__init__.py")
                yield from (file for file in files if file.is_file())


def _arguments(who: str, text: str) -> dict[str, object]:
    """Keyword arguments out of `weights=FILE,classes=3)`."""
    found: dict[str, object] = {}
    for part in filter(None, text.removesuffix(")").split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key.isidentifier() or not text.endswith(")"):
            raise UsageError(
                f"{who}: expected arguments as in FUNCTION(weights=FILE), got {part!r}."
            )
        found[key] = _value(value)
    return found


def _value(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d*\.\d+(e-?\d+)?", text) else text


@contextmanager
def neighbours_importable(path: Path) -> Iterator[None]:
    """Let the file import what lies next to it, as it could when run by itself."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
