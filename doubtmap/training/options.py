"""What the recipes are asked, each field with what it means: they become options of `train`.

The recipes themselves (`Spectral`, `Dudes`, `NFlowJS`) check what is asked, and do it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from doubtmap.option import Option, read_names, read_path, read_sides


@dataclass(frozen=True)
class SpectralOptions:
    """Of the recipe `Spectral`."""

    coefficient: Annotated[float, Option("The largest norm.")] = 3.0
    batch_norm: Annotated[bool, Option("Bound batch norms too.", "--normalize-batch-norm")] = False


@dataclass(frozen=True)
class DudesOptions:
    """Of the recipe `Dudes`."""

    teachers: Annotated[
        tuple[str, ...],
        Option("Networks of the same classes, separated by commas.", read=read_names),
    ] = ()
    target: Annotated[
        str, Option("What is learnt of them: spread, mutual_information, entropy or mean.")
    ] = "spread"
    cache: Annotated[
        str | Path | None,
        Option("Folder for what they say of whole images, asked once.", read=read_path),
    ] = None
    freeze: Annotated[bool, Option("Train the second head alone.")] = False
    mask_void: Annotated[bool, Option("Do not learn on pixels without label.")] = False
    hidden: Annotated[int, Option("Channels of a hidden layer of the second head.")] = 0
    layers: Annotated[
        tuple[str, ...],
        Option("Inner layers that the hidden layer hears too.", read=read_names),
    ] = ()
    folds: Annotated[
        int, Option("Groups of teachers, each trained --without-fold of its part.")
    ] = 1


@dataclass(frozen=True)
class NFlowJSOptions:
    """Of the recipe `NFlowJS`."""

    negatives: Annotated[
        str, Option("flow, real:FOLDER, noise, shuffled or none; several are mixed.")
    ] = "flow"
    divergence: Annotated[str, Option("From uniform: jsd, kl or reverse-kl.")] = "jsd"
    weight: Annotated[float, Option("What the divergence weighs.", "--divergence-weight")] = 1.0
    flow: Annotated[
        str | Path | None, Option("File of a trained flow. Default: train one.", read=read_path)
    ] = None
    freeze_flow: Annotated[bool, Option("Leave the flow as it is.")] = False
    patch: Annotated[
        tuple[int, int] | None,
        Option("MIN-MAX sides of patches, such as 16-80.", read=read_sides),
    ] = None
    flow_steps: Annotated[int, Option("Steps of the flow's own training.")] = 2000
    flow_rate: Annotated[float, Option("The flow's learning rate beside the network.")] = 1e-4
    flow_weight: Annotated[
        float | None,
        Option("What the divergence weighs for the flow. Default: the same."),
    ] = None
