import pytest
import torch
from torch.nn import functional as F

from doubtmap.training.batches import (
    NONE,
    Augmentation,
    generator,
    nearest,
    recoloured,
    resized,
    view,
)

FILL = (0.25, 0.5, 0.75)
RAMP = torch.arange(20 * 30).view(20, 30) % 200


def picture():
    """An image whose red is its label."""
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[0] = RAMP.to(torch.uint8)
    return image, RAMP.to(torch.int16)


def seen(augmentation, crop=(12, 16), seed=0):
    return view(*picture(), crop, augmentation, generator(seed), void=-2, fill=FILL)


def test_without_augmentation_and_at_its_own_size_the_image_is_itself():
    image, label = seen(NONE, (20, 30))
    torch.testing.assert_close(image, picture()[0] / 255)
    assert torch.equal(label, picture()[1].long())


@pytest.mark.parametrize("seed", range(8))
def test_crops_and_flips_keep_labels_on_their_pixels(seed):
    image, label = seen(Augmentation(scale=(1, 1), flip=0.5, colour=0), seed=seed)
    assert image.shape == (3, 12, 16) and label.shape == (12, 16)
    assert torch.equal((image[0] * 255).round().long(), label)


def test_flips_and_places_vary():
    views = [seen(Augmentation(scale=(1, 1), colour=0), seed=seed)[1] for seed in range(32)]
    assert {int(v[0, 1] - v[0, 0]) for v in views} == {-1, 1}
    corners = [int(min(v[0, 0], v[0, -1])) for v in views]  # 30 * row + column, modulo 200
    assert {(c % 200) // 30 for c in corners} >= {0, 2, 4} and len(set(corners)) > 16


def test_beyond_the_image_is_void_and_of_the_fill():
    image, label = seen(NONE, (25, 40))
    assert torch.equal(label[:20, :30], picture()[1].long())
    assert (label[20:] == -2).all() and (label[:, 30:] == -2).all()
    torch.testing.assert_close(image[:, 22, 35], torch.tensor(FILL))


@pytest.mark.parametrize("factor", [0.5, 0.73, 1.5, 2.0])
def test_labels_are_resized_by_the_nearest_centre_and_images_as_pytorch_does(factor):
    image, label = picture()[0] / 255, picture()[1].long()
    bigger, labels = resized(image, label, factor)
    size = (round(20 * factor), round(30 * factor))
    assert tuple(labels.shape) == size and tuple(bigger.shape[1:]) == size
    exact = F.interpolate(label[None, None].double(), size, mode="nearest-exact")[0, 0].long()
    assert torch.equal(labels, exact)
    smooth = F.interpolate(image[None], size, mode="bilinear", antialias=factor < 1)[0]
    torch.testing.assert_close(bigger, smooth)


def test_nearest_never_leaves_the_samples():
    for old in (1, 2, 7, 100):
        for new in (1, 3, 50, 333):
            index = nearest(old, new)
            assert index.min() >= 0 and index.max() < old and (index.diff() >= 0).all()


def test_scales_are_drawn_evenly_in_the_logarithm():
    white = torch.full((3, 20, 20), 255, dtype=torch.uint8), torch.zeros(20, 20)
    shares = []
    for seed in range(300):
        _, label = view(
            *white, (40, 40), Augmentation(colour=0), generator(seed), void=-2, fill=FILL
        )
        shares.append((label == 0).double().mean().sqrt().item() * 2)
    scales = torch.tensor(shares).log2()
    assert -1.05 < scales.min() < -0.95 and 0.95 < scales.max() < 1.05
    assert abs(scales.mean()) < 0.1 and (scales < 0).double().mean() == pytest.approx(0.5, abs=0.1)


def test_recolouring_known_answers():
    image = torch.rand(3, 4, 5, generator=generator(0)) * 0.5
    torch.testing.assert_close(recoloured(image, 1, 1, 1), image)
    torch.testing.assert_close(recoloured(image, 1.5, 1, 1), image * 1.5)
    grey = recoloured(image, 1, 1, 0)
    torch.testing.assert_close(grey[0], grey[1])
    flat = recoloured(image, 1, 0, 0)
    assert (flat - flat.mean()).abs().max() < 1e-6
    assert recoloured(image + 0.5, 1.2, 1.2, 1.2).max() <= 1


def test_views_depend_on_the_generator_alone():
    first, again, other = (seen(Augmentation(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
