"""A file of `doubtmap export` behind one call: NumPy images in, classes and doubts out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from doubtmap.errors import DataError, ModelError, UsageError
from doubtmap.runtime.pixels import Array, Doubt, doubts_of

CLASSES, LOGITS, FLAGS = "classes", "native_logits", "flags"
"""Names of outputs; each doubt is called as its score."""
ROUNDING = 1e-3
"""How far outside [0, 1] an image may lie, as resampling leaves it."""


def load(path: str | Path, *, threads: int = 0, providers: list[str] | None = None) -> Network:
    """Open an ONNX file that `doubtmap export` wrote.

    Args:
        path: of the file.
        threads: of ONNX Runtime and of the pass in C; 0: as many as this process may use.
        providers: of ONNX Runtime, in order; default: its CPU.

    Raises:
        ModelError: without onnxruntime, or for a file that it cannot open or that is not ours.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            'runtime: expected onnxruntime, found none. Install with pip install "doubtmap[onnx]".'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads = threads or _usable()
    options.log_severity_level = 4
    # Threads that spin after the graph has ended take the processors from the pass in C.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=providers or ["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own errors share no base class
        raise ModelError(
            f"{path}: expected an ONNX file that onnxruntime can run, but it said "
            f"{first_line(error)}. Export it again with doubtmap export."
        ) from error
    said = session.get_modelmeta().custom_metadata_map.get("doubtmap")
    if said is None:
        raise ModelError(
            f"{path}: expected a file of doubtmap export, got one that says nothing of doubtmap. "
            f"Make one with: doubtmap export MODEL --out FILE."
        )
    return Network(session, json.loads(said), threads)


def first_line(error: Exception) -> str:
    """What onnxruntime says, without its tables and the dot at its end."""
    return str(error).strip().partition("\n")[0].strip().rstrip(".")


def _usable() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """An opened file: `found = network(images)`.

    Args:
        session: of ONNX Runtime.
        about: what the file says about itself.
        threads: of the pass in C.

    Attributes:
        about: version, network, classes, scores, thresholds, and what else the file says.
    """

    def __init__(self, session: Any, about: Mapping[str, Any], threads: int) -> None:
        self._session, self._threads, self.about = session, threads, about
        self._names = [output.name for output in session.get_outputs()]

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, or empty where the network does not know them."""
        return tuple(self.about["classes"])

    def __call__(self, images: Array) -> dict[str, Array]:
        """Look at images.

        Args:
            images: `(B, 3, H, W)` RGB, uint8 or float in [0, 1]; or as cameras give them,
                `(B, H, W, 3)` or `(H, W, 3)`.

        Returns:
            By name: `classes` `(B, H, W)` uint8, of more than 256 int32 (uint16 by the pass in
            C); each doubt `(B, H, W)`, float32, or uint8 where the
            file was made so (`scale` says what a byte stands for); `flags` uint8, 1 above the
            threshold, where the file has one.

        Raises:
            UsageError: for images of another shape, type or range.
            DataError: for logits that are not finite, or images that the network cannot take.
        """
        given = self._given(images)
        said, native = self._run(given), self.about.get("native")
        return said if native is None else self._finished(said[LOGITS], given.shape[-2:], native)

    def outputs(self, images: Array) -> dict[str, Array]:
        """What the file itself gives, by name: the same, or native logits `(B, C, h, w)` alone."""
        return self._run(self._given(images))

    def _run(self, given: Array) -> dict[str, Array]:
        try:
            return dict(zip(self._names, self._session.run(self._names, {"images": given})))
        except Exception as error:  # onnxruntime's own errors share no base class
            height, width = given.shape[-2:]
            raise DataError(
                f"runtime: expected images that the file can take, got {len(given)} of "
                f"{height}x{width}, of which onnxruntime said {first_line(error)}. Give others."
            ) from error

    def scale(self, name: str) -> tuple[float, float]:
        """What the bytes of a doubt stand for: `low` and `step` of `low + step * byte`.

        Raises:
            UsageError: for an output that is not in bytes.
        """
        found = self.about["doubts"].get(name, {})
        if "step" not in found:
            raise UsageError(
                f"runtime: expected a doubt in bytes, got {name}. Export with --doubts uint8."
            )
        return found["low"], found["step"]

    def _given(self, images: Array) -> Array:
        """Images as the file takes them."""
        images = np.asarray(images)
        images = images[None] if images.ndim == 3 else images
        if images.ndim == 4 and images.shape[1] != 3 and images.shape[-1] == 3:
            images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise UsageError(
                f"runtime: expected images (B, 3, H, W), got {images.shape}. Put RGB on axis 1."
            )
        size = self.about.get("size")
        if size is not None and list(images.shape[-2:]) != size:
            raise UsageError(
                f"runtime: expected images of {size[0]}x{size[1]} pixels, the one size of this "
                f"file, got {images.shape[-2]}x{images.shape[-1]}. Resize them, or export without "
                f"--size."
            )
        bytes = self.about["input"]["type"] == "uint8"
        if images.dtype == np.uint8:
            return np.ascontiguousarray(images if bytes else images.astype(np.float32) / 255)
        if not np.issubdtype(images.dtype, np.floating):
            raise UsageError(
                f"runtime: expected uint8 images or float ones in [0, 1], got {images.dtype}. "
                f"Convert with images.astype(numpy.uint8)."
            )
        low, high = images.min(), images.max()
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # nor NaN
            raise UsageError(
                f"runtime: expected float images in [0, 1], got values from {low:.4g} to "
                f"{high:.4g}. Pass RGB before normalisation, or uint8 for 0 to 255."
            )
        if bytes:
            return np.ascontiguousarray((images * 255).round().clip(0, 255).astype(np.uint8))
        return np.ascontiguousarray(images, np.float32)

    def _finished(
        self, logits: Array, size: tuple[int, int], native: Mapping[str, Any]
    ) -> dict[str, Array]:
        """What the pass in C makes of native logits."""
        wanted = {
            name: Doubt(how.get("step"), how.get("low", 0.0), how.get("threshold"))
            for name, how in self.about["doubts"].items()
        }
        found = doubts_of(
            logits,
            size,
            wanted,
            covered=covered(size, native),
            align_corners=native["align_corners"],
            threads=self._threads,
        )
        for name in wanted:
            if f"{name}_flags" in found:
                found[FLAGS] = found.pop(f"{name}_flags")
        return found


def covered(size: tuple[int, int], native: Mapping[str, Any]) -> tuple[float, float]:
    """Height and width that native logits stand for, in image pixels.

    Args:
        size: `(H, W)` of the image.
        native: `input`, to which images are resized, or null; `divisor`, of which sides are filled
            up to a multiple, or null.

    Example:
        >>> covered((90, 64), {"input": None, "divisor": 32})
        (96.0, 64.0)
    """
    inner, divisor = native["input"] or size, native["divisor"] or 1
    height, width = (
        -(-side // divisor) * divisor * whole / side for side, whole in zip(inner, size)
    )
    return height, width
