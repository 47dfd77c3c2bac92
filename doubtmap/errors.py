"""The errors that doubtmap raises on purpose.

```
DoubtmapError
├── UsageError   what was asked for makes no sense or is misspelt   (command line: exit 2)
├── DataError    an image, a label or a result file is not usable   (command line: exit 1)
│   └── NotFinite    a network's answer to an image
└── ModelError   a network cannot be loaded or cannot do what a score needs (exit 1)
Stopped          the user stopped the command                        (exit 1)
```

Each message is one sentence or two: what was expected, what came, and what to do next.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self


class DoubtmapError(Exception):
    """Base of all errors that doubtmap raises on purpose."""


class UsageError(DoubtmapError):
    """The request itself is wrong: an unknown name, a bad option, a shape that cannot be."""


class DataError(DoubtmapError):
    """An image, a label or a file of results cannot be used."""


class NotFinite(DataError):
    """A network's answer to some images is infinite or no number.

    Args:
        said: the message.
        images: their places among those that it was given together.
    """

    def __init__(self, said: str, images: Sequence[int] = ()) -> None:
        super().__init__(said)
        self.images = tuple(images)

    @classmethod
    def of(cls, said: str, values: Any) -> Self:
        """The error for values `(B, ...)`, a tensor, of which some are not finite."""
        bad = (~values.isfinite()).flatten(1).any(1)
        return cls(said, bad.nonzero()[:, 0].tolist())


class ModelError(DoubtmapError):
    """A network cannot be loaded, or lacks what was asked of it."""


class Stopped(BaseException):  # so that nothing takes it for an error and goes on
    """A signal has stopped a command; what it had done is kept."""


_NO_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
    "failed to map segment",
)
"""What PyTorch, ONNX Runtime, Python and the loader of libraries say then, in small letters."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has ended."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    said = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError"  # PyTorch's, which need not say it
    return (
        named
        or isinstance(error, MemoryError)
        or (
            isinstance(error, RuntimeError | ImportError)
            and any(words in said for words in _NO_MEMORY)
        )
    )


@contextmanager
def within_memory(size: Sequence[int], name: str = "") -> Iterator[None]:
    """Say so where memory ends while the block lasts, which works on an image of this size.

    Args:
        size: height and width of the image, in pixels.
        name: of the image, where the caller does not say it.

    Raises:
        DataError: where memory ends.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = size
        where = f"{name}: " if name else ""
        raise DataError(
            f"{where}out of memory on an image of {width} x {height} pixels. Let the network see a "
            f"smaller copy with input_size=({height // 2}, {width // 2}), or cut the image into "
            "tiles first."
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of somebody else's error, short enough for a sentence of ours.

    Of weights that do not fit, what does not.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text.startswith("Error(s) in loading state_dict"):
        text = _unfitting(text, lines[1:])
    return (text if len(text) <= 200 else text[:197] + "...").rstrip(".")


def _unfitting(what: str, lines: list[str]) -> str:
    """What of `load_state_dict` does not fit, and what is to be done."""
    names = {
        kind: re.findall(r'"([^"]+)"', line)
        for line in lines
        for kind in ("Missing", "Unexpected")
        if line.startswith(kind)
    }
    others = names.get("Unexpected", [])
    if others and all(name.startswith("module.") for name in others):
        return (
            f"the weights' names start with module., as {others[0]}: load "
            f"{{name.removeprefix('module.'): x for name, x in weights.items()}}"
        )
    if inner := [name for name in others if name in ("state_dict", "model", "model_state_dict")]:
        return f"the weights lie under {inner[0]!r}: load weights[{inner[0]!r}]"
    sizes = re.search(r"size mismatch for (\S+):.*?\[(.*?)\].*?\[(.*?)\]", " ".join(lines))
    if sizes:
        return f"{sizes[1]} has the shape ({sizes[2]}), the network's is ({sizes[3]})"
    missing = names.get("Missing", [])
    told = [
        f"{len(n)} {kind}, as {n[0]}"
        for kind, n in (("missing", missing), ("unknown", others))
        if n
    ]
    return f"weights of another network: {', '.join(told) or what}"
