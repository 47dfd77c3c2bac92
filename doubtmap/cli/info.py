"""`doubtmap info`: versions, devices and what is installed."""

from __future__ import annotations

import typer

from doubtmap.cli.app import STUDY
from doubtmap.cli.commands import command
from doubtmap.version import __version__

EXAMPLE = """
doubtmap info
doubtmap --version
python -m doubtmap info
"""


@command("info", EXAMPLE, group=STUDY)
def info() -> None:
    """Versions, devices and what is installed."""
    import torch

    from doubtmap.kernels import available

    typer.echo(
        f"doubtmap {__version__}\ntorch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"devices: {', '.join(['cpu', *devices])}")
    for device in ("cpu", "cuda"):
        known = ", ".join(f"{key}: {value}" for key, value in available(device).items())
        typer.echo(f"on {device}, {known}")
