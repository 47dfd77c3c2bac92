"""Windows over an image say what the network says of the whole image, in bounded memory."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.errors import UsageError
from doubtmap.prediction import Members, Prediction, Queries
from doubtmap.windows import Windows, for_images, usual_overlap
from doubtmap.windows.automatic import device_of, memory_of
from doubtmap.windows.blocks import Strips, blocks
from doubtmap.windows.spans import spans


class Strided(torch.nn.Module):
    """Two strided 3x3 convolutions: sees 3 pixels to each side; resized to the image."""

    def __init__(self, corners=False):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(6, 6, 3, stride=2, padding=1),
            torch.nn.ReLU(),
        )
        self.classifier = torch.nn.Conv2d(6, 4, 1)
        self.corners = corners

    def forward(self, x):
        scores = self.classifier(self.body(x))
        return F.interpolate(scores, x.shape[-2:], mode="bilinear", align_corners=self.corners)


def opened(network):
    return dm.load(network, mean=[0, 0, 0], std=[1, 1, 1])


@pytest.fixture(scope="module")
def network():
    return opened(Strided())


def image(height, width, count=1):
    drawn = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))
    return drawn


lengths = st.integers(1, 3000)
tiles = st.integers(2, 12).map(lambda n: 32 * n)


@given(lengths, tiles, st.data())
@settings(max_examples=60, deadline=None)
def test_spans_cover_an_axis_and_their_weights_add_up_to_one(length, tile, data):
    overlap = 32 * data.draw(st.integers(1, tile // 64))
    found = spans(length, tile, overlap)
    total = torch.zeros(length)
    for each in found:
        assert each.start % 32 == 0
        assert each.length < tile + 32
        total[each.start : each.stop] += each.weights(1, each.length)
    assert found[0].start == 0 and found[-1].stop == length
    torch.testing.assert_close(total, torch.ones(length), atol=1e-6, rtol=0)
    for one, other in itertools.pairwise(found):
        assert one.stop - other.start >= overlap
        # a quarter of the overlap counts for nothing
        assert not one.weights(1, one.length)[-(overlap // 4) :].any()
        assert not other.weights(1, other.length)[: overlap // 4].any()


@pytest.mark.parametrize(
    ("tile", "overlap"), [(64, 32), (96, 32), (128, 64), (160, 64), (1024, 128)]
)
def test_the_overlap_of_whoever_says_none_suits_the_tile(network, tile, overlap):
    assert usual_overlap(tile) == overlap
    Windows(network, tile, overlap)


@pytest.mark.parametrize(
    ("tile", "overlap", "named"),
    [(100, 32, "Try 96"), (32, 32, "Try 64"), (128, 96, "half of --tile, 64"), (128, 0, "Try 32")],
)
def test_tiles_that_do_not_go_together_are_refused(network, tile, overlap, named):
    with pytest.raises(UsageError, match=named):
        Windows(network, tile, overlap)


@pytest.mark.parametrize("size", [(256, 320), (250, 317), (90, 500), (64, 64)])
def test_windows_say_what_the_network_says_of_the_whole(network, size):
    images = image(*size, count=2)
    whole, found = network(images), Windows(network, 128, 32)(images)
    torch.testing.assert_close(found.logits, whole.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.features, whole.features, atol=1e-6, rtol=0)
    norm = dm.scores.pixel_gradient_norm
    torch.testing.assert_close(norm(found), norm(whole), rtol=1e-5, atol=1e-4)
    assert found.size == whole.size


def test_the_overlap_bounds_how_far_windows_differ():
    far = torch.nn.Conv2d(3, 2, 25, padding=12)  # sees 12 pixels to each side
    torch.nn.init.uniform_(far.weight, 0, 1 / 25**2)
    network = opened(far)
    images = image(64, 320)
    whole = network(images).logits
    off = [
        float((Windows(network, 128, overlap)(images).logits - whole).abs().max())
        for overlap in (32, 64)
    ]
    assert off[0] > 1e-3  # a quarter of 32 is 8
    assert off[1] < 1e-5  # a quarter of 64 is 16: all that it sees is there


def test_grids_that_do_not_continue_each_other_are_blended_at_the_size_of_the_image():
    corners = opened(Strided(corners=True))
    images = image(96, 256)
    found, whole = Windows(corners, 128, 64)(images), corners(images)
    assert found.native_logits.shape[-2:] == (96, 256)
    assert "does not fit whole pixels" in found.features_missing
    # each window's outermost samples lie on its own corners: at most a pixel elsewhere
    assert (found.classes == whole.classes).float().mean() > 0.95


@pytest.mark.parametrize("size", [(1065, 1035), (1028, 1048), (1030, 70)])
def test_a_coarse_grid_whose_last_cells_reach_beyond_the_image_continues(size):
    """Of 1033 pixels networks make 33 cells of 32, which are 31.3 pixels wide on the average."""
    coarse = opened(torch.nn.Conv2d(3, 2, 3, stride=32, padding=1))
    images = image(*size)
    found, whole = Windows(coarse, 1024, 64)(images), coarse(images)
    assert found.native_logits.shape == whole.native_logits.shape
    torch.testing.assert_close(found.logits, whole.logits, atol=1e-6, rtol=0)


def test_inner_layers_go_along(network):
    images = image(96, 256)
    found = Windows(network, 128, 32).listening(("body.0",))(images)
    whole = network.listening(("body.0",))(images)
    torch.testing.assert_close(found.layers["body.0"], whole.layers["body.0"], atol=1e-6, rtol=0)


@dataclasses.dataclass
class Rich:
    """All that a prediction may carry, each a function of the pixel alone."""

    class_names: tuple[str, ...] = ("a", "b")
    description: dict = dataclasses.field(default_factory=dict)

    def __call__(self, images):
        x = images[:, :2]
        size = tuple(x.shape[-2:])
        return Prediction(
            x,
            size,
            class_names=self.class_names,
            classes_of=Prediction(-x, size),
            members=Members(3, x[:, 0], x[:, 1]),
            queries=Queries(x[:, 0] * 2),
            energy_missing="it has none",
        )


def test_all_that_a_prediction_carries_goes_along():
    images = image(70, 200)
    found, whole = Windows(Rich(), 64, 32)(images), Rich()(images)
    for name in ("native_logits", "classes", "members.entropy", "members.spread"):
        got, expected = (eval(f"each.{name}", {"each": each}) for each in (found, whole))
        torch.testing.assert_close(got.float(), expected.float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.queries.accepted, whole.queries.accepted, atol=1e-6, rtol=0)
    assert found.members.count == 3
    assert found.energy_missing == "it has none"
    assert found.class_names == ("a", "b")


@pytest.mark.parametrize("panel", [256, 4096])
@pytest.mark.parametrize("size", [(256, 512), (64, 64), (90, 500)])
def test_blocks_are_the_image_without_a_gap(network, size, panel):
    pixels = image(*size)[0]
    whole = dm.scores.entropy(network(pixels[None]))[0].numpy()
    windows = Windows(network, 128, 64)
    laying = windows.laying(network(pixels[None, :, :128, :128]))
    strips = Strips(size, 128, 64, 32, panel)
    assert (len(strips.panels) > 1) == (size[1] > panel)

    def read(rows, columns):
        return pixels[:, slice(*rows), slice(*columns)]

    def looked(done):
        found = np.full(size, np.nan, np.float32)
        for _, block in blocks(windows, read, strips, laying, done):
            place = slice(*block.rows), slice(*block.columns)
            assert np.isnan(found[place]).all()
            found[place] = dm.scores.entropy(block.prediction)[0][block.inside].numpy()
        return found

    found = looked(())
    np.testing.assert_allclose(found, whole, atol=1e-5)
    done = strips.keys[: len(strips.keys) // 2]
    rest = looked(set(done))
    known = ~np.isnan(rest)
    np.testing.assert_array_equal(rest[known], found[known])
    left = sum(
        np.ptp(strips.range_of(row)) * np.ptp(strips.columns_of(panel))
        for panel, row in set(strips.keys) - set(done)
    )
    assert known.sum() == left


def test_parts_without_data_count_for_nothing(network):
    pixels = image(64, 512)[0]
    windows = Windows(network, 128, 64)
    laying = windows.laying(network(pixels[None, :, :, :128]))
    strips = Strips((64, 512), 128, 64, 32, 4096)

    def read(rows, columns):
        return None if columns[0] >= 256 else pixels[:, slice(*rows), slice(*columns)]

    found = np.zeros((64, 512), np.float32)
    for _, block in blocks(windows, read, strips, laying):
        values = dm.scores.entropy(block.prediction)[0][block.inside]
        found[slice(*block.rows), slice(*block.columns)] = values.numpy()
    whole = dm.scores.entropy(network(pixels[None]))[0].numpy()
    np.testing.assert_allclose(found[:, :250], whole[:, :250], atol=1e-5)


def test_windows_come_by_themselves_where_memory_is_short(network, monkeypatch):
    monkeypatch.setattr("doubtmap.windows.automatic.memory_of", lambda device: 2048.0 * 20_000)
    assert for_images(network, [(100, 100)]) == (network, None)
    found, note = for_images(network, [(10, 10), (200, 100)])
    assert isinstance(found, Windows)
    assert "200" in note and "--tile" in note


@pytest.fixture
def short_of_memory(monkeypatch):
    """So short that streets of 96 x 144 pixels do not fit."""
    monkeypatch.setattr("doubtmap.windows.automatic.memory_of", lambda device: 2048.0 * 10_000)


def test_windows_do_not_depend_on_what_others_take_at_the_moment(network):
    before = memory_of(torch.device("cpu"))
    taken = torch.zeros(2**24)
    assert memory_of(torch.device("cpu")) == before > taken.nbytes


def test_a_run_that_goes_on_keeps_its_windows(network, tmp_path, short_of_memory):
    run = tmp_path / "settings.json"
    run.write_text(json.dumps({"model": {"windows": {"tile": 96, "overlap": 32}}}))
    found, note = for_images(network, [(10, 10)], run)
    assert (found.tile, found.overlap) == (96, 32) and "goes on" in note
    run.write_text(json.dumps({"model": {"windows": None}}))
    assert for_images(network, [(9000, 9000)], run) == (network, None)


def test_the_device_of_a_network_is_found_behind_what_stands_before_it(network):
    ensemble = dm.models.Ensemble([network, network])
    assert device_of(ensemble) == device_of(Windows(ensemble)) == network.device


def test_every_command_looks_through_windows_where_memory_is_short(
    run, tmp_path, short_of_memory, monkeypatch
):
    monkeypatch.setattr("doubtmap.windows.automatic.TILE", 64)
    monkeypatch.setattr(Windows.__init__, "__defaults__", (64, 32))
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    streets = open_dataset("synthetic:2")
    for index in range(2):
        sample = streets[index]
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(
            tmp_path / f"images/{index}.png"
        )
        label = sample.label.numpy()
        Image.fromarray(np.where(label < 0, 255, label).astype(np.uint8)).save(
            tmp_path / f"labels/{index}.png"
        )
    names = "".join(f"{name} = {at}\n" for at, name in enumerate(streets.class_names))
    (tmp_path / "doubtmap.toml").write_text(
        'images = "images/{frame}.png"\nlabels = "labels/{frame}.png"\nother = "void"\n[classes]\n'
        + names
    )
    data, out = f"folder:{tmp_path}", tmp_path / "out"
    choice = ("--scores", "entropy", "--of", "wrong", "--by", "f1")
    for line in (
        ("evaluate", "demo", data, "--scores", "entropy", "--out", out),
        ("objects", "demo", tmp_path / "images", "--threshold", "9", "--out", out),
        ("fit", "segments", "demo", data, "--scores", "entropy", "--out", tmp_path / "s"),
        ("review", "demo", tmp_path / "images", "--segments", tmp_path / "s", "--out", out),
        ("calibrate", "demo", data, "--method", "temperature", "--out", tmp_path / "c"),
        ("threshold", "demo", data, *choice, "--out", tmp_path / "t"),
        ("score", "demo", tmp_path / "images", "--scores", "entropy", "--out", out),
    ):
        code, _, said = run(*line)
        assert code == 0, (line, said)
        assert "looked at through windows of 64" in " ".join(said.split()), line
    about = json.loads((out / "score.json").read_text())
    assert about["model"]["windows"] == {"tile": 64, "overlap": 32}
