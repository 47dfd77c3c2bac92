import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from doubtmap.datasets import open_dataset, rasters, read_image, read_label
from doubtmap.datasets.reading import Rendering, read_size
from doubtmap.errors import DataError


def pixel(path, **options):
    image = read_image(path, **options)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("RGB", (10, 20, 30), "png", [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), "png", [10, 20, 30]),
        ("L", 77, "png", [77, 77, 77]),
        ("LA", (77, 5), "png", [77, 77, 77]),
        ("1", 1, "png", [255, 255, 255]),
        ("CMYK", (0, 0, 0, 255), "tif", [0, 0, 0]),
        ("CMYK", (255, 0, 0, 0), "tif", [0, 255, 255]),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, colour, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    Image.new(mode, (4, 3), colour).save(path)
    assert pixel(path) == expected
    assert read_image(path).shape == (3, 3, 4)


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red, green, blue = pixel(tmp_path / "a.jpg")
    assert red > 250 and green < 5 and blue < 5


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert pixel(tmp_path / "a.png") == [200, 100, 50]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (65535, 255), (257 * 100, 100)])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, value, expected):
    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        Image.fromarray(np.full((3, 4), value, np.uint16)).save(path)
        assert pixel(path) == [expected] * 3


def test_values_beyond_sixteen_bits(tmp_path):
    Image.fromarray(np.full((3, 4), 70000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: expected values of 0 to 65535, got 70000"):
        read_image(tmp_path / "a.tif")


def test_formats_that_run_programs_are_not_opened(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png", format="EPS")
    with pytest.raises(DataError, match="another format than PNG, JPEG"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0), (0.5, 128), (1.0, 255), (64.0, 64)])
def test_floating_point_image(tmp_path, value, expected):
    """Fractions are shares of white; whole numbers in floats have the bits that they use."""
    Image.fromarray(np.full((3, 4), value, np.float32)).save(tmp_path / "a.tif")
    assert pixel(tmp_path / "a.tif") == [expected] * 3


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_fractions_whose_range_is_not_said(tmp_path, value):
    Image.fromarray(np.full((3, 4), value, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: expected (values from 0|fractions|finite)"):
        read_image(tmp_path / "a.tif")


def test_content_decides_not_the_suffix(folder):
    path = folder.image("photo.png", format="JPEG", colour=(50, 50, 50))
    assert path.read_bytes().startswith(b"\xff\xd8")
    assert pixel(path) == [50, 50, 50]


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_photographs_are_turned_upright_as_pillow_turns_them(tmp_path, turned, suffix):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = turned
    values = np.random.default_rng(0).integers(0, 256, (8, 16, 3), np.uint8)
    Image.fromarray(values).save(path, exif=exif)
    stored = Image.open(path)
    expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert (read_image(path).permute(1, 2, 0).numpy() == expected).all()
    assert read_size(path) == expected.shape[:2]
    as_stored = read_image(path, Rendering(upright=False)).permute(1, 2, 0).numpy()
    # Pillow turns TIFF by itself on opening; what was written is what is stored.
    stored = np.asarray(Image.open(path)) if suffix == "jpg" else values
    assert (as_stored == stored).all()


def test_truncated_jpeg_names_the_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    with pytest.raises(DataError, match=r"cut\.jpg: expected a readable image, got a damaged"):
        read_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_truncated_png_names_the_file(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[: int(buffer.tell() * share)])
    with pytest.raises(DataError, match=r"cut\.png: expected a readable image"):
        read_label(tmp_path / "cut.png")


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: expected a readable image"):
        read_image(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: expected an image file, found nothing there"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match="expected an image file, found a folder there"):
        read_image(tmp_path)


def test_too_many_pixels(folder, monkeypatch):
    path = folder.image("a.png", height=10, width=10)
    monkeypatch.setattr(rasters, "MAX_PIXELS", 99)
    with pytest.raises(DataError, match=r"a\.png: expected at most .* pixels, got 10 x 10"):
        read_image(path)


def test_too_many_pixels_for_pillow(folder, monkeypatch):
    path = folder.image("a.png", height=10, width=10)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(DataError, match=r"a\.png: expected at most .* million pixels"):
        read_image(path)


def test_label_values_of_grey_palette_bilevel_and_deep_files(folder, tmp_path):
    rows = [[0, 1, 255], [7, 7, 7]]
    assert read_label(folder.label("grey.png", rows)).tolist() == rows
    assert read_label(folder.label("palette.png", rows, palette=True)).tolist() == rows
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert read_label(tmp_path / "bits.png").tolist() == [[1, 0]]
    Image.fromarray(np.array([[300, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_label(tmp_path / "deep.png").tolist() == [[300, 65535]]


def test_label_in_colour_says_how_to_describe_it(folder):
    path = folder.image("labels_masks/a.png")
    folder.image("images/a.png")
    message = r"a\.png: .*colour image, with #0a141e in row 0, column 0.*doubtmap\.toml"
    with pytest.raises(DataError, match=message):
        open_dataset(f"smiyc:{folder.root}")[0]
    assert read_label(path).tolist() == [[[10, 20, 30]] * 3] * 2


def test_label_with_loss(tmp_path):
    Image.new("L", (4, 3)).save(tmp_path / "label.png", format="JPEG")
    with pytest.raises(DataError, match=r"label\.png: expected label values without loss"):
        read_label(tmp_path / "label.png")


def test_damaged_image_in_a_data_set(folder):
    folder.text("images/a.png", "no image")
    folder.label("labels_masks/a.png", [[0]])
    dataset = open_dataset(f"smiyc:{folder.root}")
    with pytest.raises(DataError, match=r"images/a\.png"):
        dataset[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got an empty file"),
        (b"<html>", "got a damaged file"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "got a film. Give films to doubtmap score"),
        (b"\0\0\0\x20ftypheic" + bytes(40), "HEIC|damaged"),
    ],
)
def test_files_that_are_no_images_say_what_they_are(tmp_path, content, said):
    (path := tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        read_image(path)
    assert "BytesIO" not in str(raised.value)
