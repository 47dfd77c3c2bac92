"""Where memory ends, the image is named, and what was done stays."""

import numpy as np
import pytest
import torch
from PIL import Image

from doubtmap.errors import DataError, is_out_of_memory, within_memory

ENDS = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        if x.shape[-1] > 40:
            raise {error}
        return torch.cat([x.mean(1, True), 1 - x.mean(1, True)], 1)

make = Net
"""
CPU = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A small image, and one that is too large for the network below."""
    monkeypatch.chdir(tmp_path)
    for name, width in (("a_small", 32), ("b_large", 64)):
        values = np.random.default_rng(0).integers(0, 256, (24, width, 3), np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / f"images/{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    "error",
    [
        f'RuntimeError("{CPU}")',
        'torch.cuda.OutOfMemoryError("CUDA out of memory.")',
        "MemoryError()",
    ],
)
def test_the_image_is_named_and_the_others_stay(images, run, error):
    (images / "net.py").write_text(ENDS.replace("{error}", error))
    told = run(
        *["score", "python:net.py:make", "images", "--scores", "entropy", "--classes", "a,b"]
    )
    assert told[0] == 1
    assert "b_large.png: out of memory on an image of 64 x 24 pixels" in told[2]
    assert "--input-size 12x32" in told[2]
    assert (images / "doubt/classes/a_small.png").exists()


def test_skipped_images_are_counted(images, run):
    (images / "net.py").write_text(ENDS.replace("{error}", "MemoryError()"))
    line = "score python:net.py:make images --scores entropy --classes a,b --skip-bad"
    code, said, _ = run(*line.split())
    assert code == 0 and "1 of 2 images scored, 1 could not be read" in said


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match="another"), within_memory((2, 3)):
        raise RuntimeError("another")
    named = pytest.raises(DataError, match=r"^a: out of memory on an image of 3 x 2")
    with named, within_memory((2, 3), "a"):
        torch.empty(2**50)
    assert not is_out_of_memory(ValueError("out of memory"))
