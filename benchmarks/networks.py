"""Networks of other libraries, each held to its own forward pass.

`libraries` (`--only LIBRARY`): networks of random weights, made loud enough for classes to differ,
on drawn streets of 128 x 160. Probabilities and labels are compared with what the network itself
returns, resized to the image; for networks that predict by queries, with the papers' inference.
Of time, the first call, and the processor time of later calls against the network alone, the best
of rounds in turns. Libraries that are not installed are left out, and their rows stay.

`cost` (`--rounds 20`): the same ratio for networks of real size, on one thread.

`queries`: maps of queries made from drawn labels, as sharp as those of trained networks, through
the library and through the papers' inference.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from stages import Row, Stage, Topic, Work, best_of, run
from torch import Tensor, nn

import doubtmap as dm
from doubtmap import scores
from doubtmap.errors import ModelError
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from doubtmap.streets.synthetic import SyntheticStreets

COMMAND = "python benchmarks/networks.py"
OPTIONS: dict[str, dict[str, Any]] = {
    "--only": {"default": "", "help": "one library, or a part of a name of `cost`"},
    "--rounds": {"type": int, "default": 20, "help": "of `cost`"},
}
CLASSES = 6
SIZE = (128, 160)
NONE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
NOT_LAST = ("aux", "deep_super", "low_classifier")
"""Parts of names of layers that could be the last one, and are not."""


def first(output: Any) -> Tensor:
    """The logits, where they are the first or the only tensor."""
    if isinstance(output, Mapping):
        output = output.get("out", output.get("logits"))
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output


def full(output: Any, size: tuple[int, int]) -> Tensor:
    """Probabilities of logits, resized to the image."""
    return F.interpolate(first(output).float(), size, mode="bilinear").softmax(1)


def semantic(output: Any, size: tuple[int, int]) -> Tensor:
    """The papers' inference from queries, brought to a sum of one."""
    shares = inferred(output, size)
    return shares / shares.sum(1, keepdim=True)


def inferred(output: Any, size: tuple[int, int]) -> Tensor:
    """As `semantic_inference` of MaskFormer and Mask2Former, at the size that the network sees."""
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = F.interpolate(output.masks_queries_logits, size, mode="bilinear").sigmoid()
    return torch.einsum("bqc,bqhw->bchw", classes, masks)


def binary(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Two classes of which one channel speaks."""
    p = F.interpolate(output, size, mode="bilinear").sigmoid()
    return torch.cat([1 - p, p], 1)


def as_it_is(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities at the image's size."""
    return output


@dataclass(frozen=True)
class Network:
    """A network of a library.

    Args:
        library: the package it comes from.
        build: makes it, of random weights.
        features: whether its last layer is one that features can be taken from.
        truth: probabilities from its output, at a size.
        size: of the images that tests show it.
        fixed: whether it takes no other size.
        options: of `load`.
    """

    library: str
    build: Callable[[], nn.Module]
    features: bool = True
    truth: Callable[[Any, tuple[int, int]], Tensor] = full
    size: tuple[int, int] = (64, 96)
    fixed: bool = False
    options: Mapping[str, Any] = field(default_factory=lambda: {"mean": IMAGENET_MEAN})


def library(name: str) -> Any:
    """A package, imported.

    Raises:
        ImportError: where it, or what it needs, is not installed.
    """
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        if name != "torchvision" and importlib.util.find_spec("torchvision"):
            library("torchvision")  # which others import, if it is there
        try:
            return importlib.import_module(name)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
        _define_operators()
        return importlib.import_module(name)


def _define_operators() -> None:
    """Let a torchvision whose compiled operators do not fit this PyTorch be imported."""
    for name in [*sys.modules]:
        if name.split(".")[0] in ("torchvision", "timm", "segmentation_models_pytorch"):
            del sys.modules[name]
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(operators)


KEPT: list[torch.library.Library] = []
"""Operators live as long as this."""


def smp(name: str, **more: Any) -> nn.Module:
    """A network of segmentation-models-pytorch."""
    options = {"encoder_name": "resnet18", "encoder_weights": None, "classes": CLASSES} | more
    return getattr(library("segmentation_models_pytorch"), name)(**options)


def torchvision(name: str, **more: Any) -> nn.Module:
    """A network of torchvision."""
    library("torchvision")
    found = library("torchvision.models.segmentation")
    return getattr(found, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **more)


def monai(name: str, *given: Any, **more: Any) -> nn.Module:
    """A network of MONAI, in two dimensions."""
    return getattr(library("monai.networks.nets"), name)(*given, **more)


class Probe(nn.Module):
    """Features of timm and a 1x1 convolution."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.backbone = library("timm").create_model(name, features_only=True, out_indices=(2,))
        self.head = nn.Conv2d(self.backbone.feature_info.channels()[-1], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the stride of the features."""
        return self.head(self.backbone(x)[0])


def ultralytics(name: str) -> nn.Module:
    """A semantic network of Ultralytics."""
    root = Path(library("ultralytics").__path__[0], "cfg", "models")
    kind = library("ultralytics.nn.tasks").SemanticSegmentationModel
    return kind(str(next(root.rglob(name))), ch=3, nc=CLASSES, verbose=False)


STAGE_NAMES = ["stage1", "stage2", "stage3", "stage4"]
ONES: dict[str, Any] = {"depths": [1] * 4, "out_features": STAGE_NAMES}
NAMED = {"id2label": dict(enumerate(("wall", "road", "sky", "tree", "car", "person")))}
TRANSFORMER: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": 64, "patch_size": 16,
}  # fmt: skip
QUERIES = {"num_queries": 8}
MASKED: dict[str, Any] = {
    "feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 32,
    "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2, "dim_feedforward": 32,
}  # fmt: skip
PYRAMID = {
    "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 8,
    "backbone_out_indices": [0, 1, 2, 3], "is_hybrid": False,
}  # fmt: skip


def hugging(name: str, kind: str = "SemanticSegmentation", **config: Any) -> nn.Module:
    """A network of transformers."""
    found = library("transformers")
    made = getattr(found, f"{name}Config")(**config, **NAMED)
    return getattr(found, f"{name}For{kind}")(made)


def swin() -> Any:
    """A small Swin backbone."""
    return library("transformers").SwinConfig(
        image_size=64, embed_dim=16, num_heads=[1, 2, 2, 4], window_size=4, **ONES
    )


def resnet() -> Any:
    """A small ResNet backbone."""
    return library("transformers").ResNetConfig(
        hidden_sizes=[8, 16, 24, 32], embedding_size=8, layer_type="basic", **ONES
    )


def convnext() -> Any:
    """A small ConvNeXt backbone."""
    return library("transformers").ConvNextConfig(hidden_sizes=[8, 16, 24, 32], **ONES)


def upernet(backbone: Callable[[], Any], channels: int) -> nn.Module:
    """UPerNet over a backbone."""
    return hugging(
        "UperNet", backbone_config=backbone(), hidden_size=16, pool_scales=[1, 2, 3, 6],
        auxiliary_in_channels=channels, auxiliary_channels=8,
    )  # fmt: skip


def maskformer() -> nn.Module:
    """MaskFormer over Swin, with a small decoder."""
    decoder = library("transformers").DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, decoder_ffn_dim=32, encoder_ffn_dim=32, **QUERIES,
    )  # fmt: skip
    return hugging(
        "MaskFormer", "InstanceSegmentation", backbone_config=swin(), decoder_config=decoder,
        fpn_feature_size=32, mask_feature_size=32,
    )  # fmt: skip


VISION = {"out_indices": [1, 2, 3, 4], "use_relative_position_bias": True, "auxiliary_channels": 8}
MOBILE = {"image_size": 64, "output_stride": 16, "aspp_out_channels": 16}
S, T, M, H = "segmentation_models_pytorch", "torchvision", "monai", "transformers"
NETWORKS: dict[str, Network] = {
    **{
        f"smp.{name}": Network(S, partial(smp, name))
        for name in (
            "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3",
            "DeepLabV3Plus", "UPerNet", "Segformer",
        )
    },
    "smp.PAN": Network(S, partial(smp, "PAN"), size=(128, 160)),
    "smp.DPT": Network(
        S,
        partial(
            smp, "DPT", encoder_name="tu-vit_tiny_patch16_224.augreg_in21k_ft_in1k",
            dynamic_img_size=True,
        ),
    ),
    "smp.Unet, one class": Network(S, partial(smp, "Unet", classes=1), truth=binary),
    "smp.Unet, softmax2d": Network(S, partial(smp, "Unet", activation="softmax2d"), truth=as_it_is),
    "smp.FPN and a label of the image": Network(S, partial(smp, "FPN", aux_params={"classes": 3})),
    "lraspp_mobilenet_v3_large": Network(
        T, partial(torchvision, "lraspp_mobilenet_v3_large"), False
    ),
    **{
        name: Network(T, partial(torchvision, name, aux_loss=True))
        for name in ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50")
    },
    "UNet": Network(
        M, partial(monai, "UNet", 2, 3, CLASSES, (8, 16, 32), (2, 2), num_res_units=1), False
    ),
    "UNet, one class": Network(
        M, partial(monai, "UNet", 2, 3, 1, (8, 16, 32), (2, 2)), False, binary
    ),
    "BasicUNet": Network(M, partial(monai, "BasicUNet", 2, 3, CLASSES, (8, 8, 16, 16, 32, 8))),
    "BasicUNetPlusPlus": Network(
        M, partial(monai, "BasicUNetPlusPlus", 2, 3, CLASSES, (8, 8, 16, 16, 32, 8))
    ),
    "SegResNet": Network(M, partial(monai, "SegResNet", 2, 8, 3, CLASSES)),
    "SegResNetDS": Network(M, partial(monai, "SegResNetDS", 2, 8, 3, CLASSES, dsdepth=2)),
    "AttentionUnet": Network(
        M, partial(monai, "AttentionUnet", 2, 3, CLASSES, (8, 16, 32), (2, 2))
    ),
    "DynUNet": Network(
        M,
        partial(
            monai, "DynUNet", 2, 3, CLASSES, [3] * 3, [1, 2, 2], [2, 2], filters=[8, 16, 32],
            deep_supervision=True, deep_supr_num=1,
        ),
    ),
    "UNETR": Network(
        M,
        partial(
            monai, "UNETR", 3, CLASSES, (64, 96), feature_size=8, hidden_size=48, mlp_dim=64,
            num_heads=4, spatial_dims=2,
        ),
        fixed=True,
    ),
    "SwinUNETR": Network(
        M,
        partial(
            monai, "SwinUNETR", in_channels=3, out_channels=CLASSES, feature_size=12,
            depths=(1,) * 4, num_heads=(1, 2, 2, 4), spatial_dims=2,
        ),
    ),
    "FlexibleUNet": Network(
        M, partial(monai, "FlexibleUNet", 3, CLASSES, "efficientnet-b0", spatial_dims=2)
    ),
    "resnet10t and a 1x1 convolution": Network("timm", partial(Probe, "resnet10t")),
    "convnext_atto and a 1x1 convolution": Network("timm", partial(Probe, "convnext_atto")),
    "yolo26-sem": Network("ultralytics", partial(ultralytics, "yolo26-sem.yaml"), options={}),
    "SegFormer": Network(
        H,
        partial(
            hugging, "Segformer", depths=[1] * 4, hidden_sizes=[8, 16, 24, 32],
            num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32,
        ),
    ),
    "UPerNet, ResNet": Network(H, partial(upernet, resnet, 24)),
    "UPerNet, Swin": Network(H, partial(upernet, swin, 64)),
    "UPerNet, ConvNeXt": Network(H, partial(upernet, convnext, 24)),
    "DPT": Network(H, partial(hugging, "DPT", **TRANSFORMER, **PYRAMID), size=(64, 64), fixed=True),
    **{
        name: Network(
            H, partial(hugging, kind, **TRANSFORMER, **VISION), size=(64, 64), fixed=True
        )
        for name, kind in (("BEiT", "Beit"), ("Data2Vec", "Data2VecVision"))
    },
    "MobileNetV2": Network(H, partial(hugging, "MobileNetV2", depth_multiplier=0.35)),
    "MobileViT": Network(
        H,
        partial(
            hugging, "MobileViT", hidden_sizes=[32, 48, 64], num_attention_heads=2,
            neck_hidden_sizes=[8, 16, 24, 32, 48, 64, 96], atrous_rates=[2, 3, 4], **MOBILE,
        ),
    ),
    "MobileViTV2": Network(
        H,
        partial(
            hugging, "MobileViTV2", width_multiplier=0.25, n_attn_blocks=[1] * 3,
            base_attn_unit_dims=[32, 48, 64], **MOBILE,
        ),
    ),
    "Mask2Former": Network(
        H,
        lambda: hugging(
            "Mask2Former", "UniversalSegmentation", backbone_config=swin(), **MASKED, **QUERIES
        ),
        False,
        semantic,
    ),
    "MaskFormer": Network(H, maskformer, False, semantic),
    "EoMT": Network(
        H,
        partial(
            hugging, "Eomt", "UniversalSegmentation", hidden_size=32, num_hidden_layers=4,
            num_attention_heads=2, image_size=64, patch_size=16, num_blocks=2,
            num_upscale_blocks=2, **QUERIES,
        ),
        False,
        semantic,
        (64, 64),
        True,
    ),
}  # fmt: skip
"""Every network, by a name that is its own."""


def streets(size: tuple[int, int], count: int = 2) -> Tensor:
    """Drawn streets, in [0, 1]."""
    drawn = SyntheticStreets(count, seed=3, size=size)
    return torch.stack([drawn[i].image for i in range(count)]).float() / 255


def normalised(images: Tensor, mean: Any, std: Any) -> Tensor:
    """As a network wants them."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return (images - mean) / std


def made(network: Network, images: Tensor) -> nn.Module:
    """A network of random weights whose answer is as loud as a trained one's."""
    torch.manual_seed(0)
    module = network.build()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad(), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        module.train()(images)  # batch normalisations see some images
        module.eval()
        if network.truth is semantic:
            return _loud_queries(module, images)
        return _loud(module, images, 1 if network.truth is binary else CLASSES)


def _loud_queries(module: nn.Module, images: Tensor) -> nn.Module:
    """Make classes differ from query to query, and mask logits spread by 5."""
    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    for layer in (layer for name, layer in linear.items() if "class_predictor" in name):
        nn.init.normal_(layer.weight, 0, 1.5)
    last = [x for name, x in linear.items() if "mask_embedder" in name or "mask_head" in name][-1]
    for _ in range(3):  # masks steer the queries that make them
        spread = module(images).masks_queries_logits.std()
        last.weight.mul_(5 / spread)
        last.bias.mul_(5 / spread)
    return module


def _loud(module: nn.Module, images: Tensor, classes: int) -> nn.Module:
    """Scale the last layer, so that its outputs spread by 4 around 0."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    last = [
        layer
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and not any(part in name for part in NOT_LAST)
        if classes == getattr(layer, "out_channels", getattr(layer, "out_features", 0))
    ][-1]
    said: list[Tensor] = []
    handle = last.register_forward_hook(lambda layer, given, out: said.append(out))
    module(images)
    last.weight.mul_(4 / said[-1].std())
    module(images)
    handle.remove()
    if last.bias is not None:
        last.bias.sub_(said[-1].mean((0, 2, 3)))
    return module


def compared(
    network: Network, size: tuple[int, int], count: int = 2
) -> tuple[Row, dm.NetworkSegmenter, nn.Module]:
    """One network through the library and by itself, on some images.

    Returns:
        Figures, the segmenter, and the network.
    """
    images = streets(size, count)
    seen = normalised(images, IMAGENET_MEAN, IMAGENET_STD)
    module = made(network, seen)
    with redirect_stdout(sys.stderr):
        segmenter = dm.load(module, **network.options)
        start = time.perf_counter()
        prediction = segmenter(images[:1])
        seconds = time.perf_counter() - start
        prediction = segmenter(images)
    how = segmenter.description
    with torch.no_grad():
        own = network.truth(module(normalised(images, how["mean"], how["std"])), size)
    row = {
        "largest_difference": (own - prediction.probabilities).abs().max().item(),
        "labels_equal": (own.argmax(1) == prediction.classes).float().mean().item(),
        "labels": len(own.argmax(1).unique()),
        "features": how["features"] or 0,
        "classifier": how["classifier"],
        "scores": sum(map(partial(possible, prediction), scores.STATELESS)),
        "first_milliseconds": 1000 * seconds,
    }
    return row, segmenter, module


def possible(prediction: dm.Prediction, name: str) -> bool:
    """Whether a score can be made."""
    try:
        return bool(getattr(scores, name)(prediction).isfinite().all())
    except ModelError:
        return False


def installed(name: str) -> str | None:
    """The version of a library; None where it is not installed."""
    try:
        library(name)
        return importlib.metadata.version(name.replace("_", "-"))
    except ImportError as error:
        print(f"{name}: left out: {error}")
        return None


def of_libraries(given: Namespace) -> Iterator[Row]:
    """A row for each network of the libraries that are installed."""
    found = {n.library for n in NETWORKS.values() if given.only in ("", n.library)}
    versions = {name: installed(name) for name in sorted(found)}
    given.conditions |= {"torch": torch.__version__, "size": list(SIZE)}
    for name, network in NETWORKS.items():
        version = versions.get(network.library)
        if version is None:
            continue
        size = network.size if network.fixed else SIZE
        row, segmenter, module = compared(network, size)
        ratio = against_forward(segmenter, module, streets(size, 1), 5)
        yield {"name": name, "set": network.library, "library_version": version} | row | ratio


def against_forward(
    segmenter: dm.NetworkSegmenter, module: nn.Module, images: Tensor, rounds: int
) -> Row:
    """Processor time of a call against the network alone, the best of rounds in turns."""
    how = segmenter.description
    plain = normalised(images, how["mean"], how["std"])
    work: Work = {"forward": lambda: module(plain), "call": lambda: segmenter(images)}
    with torch.no_grad():
        best = best_of(work, rounds, time.process_time)
    return {
        "milliseconds": 1000 * best["forward"],
        "processor_ratio_to_forward": best["call"] / best["forward"],
    }


def cost(given: Namespace) -> Iterator[Row]:
    """Networks of real size: what a call takes after the first image."""
    given.conditions |= {"rounds": given.rounds, "cores": os.cpu_count()}
    folder = given.shared / "models" / "camvid9"
    if folder.is_dir() and given.only in "camvid9":
        found = library("transformers").AutoModelForSemanticSegmentation
        yield timed("camvid9, 360 x 480", lambda: found.from_pretrained(folder), (360, 480), given)
    for name, build in REAL.items():
        if given.only in name and installed(
            build.func.__name__.replace("hugging", H).replace("smp", S)
        ):
            yield timed(f"{name}, 512 x 1024", build, (512, 1024), given)


B0 = {"depths": [2] * 4, "hidden_sizes": [32, 64, 160, 256], "num_attention_heads": [1, 2, 5, 8]}
REAL: dict[str, Any] = {
    "SegFormer-B0": partial(hugging, "Segformer", decoder_hidden_size=256, **B0),
    "DeepLabV3, MobileNetV3": partial(torchvision, "deeplabv3_mobilenet_v3_large"),
    "U-Net, ResNet-18": partial(smp, "Unet"),
}


def timed(
    name: str, build: Callable[[], nn.Module], size: tuple[int, int], given: Namespace
) -> Row:
    """The cost of calls of one network, loud enough to tell how its output is resized."""
    module, images = build().eval(), streets(size, 1)
    with torch.no_grad():
        if "camvid9" not in name:
            _loud(module, normalised(images, IMAGENET_MEAN, IMAGENET_STD), CLASSES)
    segmenter = dm.load(module, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    segmenter(images)
    return {"name": name, "set": "cost"} | against_forward(segmenter, module, images, given.rounds)


class Queries(nn.Module):
    """One query a class, whose mask is the share of the class in cells of a label map.

    Args:
        labels: `(H, W)`.
        stride: of the cells.
        sharp: by which mask logits are multiplied.
    """

    def __init__(self, labels: Tensor, stride: int, sharp: float) -> None:
        super().__init__()
        found = labels[labels < 255].unique()
        share = F.avg_pool2d(torch.stack([(labels == k).float() for k in found])[None], stride)
        count = len(found)
        self.masks = torch.logit(share.clamp(0.01, 0.99)) * sharp
        self.classes = torch.zeros(1, count, count + 1)
        self.classes[0, range(count), range(count)] = 4 + 3 * torch.rand(count)

    def forward(self, x: Tensor) -> Any:
        """The same for every image."""
        return SimpleNamespace(class_queries_logits=self.classes, masks_queries_logits=self.masks)


def of_queries(given: Namespace) -> Iterator[Row]:
    """Queries as sharp as trained ones: the library's labels against the papers'."""
    size = (360, 480)
    drawn = SyntheticStreets(6, seed=3, size=size)
    for stride in (4, 8):
        for kind, sharp in (("soft", 1.0), ("sharp", 4.0)):
            for seen in (size, (270, 360)):
                found = [
                    judged(torch.as_tensor(drawn[i].label), stride, sharp, seen) for i in range(6)
                ]
                title = f"masks at stride {stride}, {kind}, network sees {seen[0]} x {seen[1]}"
                row = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
                yield {"name": title, "set": "queries"} | row


def judged(labels: Tensor, stride: int, sharp: float, seen: tuple[int, int]) -> Row:
    """One image of queries through the library, and through the papers' inference."""
    size = (labels.shape[-2], labels.shape[-1])
    network = Queries(labels.long(), stride, sharp)
    prediction = dm.load(network, input_size=seen, **NONE)(torch.rand(1, 3, *size))
    own = F.interpolate(inferred(network(torch.zeros(1)), seen), size, mode="bilinear")
    own = own / own.sum(1, keepdim=True)
    apart = (own - prediction.probabilities).abs().amax(1)
    return {
        "labels_equal": (own.argmax(1) == prediction.classes).float().mean().item(),
        "probabilities_equal": (apart < 1e-3).float().mean().item(),
        "mean_difference": apart.mean().item(),
    }


TOPIC = Topic("networks", COMMAND, ("stage", "set", "name"))
STAGES = {
    "libraries": Stage(TOPIC, of_libraries),
    "cost": Stage(TOPIC, cost),
    "queries": Stage(TOPIC, of_queries),
}

if __name__ == "__main__":
    run(__doc__, STAGES, OPTIONS)
