"""`doubtmap info`: versions, devices and what is installed."""

from __future__ import annotations

import torch
import typer

from doubtmap.cli.app import app
from doubtmap.kernels import available
from doubtmap.version import __version__


@app.command()
def info() -> None:
    """Versions, devices and what is installed."""
    typer.echo(
        f"doubtmap {__version__}\ntorch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    typer.echo(f"devices: {', '.join(['cpu', *devices])}")
    for device in ("cpu", "cuda"):
        known = ", ".join(f"{key}: {value}" for key, value in available(device).items())
        typer.echo(f"on {device}, {known}")
