"""A network with its doubts in one file, held to the library before it is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from doubtmap.calibration import Calibrated, Calibrator
from doubtmap.decisions import Threshold
from doubtmap.deploy.doubts import Doubts, check_native, described, written
from doubtmap.deploy.formats import ENDS, IMAGES, OPSET, OPSETS, WRITERS
from doubtmap.deploy.graph import CLASSES, FLAGS, LOGITS, Graph
from doubtmap.deploy.parity import SIZES, Parity, batches, compared
from doubtmap.deploy.suited import check_sizes, network_of, placement, scored
from doubtmap.errors import ModelError, UsageError
from doubtmap.files import write_atomically
from doubtmap.files.resuming import sha256_of
from doubtmap.models import NetworkSegmenter
from doubtmap.prediction import Score, Segmenter, digest_of
from doubtmap.scoring import prepared, probe_logits, same_network
from doubtmap.version import __version__

Format = Literal["onnx", "pt2", "openvino", "triton"]
Input = Literal["float", "uint8"]


@dataclass(frozen=True)
class Form:
    """What is written.

    Args:
        format: `onnx`; `pt2` for `torch.export.load`; `openvino`, an `.xml` and a `.bin`;
            `triton`, a folder of a model repository.
        input: type of the images: float in [0, 1], or uint8.
        size: `(H, W)`, the only size that the file takes; None: any.
        doubts: whether doubts are numbers or bytes.
        logits: whether the native logits are an output, too.
        native: whether they are the only one; `doubtmap.runtime` computes the rest.
        opset: of ONNX, 12 to 20, where another runtime wants an older or newer one.

    Raises:
        UsageError: for what there is not.
    """

    format: Format = "onnx"
    input: Input = "float"
    size: tuple[int, int] | None = None
    doubts: Doubts = "float"
    logits: bool = False
    native: bool = False
    opset: int = OPSET

    def __post_init__(self) -> None:
        if self.format not in WRITERS:
            raise UsageError(f"--format: expected one of {', '.join(WRITERS)}, got {self.format}.")
        if self.input not in ("float", "uint8"):
            raise UsageError(f"--input: expected float or uint8, got {self.input}.")
        if self.opset not in OPSETS:
            raise UsageError(
                f"--opset: expected {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}. Leave it out "
                f"for {OPSET}, which ONNX Runtime 1.14, OpenVINO 2023 and TensorRT 10 read."
            )
        if self.format == "pt2" and self.opset != OPSET:
            raise UsageError(
                "--opset: expected a format made of ONNX, got pt2, which has none. Leave it out."
            )
        if self.native and self.format not in ("onnx", "triton"):
            raise UsageError(
                f"--native: expected --format onnx, which doubtmap.runtime reads, got "
                f"{self.format}. Give --native-logits for native logits in any format."
            )


def export(
    segmenter: Segmenter,
    scores: Mapping[str, Score],
    out: str | Path,
    form: Form = Form(),
    *,
    calibrator: Calibrator | None = None,
    threshold: Threshold | None = None,
    about: Mapping[str, Any] | None = None,
) -> Parity:
    """Write a file that takes images and gives classes and doubts, and `parity.json` beside it.

    Args:
        segmenter: one PyTorch network.
        scores: by name; each becomes an output of that name.
        out: the file, or the folder of Triton.
        form: what is written.
        calibrator: applied before scoring.
        threshold: of one of the scores; pixels above it are flagged in an output `flags`.
        about: what else the file shall say about itself; JSON values.

    Returns:
        How far the file is from the library.

    Raises:
        UsageError: for what cannot be in one graph, with what to do.
        ModelError: where the network cannot be written down, or the file says something else than
            the library; for a threshold or a calibrator of another network.
    """
    out = Path(out)
    check_end(out, form.format)
    _check_names(scores)
    network = network_of(prepared(network_of(segmenter), scores))
    if form.size is None:
        check_sizes(network, scores, traced=form.format != "pt2")
    if form.native:
        check_native(scores)
    sizes = SIZES if form.size is None else (form.size,)
    if calibrator is not None:
        _check_calibrator(network, calibrator)
    graph = Graph(network, scores, calibrator, form.logits, form.native).eval()
    if threshold is not None:
        whole = network if calibrator is None else Calibrated(network, calibrator)
        threshold.check_network(whole)
    seen = next(batches(sizes[1:2] or sizes, bytes=False))
    prediction = graph.predicted(seen)
    scored(prediction, scores)
    classes = prediction.native_logits.shape[1]
    graph.doubts = written(scores, classes, form.doubts, threshold)
    known = _about(network, form) | dict(about or {}) | {"count": classes}
    known["name"] = out.resolve().name if form.format == "triton" else out.stem
    known["scores"] = {name: {"digest": digest_of(score)} for name, score in scores.items()}
    known["doubts"] = described(graph.doubts)
    known["native"] = placement(network, prediction) if form.native else None
    known["outputs"] = list(graph.outputs(prediction))
    images = torch.cat([seen, seen.flip(-1)])
    images = (images * 255).round().byte() if form.input == "uint8" else images
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network")
        run, files = WRITERS[form.format](graph, images, form.size is None, path, known)
        advice = _advice(form.size, calibrator)
        parity = compared(run, graph, sizes, bytes=form.input == "uint8", advice=advice)
        places = [_place(out, form, end) for end in files]
        for place, file in zip(places, files.values()):
            write_atomically(place, file.read_bytes())
    report = {"file": places[-1].name, "sha256": sha256_of(places[-1]), **parity.described()}
    beside = out if form.format == "triton" else out.parent
    write_atomically(beside / "parity.json", json.dumps(report, indent=1).encode())
    return parity


def check_end(out: Path, format: Format) -> None:
    """Refuse a file whose name says that it is another.

    Raises:
        UsageError: with the end that the format has.
    """
    end = ENDS[format]
    if end and out.suffix != end:
        raise UsageError(
            f"--out: expected a file that ends in {end}, as those of --format {format} do, got "
            f"{out.name}. Name it {out.with_suffix(end).name}, or give another --format."
        )


def _check_names(scores: Mapping[str, Score]) -> None:
    """Refuse scores that are called as something else in the file.

    Raises:
        UsageError: with the name.
    """
    for name in (IMAGES, CLASSES, FLAGS, LOGITS):
        if name in scores:
            raise UsageError(
                f"export: expected scores with names of their own, got {name}, which is another "
                f"tensor of the file. Call it something else."
            )


def _check_calibrator(network: NetworkSegmenter, calibrator: Calibrator) -> None:
    """Refuse one of another network.

    Raises:
        UsageError: where its classes are others.
        ModelError: where its network said something else of a probe image.
    """
    Calibrated(network, calibrator)
    if calibrator.origin.fingerprint and not same_network(probe_logits(network), calibrator):
        raise ModelError(
            "calibrator: expected the network that it was fitted for, with the same --input-size, "
            "but this one's logits differ. Fit it anew for this network with doubtmap calibrate."
        )


def _place(out: Path, form: Form, end: str) -> Path:
    """Where a part of what was written goes."""
    if form.format == "triton":
        return out / end
    return out.with_suffix(end) if end else out


def _advice(size: tuple[int, int] | None, calibrator: Calibrator | None) -> str:
    """What to do where the file says something else than the library."""
    sized = "Give --size HxW, for a file of one size, or leave" if size is None else "Leave"
    steps = (
        " A calibrator with steps can make a step of a difference in the last digit: take another."
    )
    return f"{sized} that output out.{steps if calibrator is not None else ''}"


def _about(network: NetworkSegmenter, form: Form) -> dict[str, Any]:
    """What the file says about itself."""
    told = network.description
    kept = ("source", "sha256", "mean", "std", "normalisation", "channels", "input_size")
    most = 255 if form.input == "uint8" else 1
    return {
        "version": __version__,
        "torch": torch.__version__,
        **({} if form.format == "pt2" else {"opset": form.opset}),
        "input": {"name": IMAGES, "type": form.input, "range": [0, most]},
        "size": list(form.size) if form.size else None,
        "network": {name: told.get(name) for name in kept},
        "classes": list(network.class_names),
    }
