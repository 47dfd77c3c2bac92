"""Where header, library and sources lie, for compilers: `python -m doubtmap.runtime --include`."""

from __future__ import annotations

import argparse
import sys

from doubtmap.errors import DoubtmapError
from doubtmap.runtime.pixels import HERE, SOURCES, library_file


def main() -> None:
    """Print what is asked for, one line."""
    parser = argparse.ArgumentParser("python -m doubtmap.runtime", description=__doc__)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--include", action="store_true", help="the folder of doubtmap_pixels.h")
    asked.add_argument("--library", action="store_true", help="the compiled library")
    asked.add_argument("--sources", action="store_true", help="C files, to compile into a program")
    given = parser.parse_args()
    try:
        if given.include:
            print(HERE)
        elif given.library:
            print(library_file())
        else:
            print(*(HERE / name for name in SOURCES))
    except DoubtmapError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
