"""Files that look like a flow's and are none that negatives can be drawn from."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_flows import flow_of, tiny_flow

from doubtmap.errors import DataError
from doubtmap.training.flow import FlowShape
from doubtmap.training.flow_training import read_flow, write_flow


def test_a_flow_whose_patches_are_too_coarse_is_refused(tmp_path):
    """Sides of patches are multiples of 8; what takes those of 4 takes them too."""
    path = tmp_path / "f.safetensors"
    write_flow(path, flow_of(shape=FlowShape(4, 1, 4), dtype=torch.float32, amount=0.01))
    with pytest.raises(DataError, match=r"takes sides that are multiples of 16, not of 8\)\."):
        read_flow(path)
    write_flow(path, flow_of(shape=FlowShape(2, 1, 4), dtype=torch.float32, amount=0.01))
    assert read_flow(path)[0].divisor == 4


@pytest.mark.parametrize("meta", [None, {"format": "pt"}])
def test_weights_that_doubtmap_did_not_write_are_refused(tmp_path, meta):
    path = tmp_path / "f.safetensors"
    write_flow(path, tiny_flow())
    save_file(load_file(path), path, meta)
    with pytest.raises(DataError, match=r"\(doubtmap did not write it\)\. Leave --flow out"):
        read_flow(path)


@pytest.mark.parametrize("about", ["no", "[]", "{}", '{"kind": "flow"}'])
def test_a_header_that_says_too_little_is_refused(tmp_path, about):
    path = tmp_path / "f.safetensors"
    write_flow(path, tiny_flow())
    save_file(load_file(path), path, {"doubtmap": about})
    with pytest.raises(DataError, match=r"cannot be read \(.+\)\. Leave --flow out"):
        read_flow(path)
