"""Networks of other bands than red, green and blue, from files of many bands to figures."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import doubtmap as dm
from doubtmap.datasets import Outlines, Pasted, open_dataset
from doubtmap.datasets.reading import Rendering, read_image
from doubtmap.engine.settings import with_bands_of
from doubtmap.errors import DataError, UsageError

CLASSES = ("water", "field", "wood")
SIZE = (24, 32)
NETWORK = """
import torch
from torch import nn

def of(bands):
    '''A pixel's class is which of the last three bands is brightest.'''
    network = nn.Conv2d(bands, 3, 1, bias=False)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[[0, 1, 2], [bands - 3, bands - 2, bands - 1]] = 9.0
    return nn.Sequential(network)

def four(): return of(4)
def twelve(): return of(12)
"""
DESCRIPTION = """
images = "images/{name}.tif"
labels = "labels/{name}.png"

[classes]
water = 0
field = 1
wood = 2
"""


def write_tiff(path, pixels):
    """An uncompressed TIFF of `(H, W, K)` whole numbers, bands interleaved."""
    height, width, bands = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    extra = 8 + 2 + 12 * 10 + 4
    shorts = (
        struct.pack(f"<{bands}H", *[bits] * bands),
        struct.pack(f"<{bands - 3}H", *[0] * (bands - 3)),
    )
    content = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, extra), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2), (273, 4, 1, extra + 4 * bands), (277, 3, 1, bands)]
    tags += [(278, 3, 1, height), (279, 4, 1, len(content))]
    few = bands - 3 < 3
    packed = int.from_bytes(shorts[1], "little") if few else extra + 2 * bands
    tags += [(338, 3, bands - 3, packed)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0"
    path.write_bytes(head + b"".join(shorts).ljust(4 * bands, b"\0") + content)


@pytest.fixture
def field(tmp_path):
    """Five images of twelve bands whose classes lie in bands 2, 3 and 8, one label in ten wrong."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        label = generator.integers(0, 3, SIZE).astype(np.uint8)
        pixels = generator.integers(0, 256, (*SIZE, 12)).astype(np.uint8)
        for which, band in enumerate((2, 3, 8)):
            noise = generator.integers(0, 40, SIZE)
            pixels[..., band - 1] = np.where(label == which, 210, 20 + 20 * which) + noise
        label.flat[::10] = (label.flat[::10] + 1) % 3
        write_tiff(tmp_path / "images" / f"{number}.tif", pixels)
        Image.fromarray(label).save(tmp_path / "labels" / f"{number}.png")
    (tmp_path / "doubtmap.toml").write_text(DESCRIPTION)
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


FOUR = "--bands 1,2,3,8 --mean 0,0,0,0 --std 1,1,1,1 --classes water,field,wood"


@pytest.mark.parametrize(
    "command",
    [
        "score MODEL IMAGES --out OUT --scores entropy",
        "objects MODEL IMAGES --out OUT --scores entropy --threshold 1.05",
        "fit doubt MODEL DATA --out FILE",
        "fit density MODEL DATA --out FILE",
        "threshold MODEL DATA --score entropy --of wrong --by f1 --out FILE",
        "calibrate MODEL DATA --method temperature --out FILE --replicates 20",
        "info MODEL IMAGE",
    ],
    ids=lambda command: command.split(" MODEL")[0],
)
def test_every_command_hands_the_bands_to_the_network(run, field, command):
    words = {"MODEL": f"python:{field / 'net.py'}:four", "IMAGES": field / "images"}
    words |= {"DATA": f"folder:{field}", "OUT": field / "out", "FILE": field / "fitted"}
    words |= {"IMAGE": field / "images" / "0.tif"}
    given = [words.get(word, word) for word in command.split()]
    code, _, said = run(*given, *FOUR.split())
    assert code == 0, said


def test_classes_of_four_of_twelve_bands_are_right(run, field):
    code, _, said = run(
        *("evaluate", f"python:{field / 'net.py'}:four", f"folder:{field}", *FOUR.split()),
        *("--scores", "entropy,gradient", "--out", field / "out"),
    )
    assert code == 0, said
    figures = json.loads((field / "out" / "results.json").read_text())
    label = np.arange(SIZE[0] * SIZE[1]) % 10 == 0
    assert figures["segmentation"]["accuracy"] == pytest.approx(1 - label.mean())
    assert "pictures show the first" in " ".join(figures["notes"])


def test_all_bands_go_to_a_network_of_as_many_means(run, field):
    means = ",".join(["0.1"] * 12)
    code, _, said = run(
        *("score", f"python:{field / 'net.py'}:twelve", field / "images", "--mean", means),
        *("--std", means, "--scores", "entropy", "--out", field / "out"),
    )
    assert code == 0, said
    segmenter = dm.load(f"python:{field / 'net.py'}:twelve", mean=[0.1] * 12, std=[0.1] * 12)
    pixels = with_bands_of(segmenter, open_dataset(f"folder:{field}"))[0].image
    assert pixels.shape == (12, *SIZE)
    classes = np.asarray(Image.open(field / "out" / "classes" / "0.png"))
    assert (classes == pixels[9:].float().argmax(0).numpy()).all()


def test_bands_of_sixteen_bits_and_a_limit(run, field):
    for path in (field / "images").iterdir():
        pixels = read_image(path, Rendering(every=12)).permute(1, 2, 0).numpy()
        write_tiff(path, pixels.astype(np.uint16) * 257)
    words = (f"python:{field / 'net.py'}:four", f"folder:{field}", *FOUR.split(), "--limit", 2)
    code, _, said = run("evaluate", *words, "--scores", "entropy", "--out", field / "out")
    assert code == 0, said
    figures = json.loads((field / "out" / "results.json").read_text())
    assert figures["segmentation"]["accuracy"] == pytest.approx(0.9, abs=0.01)
    assert "0 to 65535" in " ".join(figures["notes"])


def test_a_file_without_the_bands_is_named_and_can_be_skipped(run, field):
    Image.new("RGB", SIZE[::-1]).save(field / "images" / "flat.png")
    words = ("score", f"python:{field / 'net.py'}:four", field / "images", *FOUR.split())
    code, _, said = run(*words, "--scores", "entropy", "--out", field / "out")
    assert code == 1 and "flat.png: expected 8 bands or more, as the network takes, got 3" in said
    code, out, said = run(*words, "--scores", "entropy", "--out", field / "out", "--skip-bad")
    assert code == 0 and "5 of 6 images scored, 1 could not be used" in out


def test_a_data_set_in_python_gives_its_bands():
    network = nn.Conv2d(4, 3, 1)
    segmenter = dm.load(network, classes=CLASSES, mean=[0.0] * 4, std=[1.0] * 4)
    pairs = [(torch.rand(4, 8, 8), torch.randint(0, 3, (8, 8))) for _ in range(2)]
    found = dm.evaluate(segmenter, pairs, scores=["entropy"], replicates=20)
    assert len(found.figures["images"]) == 2
    with pytest.raises(DataError, match=r"expected an image \(4, H, W\), got \(3, 8, 8\)"):
        dm.evaluate(segmenter, [(torch.rand(3, 8, 8), pairs[0][1])], scores=["entropy"])


def test_nothing_is_pasted_into_other_bands(field):
    segmenter = dm.load(nn.Conv2d(4, 3, 1), classes=CLASSES, mean=[0.0] * 4, std=[1.0] * 4)
    pasted = Pasted(open_dataset(f"folder:{field}"), Outlines("objects", ()), 0)
    with pytest.raises(UsageError, match="pasting: expected a network that takes RGB images"):
        dm.evaluate(segmenter, pasted, scores=["entropy"])
