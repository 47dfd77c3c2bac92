"""EoMT: squares along the longer side, and padding, as transformers' own processor has them."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from doubtmap.errors import ModelError
from doubtmap.models import load
from doubtmap.models.preprocessing import IMAGENET_STD, EdgeSize

transformers = pytest.importorskip("transformers")
if not hasattr(transformers, "EomtImageProcessor"):
    pytest.skip("this transformers has no EoMT", allow_module_level=True)

PROCESSOR = getattr(transformers, "EomtImageProcessorPil", transformers.EomtImageProcessor)
WINDOWS = {
    "image_processor_type": "EomtImageProcessor",
    "size": {"shortest_edge": 64, "longest_edge": None},
    "do_split_image": True,
}
PADDED = {
    "image_processor_type": "EomtImageProcessor",
    "size": {"shortest_edge": 64, "longest_edge": 64},
    "do_pad": True,
}


@pytest.fixture
def saved(tmp_path):
    """A tiny EoMT with random weights, and the same loaded with a processor's settings."""

    def save(settings):
        torch.manual_seed(0)
        config = transformers.EomtConfig(
            hidden_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=64,
            patch_size=16, num_blocks=1, num_queries=6, num_upscale_blocks=2, num_labels=4,
        )  # fmt: skip
        network = transformers.EomtForUniversalSegmentation(config).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    parameter.add_(0.2 * torch.randn_like(parameter))
        network.save_pretrained(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        return network, load(tmp_path)

    return save


def processed(settings, image):
    """What transformers' own processor makes of an image, and the processor."""
    processor = PROCESSOR(**settings)
    found = processor(image.permute(1, 2, 0).numpy(), return_tensors="pt")
    return processor, found


@pytest.mark.parametrize("size", [(50, 171), (171, 50), (64, 64), (96, 130)])
@pytest.mark.parametrize("settings", [WINDOWS, PADDED], ids=["windows", "padded"])
def test_eomt_sees_what_its_processor_gives(saved, settings, size):
    _, segmenter = saved(settings)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    _, found = processed(settings, image)
    how = segmenter.source.preprocessing
    x = how(image[None].float() / 255, torch.float32)
    places = how.windows(how.size(size))
    ours = torch.cat([x[..., top : top + 64, left : left + 64] for top, left in places])
    level = 1 / 255 / min(IMAGENET_STD)
    assert ours.shape == found["pixel_values"].shape
    assert (ours - found["pixel_values"]).abs().max() < 1.01 * level


@pytest.mark.parametrize("size", [(50, 171), (171, 50), (64, 64)])
def test_labels_of_eomt_in_windows_are_its_processors(saved, size):
    network, segmenter = saved(WINDOWS)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    processor, found = processed(WINDOWS, image)
    with torch.no_grad():
        output = network(pixel_values=found["pixel_values"])
    output.patch_offsets = found["patch_offsets"]
    expected = processor.post_process_semantic_segmentation(output, [size])[0]
    prediction = segmenter(image[None])
    assert (prediction.classes[0] == expected).float().mean() > 0.999
    assert prediction.queries is not None and prediction.queries.accepted.shape == (1, *size)
    assert "squares of 64 pixels" in " ".join(segmenter.description["notes"])
    with pytest.raises(ModelError, match="this one sees it in squares of 64 pixels"):
        segmenter.listening(["class_predictor"])(image[None])


def test_padding_of_eomt_is_cut_off_again(saved):
    network, segmenter = saved(PADDED)
    image = torch.randint(0, 256, (3, 40, 90), dtype=torch.uint8)
    processor, found = processed(PADDED, image)
    with torch.no_grad():
        output = network(pixel_values=found["pixel_values"])
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    masks = F.interpolate(output.masks_queries_logits, (64, 64), mode="bilinear").sigmoid()
    scores = torch.einsum("bqc, bqhw -> bchw", classes, masks)
    expected = processor.unpad_image(scores, [(40, 90)], PADDED["size"])[0].argmax(0)
    assert (segmenter(image[None]).classes[0] == expected).float().mean() > 0.999


@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    shortest=st.integers(16, 1024),
    longest=st.none() | st.integers(1024, 2048),
)
def test_sizes_by_edges_are_transformers_own(size, shortest, longest):
    own = transformers.image_transforms.get_size_with_aspect_ratio(size, shortest, longest)
    ours = EdgeSize(shortest, longest)(size)
    assert ours == tuple(max(1, side) for side in own)
