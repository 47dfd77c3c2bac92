"""Where the samples of native logits lie on the image, against PyTorch's own interpolation."""

import pytest
import torch
import torch.nn.functional as F

from doubtmap.kernels import resize_logits
from doubtmap.kernels.resizing import neighbours


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("pixels", "samples"), [(8, 4), (37, 5), (5, 9), (6, 1)])
def test_between_samples_lies_what_interpolation_says(pixels, samples, align_corners):
    lower, weight = neighbours(pixels, samples, float(pixels), align_corners)
    ramp = torch.arange(float(samples))[None, None, None]
    expected = F.interpolate(ramp, (1, pixels), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(lower + weight, expected[0, 0, 0])
    assert (lower >= 0).all() and (lower + weight <= samples - 1).all()


def test_classes_masked_by_the_lowest_number_stay_finite():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 5, 7)
    logits[:, 1] = torch.finfo(torch.float32).min
    found = resize_logits(logits, (33, 40), (34.0, 42.0))
    assert found.isfinite().all() and (found.argmax(1) != 1).all()
    found = resize_logits(logits, (33, 40))
    assert found.isfinite().all() and (found.argmax(1) != 1).all()
