"""`doubtmap info`: versions, devices and what is installed."""

from __future__ import annotations

import typer

from doubtmap.cli.commands import as_command
from doubtmap.version import __version__


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


EXAMPLE = """
doubtmap info
doubtmap --version
python -m doubtmap info
"""
command = as_command("info", info, EXAMPLE)
