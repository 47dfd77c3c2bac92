"""What all tests share: one thread, since small tensors are slower on two."""

import sys
from pathlib import Path

import pytest
import torch

from doubtmap.cli import main

SHARED = Path(__file__).parents[1].parent / "shared"

torch.set_num_threads(1)


@pytest.fixture
def shared():
    """The folder of real images and networks, or a skip."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real images and networks (../shared) are not here")
    return SHARED


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line; returns exit code, stdout and stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["doubtmap", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = exit.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call
