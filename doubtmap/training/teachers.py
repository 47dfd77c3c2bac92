"""What a student is to learn from its teachers, on line or from a cache on disk."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from doubtmap.datasets import Dataset, Sample
from doubtmap.errors import DataError, UsageError
from doubtmap.files import write_atomically
from doubtmap.files.python import code_of
from doubtmap.models import load
from doubtmap.models.ensemble import Ensemble
from doubtmap.names import plain_name
from doubtmap.prediction import Prediction, Segmenter
from doubtmap.scores import member_spread, mutual_information

TARGETS = ("spread", "mutual_information", "entropy", "mean")
"""What can be learnt from teachers."""
COARSER = 4
"""Sides of cached mean probabilities are this many times smaller than the image's."""
IDENTITY = ("sha256", "input_size", "mean", "std", "channels")
FORMAT = 1

Told = Callable[[int, int], None]
"""Called with the images done and the images in all."""


class Teachers:
    """Several networks that tell a student what they think: `target = teachers(images)`.

    They run one after the other into running sums, on the device of the images.

    Args:
        names: as `doubtmap.load` takes them, two or more.
        kind: one of `TARGETS`.
        classes: the student's.

    Raises:
        UsageError: for fewer than two, the same one twice, or other classes than the student's.
        ModelError: for a network that cannot be opened.

    Reference:
        DUDES: Deep Uncertainty Distillation using Ensembles for Semantic Segmentation (Landgraf
        et al., 2024), https://arxiv.org/abs/2303.09843
    """

    def __init__(self, names: Sequence[str], kind: str, classes: Sequence[str]) -> None:
        _check_names(names)
        self.names, self.kind, self.device = tuple(names), kind, torch.device("cpu")
        members = [load(name, device=self.device) for name in names]
        _check_different(names, members)
        self.ensemble = Ensemble(members)
        theirs = [plain_name(name) for name in self.ensemble.class_names]
        ours = [plain_name(name) for name in classes]
        if sorted(theirs) != sorted(ours):
            raise UsageError(
                f"--teachers: expected networks of the student's classes ({', '.join(classes)}), "
                f"got {', '.join(self.ensemble.class_names) or 'unnamed ones'}. Hold classes out "
                f"with --hold-out, or take other teachers."
            )
        self.order = [theirs.index(name) for name in ours]

    def __call__(self, images: Tensor) -> Tensor:
        """What the student is to say of these images.

        Args:
            images: `(B, 3, H, W)` RGB in [0, 1].

        Returns:
            `(B, 1, H, W)` in [0, 1], or of the kind `mean` `(B, C, H, W)`, which sum to 1.
        """
        if images.device != self.device:
            self.device = images.device
            self.ensemble = Ensemble([load(name, device=self.device) for name in self.names])
        with torch.autocast(images.device.type, enabled=False):
            return self.target(self.ensemble(images.float().clamp(0, 1)))

    def target(self, prediction: Prediction) -> Tensor:
        """The target of a prediction of all teachers.

        `spread` is the standard deviation (divisor M - 1) of the probability of the class that
        the mean predicts, as published. `mutual_information` is divided by log min(M, C) and
        `entropy` (of the mean) by log C, the largest that they can be, so that a sigmoid can say
        them.

        Returns:
            `(B, 1, H, W)` in [0, 1], or of the kind `mean` `(B, C, H, W)`.
        """
        classes = prediction.native_logits.shape[1]
        if self.kind == "mean":
            return prediction.probabilities[:, self.order]
        if self.kind == "spread":
            return member_spread(prediction)[:, None]
        if self.kind == "entropy":
            return (prediction.statistics.entropy / math.log(classes))[:, None].clamp(0, 1)
        most = math.log(min(len(self.ensemble.members), classes))
        return (mutual_information(prediction) / most)[:, None].clamp(0, 1)

    def let_go(self) -> None:
        """Forget the networks, to free their memory; who is asked again opens them again."""
        _ = self.identity
        self.ensemble.members, self.device = (), torch.device("meta")

    @cached_property
    def identity(self) -> str:
        """A hash of what the teachers' predictions depend on, but the place where they lie.

        Of networks that a Python file makes, that file counts too, and what it imports beside it.

        Raises:
            UsageError: for teachers whose weights are not one file.
        """
        members = self.ensemble.members
        if not all(member.description.get("sha256") for member in members):
            raise UsageError(
                "--cache: expected teachers whose weights are one file, by which they are "
                "recognised, got others. Leave --cache out, so that they run on line."
            )
        text = json.dumps([FORMAT, *_recognised(self.names, members), self.order])
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def teacher_fingerprints(names: Sequence[str]) -> list[object]:
    """What the networks of these names are now, as a cache recognises them; of none, nothing.

    Raises:
        UsageError, ModelError: for a network that cannot be opened.
    """
    return _recognised(names, [load(name) for name in names]) if names else []


def _recognised(names: Sequence[str], members: Sequence[Segmenter]) -> list[object]:
    """What the predictions of networks depend on: weights, code, normalisation, classes."""
    abouts = [member.description for member in members]
    known = [[about.get(key) for key in IDENTITY] for about in abouts]
    known += [[code] for name in names if (code := _code_of(name))]
    return [known, list(members[0].class_names)]


def _code_of(name: str) -> str | None:
    """Hash of the Python code that makes a network, where some does."""
    if not name.startswith("python:"):
        return None
    reference = name.removeprefix("python:")
    maker = reference.rpartition("@")[0]
    called = (maker if ".py:" in maker else reference).partition("(")[0]
    return code_of(Path(called.rpartition(":")[0]))


def _check_names(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise UsageError(
            f"--teachers: expected two or more networks, got {len(names)}. Give "
            f"MODEL1,MODEL2,..., such as the folders of: doubtmap train DATA --recipe ensemble."
        )


def _check_different(names: Sequence[str], members: Sequence[Segmenter]) -> None:
    seen: dict[object, str] = {}
    for name, member in zip(names, members):
        key = member.description.get("sha256") or name
        if key in seen:
            raise UsageError(
                f"--teachers: expected different networks, got the same weights twice, "
                f"{seen[key]} and {name}. Leave one out."
            )
        seen[key] = name


@dataclass(frozen=True, eq=False)
class Cache:
    """What teachers say of whole images, kept on disk: `cache(sample)`.

    Files are found by the teachers' weights and the image's pixels, so that other teachers or
    another image never meet an old file, and several trainings share one folder.

    Args:
        folder: where; made if it is not there.
        teachers: who are asked.
    """

    folder: Path
    teachers: Teachers

    def path(self, sample: Sample) -> Path:
        """The file of an image."""
        shape = str(tuple(sample.image.shape)).encode()
        pixels = sample.image.contiguous().numpy().tobytes()
        image = hashlib.blake2b(shape + pixels, digest_size=12).hexdigest()
        return self.folder / self.teachers.identity / f"{image}.{self.teachers.kind}.safetensors"

    def __call__(self, sample: Sample) -> Tensor:
        """What the teachers say of an image.

        Returns:
            `(K, h, w)` float32: one channel at the image's size, or all classes on a grid that is
            `COARSER` times coarser.

        Raises:
            DataError: for a file that is missing or damaged.
        """
        path = self.path(sample)
        try:
            target: Tensor = from_safetensors(path.read_bytes())["target"].float()
            if target.ndim != 3 or not bool(torch.isfinite(target).all()):
                raise ValueError("it holds something else")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DataError(
                f"{path}: expected what the teachers say of {sample.name}, but it cannot be read "
                f"({error}). Remove it and start again."
            ) from error
        return target

    def fill(
        self,
        dataset: Dataset,
        device: torch.device,
        *,
        part: tuple[int, int] = (0, 1),
        told: Told = lambda *_: None,
    ) -> None:
        """Ask the teachers about every image that is not there yet.

        Args:
            dataset: the images.
            device: where the teachers are.
            part: `(rank, count)`: of every `count` images this process asks about one.
            told: who is told of progress.

        Raises:
            DataError: where the folder cannot be written.
        """
        indices = range(part[0], len(dataset), part[1])
        for done, index in enumerate(indices, 1):
            sample = dataset[index]
            path = self.path(sample)
            if not path.exists():
                target = self.teachers((sample.image[None].float() / 255).to(device))
                content = {"target": _compact(target)[0].half().cpu().contiguous()}
                write_atomically(path, to_safetensors(content), option="--cache")
            told(done, len(indices))


def _compact(target: Tensor) -> Tensor:
    """Mean probabilities averaged over blocks; maps of one channel as they are."""
    if target.shape[1] == 1:
        return target
    height, width = (max(1, math.ceil(side / COARSER)) for side in target.shape[-2:])
    return F.interpolate(target, (height, width), mode="area")


def check_target(kind: str) -> None:
    """Refuse what cannot be learnt from teachers.

    Raises:
        UsageError: for another word.
    """
    if kind not in TARGETS:
        raise UsageError(f"--target: expected one of {', '.join(TARGETS)}, got {kind}.")
