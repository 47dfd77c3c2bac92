"""`doubtmap check`: what a data set holds, before anything is measured on it."""

from __future__ import annotations

from typing import Annotated

import typer

from doubtmap.cli.commands import as_command


def check_command(
    data: Annotated[str, typer.Argument(help="LAYOUT:PATH[:SPLIT], or a folder.")],
    model: Annotated[
        str, typer.Argument(help="A model, or its class names, comma-separated.")
    ] = "",
) -> None:
    """What a data set holds, what is suspicious in it, and what a model's classes match."""
    from doubtmap.datasets.checking import check

    typer.echo(check(data, _classes(model) if model else None))


def _classes(model: str) -> list[str]:
    """Class names as they stand, or those of the model that the text names."""
    names = [name.strip() for name in model.split(",")]
    if len(names) > 1 and not any(mark in model for mark in ":/."):
        return [name for name in names if name]
    from doubtmap.models import load

    return list(load(model).class_names)


EXAMPLE = """
doubtmap check folder:PATH
doubtmap check camvid:PATH:test NETWORK
doubtmap check cityscapes:PATH road,sidewalk,car
"""
command = as_command("check", check_command, EXAMPLE)
