"""The errors that doubtmap raises on purpose.

```
DoubtmapError
├── UsageError   what was asked for makes no sense or is misspelt   (command line: exit 2)
├── DataError    an image, a label or a result file is not usable   (command line: exit 1)
├── ModelError   a network cannot be loaded or cannot do what a score needs (exit 1)
└── Stopped      the user stopped the command                        (exit 1)
```

Each message is one sentence or two: what was expected, what came, and what to do next.
"""


class DoubtmapError(Exception):
    """Base of all errors that doubtmap raises on purpose."""


class UsageError(DoubtmapError):
    """The request itself is wrong: an unknown name, a bad option, a shape that cannot be."""


class DataError(DoubtmapError):
    """An image, a label or a file of results cannot be used."""


class ModelError(DoubtmapError):
    """A network cannot be loaded, or lacks what was asked of it."""


class Stopped(DoubtmapError):
    """A signal has stopped a command; what it had done is kept."""
