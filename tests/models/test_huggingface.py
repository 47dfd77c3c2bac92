import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from doubtmap.errors import ModelError, UsageError
from doubtmap.models import load
from doubtmap.models.huggingface import _hold_settings
from doubtmap.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

transformers = pytest.importorskip("transformers")

SHARED = Path(__file__).parents[2].parent / "shared"
NAMES = dict(enumerate(["sky", "road", "car", "tree"]))


ODD = {
    "size_divisor": [math.nan, -1, 1 << 40, [8]],
    "size_divisibility": [[-1, 5], 1.5],
    "rescale_factor": [0, "a" * 900, {"x": 1}, math.inf, -1],
    "image_mean": ["x", [None] * 3, [math.nan] * 3, {"0": "a"}],
    "image_std": [{"0": "a"}, [0, 0, 0], 0, []],
    "resample": ["x", 9, math.inf],
    "size": [0, {"height": "a", "width": 3}, {"shortest_edge": 10**7}, [8], {"height": 0}, True],
    "max_size": [-1, "x"],
    "do_resize": ["x", 3, [1]],
}


@pytest.mark.parametrize("key", ODD)
def test_a_processor_of_odd_values_is_one_sentence(key):
    for value in ODD[key]:
        with pytest.raises(ModelError, match=rf"for {key} in preprocessor_config.json") as refused:
            _hold_settings("net", {key: value})
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
    _hold_settings("net", {key: None})


@pytest.mark.parametrize("text", ["[" * 100_000, "3", "[]", '"x"', "{", "\ufffd\ufffe"])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_configurations_that_are_none_are_one_sentence(file, text, tmp_path):
    segformer().config.save_pretrained(tmp_path)
    (tmp_path / file).write_text(text, "utf-16" if text == "\ufffd\ufffe" else "utf-8")
    with pytest.raises((ModelError, UsageError)) as refused:
        load(str(tmp_path))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 700


def segformer():
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=12, id2label=NAMES,
    )  # fmt: skip
    return transformers.SegformerForSemanticSegmentation(config)


def upernet():
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=backbone, hidden_size=10, auxiliary_in_channels=16, auxiliary_channels=8,
        use_auxiliary_head=True, num_labels=4, id2label=NAMES,
    )  # fmt: skip
    return transformers.UperNetForSemanticSegmentation(config)


def dpt():
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
        image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False,
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, id2label=NAMES,
        auxiliary_loss_weight=0.4, use_auxiliary_head=True,
    )  # fmt: skip
    return transformers.DPTForSemanticSegmentation(config)


def mobilenet():
    config = transformers.MobileNetV2Config(
        depth_multiplier=0.1, min_depth=4, output_stride=8, id2label=NAMES
    )
    return transformers.MobileNetV2ForSemanticSegmentation(config)


def eomt():
    config = transformers.EomtConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=16,
        num_blocks=1, num_queries=6, num_upscale_blocks=2, id2label=NAMES,
    )  # fmt: skip
    return transformers.EomtForUniversalSegmentation(config)


@pytest.fixture
def saved(tmp_path):
    """Saves a network with random but not degenerate weights and loads it with doubtmap."""

    def save(make, settings=None, **options):
        torch.manual_seed(0)
        network = make()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        network.save_pretrained(tmp_path)
        if settings is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        return network.eval(), load(tmp_path, **options)

    return save


def normalised(images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    return (images - mean) / std


def resized(logits, images):
    return F.interpolate(logits, images.shape[-2:], mode="bilinear")


@pytest.mark.parametrize(
    ("make", "classifier", "features", "stride", "align_corners"),
    [
        (segformer, "decode_head.classifier", 12, 4, False),
        (upernet, "decode_head.classifier", 10, 4, False),
        (dpt, "head.head.4", 8, 2, True),
        (mobilenet, "segmentation_head.classifier.convolution", 256, 8, False),
    ],
)
def test_semantic_networks(saved, make, classifier, features, stride, align_corners):
    network, segmenter = saved(make)
    images = torch.rand(2, 3, 64, 64)
    prediction, told = segmenter(images), segmenter.description
    with torch.no_grad():
        expected = resized(network(normalised(images)).logits, images)
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=1e-4)
    assert prediction.class_names == ("sky", "road", "car", "tree")
    assert told["classifier"] == classifier
    assert (told["features"], told["stride"]) == (features, stride)
    assert prediction.align_corners is align_corners
    assert len(told["sha256"]) == 64
    assert "no preprocessor_config.json" in told["notes"][0]
    json.dumps(told)


def test_a_network_of_one_size_gets_its_own(saved):
    _, segmenter = saved(eomt)
    assert segmenter.description["input_size"] == [64, 64]
    assert segmenter(torch.rand(1, 3, 50, 90)).logits.shape == (1, 4, 50, 90)


FIXED = {"do_resize": True, "size": {"height": 48, "width": 64}}
SQUARE = {"do_resize": True, "size": 64}
EDGE = {"do_resize": True, "size": {"shortest_edge": 40, "longest_edge": 70}}


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (FIXED, (48, 64)),
        (SQUARE, (64, 64)),
        (EDGE, (35, 70)),
        ({**FIXED, "do_resize": False}, (45, 90)),
    ],
)
def test_sizes_of_the_processor(saved, settings, size):
    network, segmenter = saved(segformer, settings)
    images = torch.rand(1, 3, 45, 90)
    small = images
    for step in ((45, size[1]), size) if size != (45, 90) else ():  # 8-bit images between
        small = F.interpolate(small, step, mode="bilinear", antialias=True)
        small = (255 * small).round() / 255
    with torch.no_grad():
        expected = resized(network(normalised(small)).logits, images)
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=1e-4)


def test_input_size_overrides_the_processor(saved):
    _, segmenter = saved(segformer, FIXED, input_size="image")
    assert segmenter.description["input_size"] == "image"
    assert segmenter(torch.rand(1, 3, 32, 32)).native_logits.shape[-2:] == (8, 8)


@pytest.mark.parametrize(
    ("settings", "transform"),
    [
        ({"do_rescale": False, "do_normalize": False}, lambda x: 255 * x),
        ({"do_rescale": True, "do_normalize": False}, lambda x: x),
        ({"do_normalize": False, "do_flip_channel_order": True}, lambda x: x.flip(1)),
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
            lambda x: 2 * x - 1,
        ),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, lambda x: 2 * x - 1),
    ],
)
def test_normalisation_of_the_processor(saved, settings, transform):
    network, segmenter = saved(segformer, {"do_resize": False, **settings})
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = resized(network(transform(images)).logits, images)
    torch.testing.assert_close(segmenter(images).logits, expected, atol=1e-4, rtol=1e-3)


PROCESSORS = {
    "Segformer": {"size": {"height": 40, "width": 56}},
    "Beit": {"size": {"height": 40, "width": 56}, "do_center_crop": False},
    "DPT": {"size": {"height": 32, "width": 64}},
    "MobileViT": {"size": {"shortest_edge": 36}, "do_center_crop": False},
    "MobileNetV2": {"size": {"shortest_edge": 36}, "do_center_crop": False},
    "Mask2Former": {"size": {"shortest_edge": 40, "longest_edge": 50}, "size_divisor": 0},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pixels_are_the_processors_own_within_one_grey_level(saved, kind):
    """Keys that the folder leaves out have the values of the processor's class."""
    settings = PROCESSORS[kind]
    processor = getattr(transformers, f"{kind}ImageProcessorPil", None)
    if processor is None:
        pytest.skip("this transformers has no processors without torchvision")
    _, segmenter = saved(segformer, {"image_processor_type": f"{kind}ImageProcessor", **settings})
    how = segmenter.source.preprocessing
    image = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8)
    expected = processor(**settings)(image.permute(1, 2, 0).numpy(), return_tensors="pt")
    got = how(image[None].float() / 255, torch.float32)
    assert got.shape == expected["pixel_values"].shape
    level = 1.01 / 255 / min(how.std)
    torch.testing.assert_close(got, expected["pixel_values"], atol=level, rtol=0)
    assert how.origin == "preprocessor_config.json"
    assert not any("assumed" in note for note in segmenter.description["notes"])


@pytest.mark.parametrize("size", [{"longest_edge": 50}, None])
def test_other_sizes_of_a_processor(saved, size):
    settings = {"image_processor_type": "SegformerImageProcessor", "size": size}
    segmenter = saved(segformer, settings)[1]
    expected = [512, 512] if size is None else {"shortest_edge": None, "longest_edge": 50}
    assert segmenter.description["input_size"] == expected


def test_a_hole_in_the_names(saved):
    def holed():
        network = segformer()
        network.config.id2label = {0: "sky", 1: "road", 2: "car", 255: "void"}
        return network

    segmenter = saved(holed)[1]
    assert segmenter.class_names == ("sky", "road", "car", "class 3")
    assert any("leaves out names" in note for note in segmenter.description["notes"])


def test_one_label_is_the_foreground(saved):
    def one():
        config = segformer().config
        config.id2label = {0: "building"}
        return transformers.SegformerForSemanticSegmentation(config)

    prediction = saved(one)[1](torch.rand(1, 3, 64, 64))
    assert prediction.class_names == ("background", "building")
    assert prediction.features is not None


def test_size_divisor_pads(saved):
    _, segmenter = saved(segformer, {"do_resize": False, "size_divisor": 32})
    assert segmenter(torch.rand(1, 3, 40, 40)).covered == (64, 64)


def test_placeholder_names_are_no_names(saved):
    def unnamed():
        network = segformer()
        network.config.id2label = {i: f"LABEL_{i}" for i in range(4)}
        return network

    assert saved(unnamed)[1].class_names == ()


def test_names_that_come_twice_are_numbered(saved):
    def twice():
        network = segformer()
        network.config.id2label = dict(enumerate(("road", "sky", "Road", "tree")))
        return network

    _, segmenter = saved(twice)
    assert segmenter.class_names == ("road", "sky", "Road (2)", "tree")
    assert any("twice" in note for note in segmenter.description["notes"])


def test_folders_that_cannot_be_loaded(tmp_path, saved):
    with pytest.raises(UsageError, match=r"without config\.json, with nothing in it"):
        load(tmp_path)
    saved(segformer)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="preprocessing settings"):
        load(tmp_path)


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_pickled_code_is_not_run(tmp_path):
    segformer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Attack(tmp_path / "touched")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_missing_classifier_weights_are_an_error(tmp_path):
    segformer().segformer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="missing, such as decode_head"):
        load(tmp_path)


def test_other_tasks_are_refused(tmp_path):
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="semantic segmentation, got bert"):
        load(tmp_path)


def test_loading_is_quiet_and_leaves_transformers_as_it_was(tmp_path, capfd):
    segformer().save_pretrained(tmp_path)
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled(), warnings.filters[:]
    capfd.readouterr()
    load(tmp_path, mean=(0, 0, 0), std=(1, 1, 1))
    assert capfd.readouterr() == ("", "")
    after = logging.get_verbosity(), logging.is_progress_bar_enabled(), warnings.filters[:]
    assert before == after


@pytest.mark.real_data
def test_camvid_network():
    folder = SHARED / "models" / "camvid9"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    segmenter = load(folder)
    images = torch.rand(2, 3, 90, 121)
    prediction, told = segmenter(images), segmenter.description
    assert told["classifier"] == "decode_head.classifier"
    assert (told["features"], told["stride"], told["align_corners"]) == (64, 4, False)
    assert prediction.class_names[:3] == ("sky", "building", "pole")
    network = transformers.AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(normalised(images)).logits
    torch.testing.assert_close(prediction.logits, expected, atol=1e-4, rtol=0)
