"""`python -m doubtmap` is the command `doubtmap`."""

from doubtmap.cli import main

if __name__ == "__main__":
    main()
