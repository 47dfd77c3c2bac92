"""What exported networks cost and say.

    python benchmarks/deploy.py [--stages head,parity,int8]

`head`: one frame of 1024 x 2048 through ONNX Runtime: the network alone (its native logits as an
output, of which nothing is made), with argmax in the graph, with the class and two doubts in the
graph, and with native logits and the pass in C (`doubtmap.runtime`). All take turns in one process
on as many threads, none of which spins, in another order each round; medians over rounds, in
processor time; bytes are those that leave the runtime.

`parity`: networks of several kinds exported to ONNX and OpenVINO for images of any size, held to
the library on 32 images of three sizes, of which the exporter has seen one.

`int8`: camvid9, its convolutions quantised by ONNX Runtime on a few images of CamVid, evaluated as
`doubtmap evaluate FILE.onnx` does it, beside the network itself.
"""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluate import first
from networks import library
from numpy.typing import NDArray
from stages import HELD_OUT, Row, Stage, Topic, in_turns, run
from torch import nn

import doubtmap as dm
import doubtmap.runtime
from doubtmap.deploy import parity
from doubtmap.deploy.export import Form, export
from doubtmap.deploy.parity import batches
from doubtmap.errors import DoubtmapError
from doubtmap.scores.parsing import parse_scores

DEPLOY = Topic("deploy", "python benchmarks/deploy.py")
SCORES = "entropy,max_softmax"
FRAME = (1024, 2048)
NONE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
Network = Callable[[Namespace], Any]


def camvid9(given: Namespace) -> Any:
    """The network of the tests, of nine classes."""
    return dm.load(str(given.shared / "models" / "camvid9"))


def segformer(given: Namespace) -> Any:
    """Of the size of B0, with 19 classes and random weights."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(num_labels=19)
    return dm.load(SegformerForSemanticSegmentation(config).eval(), **NONE)


def smp_unet(given: Namespace) -> Any:
    """A U-Net of segmentation_models_pytorch, which takes multiples of 32 only."""
    smp = library("segmentation_models_pytorch")
    return dm.load(smp.Unet("resnet18", encoder_weights=None, classes=19).eval(), **NONE)


class OneChannel(nn.Module):
    """Thing or no thing, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, 2, 1)
        self.classifier = nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the thing, `(B, 1, H, W)`."""
        said = self.classifier(self.down(x).relu())
        return nn.functional.interpolate(said, x.shape[-2:], mode="bilinear")


def binary(given: Namespace) -> Any:
    """One sigmoid channel."""
    return dm.load(OneChannel().eval(), **NONE)


def distilled(given: Namespace) -> Any:
    """The drawn streets' network with a second head, which heard two teachers for one epoch."""
    folder = given.work / "distilled"
    train = [sys.executable, "-m", "doubtmap", "train", "synthetic:16", "--epochs", "1", "--quiet"]
    teachers = f"{folder / 'nets' / '1'},{folder / 'nets' / '2'}"
    student = ["--teachers", teachers, "--student", teachers.partition(",")[0], "--freeze"]
    for done, words in (
        ("nets", ["--recipe", "ensemble", "--members", "2"]),
        ("student", ["--recipe", "dudes", *student]),
    ):
        if not (folder / done).is_dir():
            subprocess.run([*train, *words, "--out", str(folder / done)], check=True)
    return dm.load(str(folder / "student"))


def queries(given: Namespace) -> Any:
    """A MaskFormer that predicts masks by queries, small, with random weights."""
    from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation
    from transformers.models.detr import DetrConfig
    from transformers.models.swin import SwinConfig

    swin = SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    decoder = DetrConfig(
        d_model=32, decoder_layers=1, encoder_layers=1, decoder_attention_heads=2,
        decoder_ffn_dim=32, num_queries=8,
    )  # fmt: skip
    config = MaskFormerConfig(
        backbone_config=swin, decoder_config=decoder, num_labels=6, mask_feature_size=32,
        fpn_feature_size=32,
    )  # fmt: skip
    return dm.load(MaskFormerForInstanceSegmentation(config).eval(), **NONE)


NETWORKS: dict[str, tuple[Network, str]] = {
    "camvid9": (camvid9, "max_softmax,margin,entropy,max_logit,energy,divergence,gradient"),
    "SegFormer-B0": (segformer, SCORES),
    "U-Net (SMP, ResNet-18)": (smp_unet, SCORES),
    "binary": (binary, SCORES),
    "MaskFormer": (queries, "rejected,entropy"),
    "distilled": (distilled, "distilled,doubt,entropy"),
}


@contextmanager
def few_images(count: int) -> Iterator[None]:
    """While it lasts, a parity is one of so many images."""
    before, parity.IMAGES = parity.IMAGES, count
    try:
        yield
    finally:
        parity.IMAGES = before


def frame(size: tuple[int, int]) -> NDArray[np.uint8]:
    """`(1, 3, H, W)` uint8, a drawn street."""
    with few_images(1):
        (images,) = batches((size,), bytes=True)
    return np.ascontiguousarray(images.numpy())


def bytes_of(found: dict[str, NDArray[Any]]) -> int:
    """Of all outputs together."""
    return sum(each.nbytes for each in found.values())


def head_rows(given: Namespace) -> Iterator[Row]:
    """Time and bytes of a frame, by what is made of the logits."""
    given.conditions |= {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "frame": list(FRAME),
    }
    scores, image = parse_scores(SCORES), frame(FRAME)
    for name in given.only.split(","):
        network = NETWORKS[name][0](given)
        with tempfile.TemporaryDirectory() as folder:
            ways = heads(network, scores, Path(folder))
            sizes = {way: bytes_of(made(image)) for way, made in ways.items()}
            found = {row.pop("name"): row for row in in_turns(ways, [image] * given.rounds)}
        base = found["argmax in the graph"]["milliseconds"]
        for way, row in found.items():
            yield {
                "name": f"{name}, {way}",
                "set": "one frame",
                "processor_milliseconds": row["milliseconds"],
                "x network": row["ratio"],
                "x argmax": row["milliseconds"] / base,
                "megabytes": sizes[way] / 1e6,
            }


def heads(network: Any, scores: Any, folder: Path) -> dict[str, Callable[[Any], dict[str, Any]]]:
    """Ways to get from an image to classes and doubts."""
    files: dict[str, Any] = {}
    for way, named, form in (
        ("network alone", scores, Form(input="uint8", native=True)),
        ("argmax in the graph", {}, Form(input="uint8")),
        ("class and two doubts in the graph", scores, Form(input="uint8")),
        ("the same as bytes", scores, Form(input="uint8", doubts="uint8")),
        (
            "native logits and the pass in C, bytes",
            scores,
            Form(input="uint8", doubts="uint8", native=True),
        ),
    ):
        path = folder / f"{len(files)}.onnx"
        with few_images(3):
            export(network, named, path, form)
        files[way] = doubtmap.runtime.load(path, threads=torch.get_num_threads())
    alone = files["network alone"]
    return dict(files) | {
        "network alone": lambda image: alone.outputs(image),
        "native logits and the pass in C, float": alone,
    }


def parity_rows(given: Namespace) -> Iterator[Row]:
    """Each network in each format, at two sizes."""
    if importlib.util.find_spec("torchvision"):  # which transformers imports where it is there
        library("torchvision")
    formats = ["onnx"] + (["openvino"] if importlib.util.find_spec("openvino") else [])
    for name, (build, scores) in NETWORKS.items():
        for format in formats:
            for way in ("in the graph", "native") if format == "onnx" else ("in the graph",):
                if way == "native" and name == "MaskFormer":
                    continue  # which gives its logits at the image's size
                yield parity_row(given, name, build, scores, format, way)


def parity_row(
    given: Namespace, name: str, build: Network, scores: str, format: str, way: str
) -> Row:
    """How far a file is from the library, or why there is none."""
    torch.manual_seed(0)
    row: Row = {"name": f"{name}, {format}, {way}", "set": "drawn streets and noise"}
    named = parse_scores(scores if way != "native" else SCORES)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = Path(folder, "net.xml" if format == "openvino" else "net.onnx")
            size = (96, 128) if name == "MaskFormer" else None  # its windows are of one size
            form = Form(format, size=size, native=way == "native")
            found = export(build(given), named, out, form)
    except (DoubtmapError, ImportError) as error:
        return row | {"notes": str(error)}
    largest = max(found.largest.values())
    sizes = [f"{height}x{width}" for height, width in found.sizes]
    return row | {"images": found.images, "sizes": sizes, "largest difference": largest,
                  "ties": found.ties}  # fmt: skip


def int8_rows(given: Namespace) -> Iterator[Row]:
    """Figures of the network, of its file, and of the file quantised."""
    from onnxruntime import quantization

    spec = f"camvid:{given.shared / 'data' / 'camvid'}"
    data, val = first(f"{spec}:test", given.images), dm.open_dataset(f"{spec}:val")
    sample = [val[place].image.float()[None] / 255 for place in range(0, len(val), 10)]

    class Images(quantization.CalibrationDataReader):  # type: ignore[misc]
        """A few images, one by one."""

        def __init__(self) -> None:
            self.left = iter(sample)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image.numpy()}

    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder, "net.onnx"), Path(folder, "int8.onnx")
        export(camvid9(given), parse_scores(SCORES), plain, Form(native=True))
        quantization.quantize_static(
            str(plain), str(small), Images(), quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"], per_channel=True,
        )  # fmt: skip
        for name, opened in {
            "the network": camvid9(given),
            "its file": dm.load(str(plain)),
            "its file in int8": dm.load(str(small)),
        }.items():
            yield measured(name, opened, data) | {
                "file megabytes": (small if "int8" in name else plain).stat().st_size / 1e6
            }


def measured(name: str, network: Any, data: Any) -> Row:
    """Of `evaluate`."""
    found = dm.evaluate(
        network, data, [*SCORES.split(","), "doubt"], unknown=list(HELD_OUT)
    ).figures
    row = {"name": name, "set": "camvid test", "images": len(data)}
    row |= {key: found["segmentation"][key] for key in ("miou", "accuracy")}
    row["ece"] = found["calibration"]["ece"]
    for score, of in found["scores"].items():
        for kind in ("wrong", "unknown"):
            row[f"{kind} AUROC, {score}"] = of[kind]["auroc"]
    return row


OPTIONS = {
    "--images": {"type": int, "default": 100, "help": "of `int8`"},
    "--rounds": {"type": int, "default": 7, "help": "of `head`"},
    "--only": {"default": "camvid9,SegFormer-B0", "help": "networks of `head`"},
}
STAGES = {
    "head": Stage(DEPLOY, head_rows, threads=None),
    "parity": Stage(DEPLOY, parity_rows),
    "int8": Stage(DEPLOY, int8_rows, threads=None),
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
