"""A network with its doubts in one file, held to the library before it is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from doubtmap.deploy.formats import IMAGES, OPSET, write_onnx, write_pt2
from doubtmap.deploy.graph import Graph
from doubtmap.deploy.parity import SIZES, Parity, batches, compared
from doubtmap.deploy.suited import Calibrate, check_scores, check_sizes, network_of, scored
from doubtmap.errors import UsageError
from doubtmap.files import write_atomically
from doubtmap.models import NetworkSegmenter
from doubtmap.models.backend import sha256_of
from doubtmap.prediction import Score, Segmenter, digest_of
from doubtmap.scoring import prepared
from doubtmap.version import __version__

Format = Literal["onnx", "pt2"]
Input = Literal["float", "uint8"]
WRITERS = {"onnx": write_onnx, "pt2": write_pt2}


def export(
    segmenter: Segmenter,
    scores: Mapping[str, Score],
    out: str | Path,
    *,
    calibrator: Calibrate | None = None,
    format: Format = "onnx",
    input: Input = "float",
    size: tuple[int, int] | None = None,
    logits: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Parity:
    """Write a file that takes images and gives classes and doubts, and `parity.json` beside it.

    Args:
        segmenter: one PyTorch network.
        scores: by name; each becomes an output of that name.
        out: the file.
        calibrator: applied before scoring.
        format: `onnx`, or `pt2` for `torch.export.load`.
        input: type of the images: float in [0, 1], or uint8.
        size: `(H, W)`, the only size that the file takes; None: any.
        logits: whether the native logits are an output, too.
        about: what else the file shall say about itself; JSON values.

    Returns:
        How far the file is from the library.

    Raises:
        UsageError: for what cannot be in one graph, with what to do.
        ModelError: where the network cannot be written down, or the file says something else than
            the library.
    """
    _check(format, input)
    check_scores(scores)
    network = network_of(prepared(network_of(segmenter), scores))
    if size is None:
        check_sizes(network, scores)
    sizes = SIZES if size is None else (size,)
    graph = Graph(network, scores, calibrator, logits).eval()
    seen = next(batches(sizes[1:2] or sizes, bytes=False))
    prediction = graph.predicted(seen)
    scored(prediction, scores)
    known = _about(network, format, input, size) | dict(about or {})
    known["scores"] = {name: {"digest": digest_of(score)} for name, score in scores.items()}
    known["outputs"] = list(graph.said(prediction))
    known["count"] = prediction.native_logits.shape[1]
    images = torch.cat([seen, seen.flip(-1)])
    images = (images * 255).round().byte() if input == "uint8" else images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"network.{format}")
        run = WRITERS[format](graph, images, size is None, path, known)
        advice = _advice(size, calibrator)
        parity = compared(run, graph, sizes, bytes=input == "uint8", advice=advice)
        write_atomically(out, path.read_bytes())
    report = {"file": Path(out).name, "sha256": sha256_of(Path(out)), **parity.described()}
    write_atomically(Path(out).parent / "parity.json", json.dumps(report, indent=1).encode())
    return parity


def _check(format: str, input: str) -> None:
    if format not in WRITERS:
        raise UsageError(f"--format: expected one of {', '.join(WRITERS)}, got {format}.")
    if input not in ("float", "uint8"):
        raise UsageError(f"--input: expected float or uint8, got {input}.")


def _advice(size: tuple[int, int] | None, calibrator: Calibrate | None) -> str:
    """What to do where the file says something else than the library."""
    sized = "Give --size HxW, for a file of one size, or leave" if size is None else "Leave"
    steps = (
        " A calibrator with steps can make a step of a difference in the last digit: take another."
    )
    return f"{sized} that output out.{steps if calibrator is not None else ''}"


def _about(
    network: NetworkSegmenter, format: Format, input: Input, size: tuple[int, int] | None
) -> dict[str, Any]:
    """What the file says about itself."""
    told = network.description
    kept = ("source", "sha256", "mean", "std", "normalisation", "channels", "input_size")
    return {
        "version": __version__,
        "torch": torch.__version__,
        **({"opset": OPSET} if format == "onnx" else {}),
        "input": {"name": IMAGES, "type": input, "range": [0, 255 if input == "uint8" else 1]},
        "size": list(size) if size else None,
        "network": {name: told.get(name) for name in kept},
        "classes": list(network.class_names),
    }
