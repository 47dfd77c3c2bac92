"""TIFF files of all kinds: what tifffile wrote is what is read; the usual ones need no extra."""

import sys

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

import doubtmap as dm
from doubtmap.datasets import read_image
from doubtmap.datasets.rasters import read_header, read_raster
from doubtmap.datasets.reading import Rendering, read_labelled
from doubtmap.datasets.tiff import turn
from doubtmap.errors import DataError

tifffile = pytest.importorskip("tifffile", reason="the extra tiff is not installed")
pytest.importorskip("imagecodecs", reason="the extra tiff is not installed")

KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def write(path, values, **options):
    """`(H, W, bands)` values, planes first where they are apart."""
    bands = values.shape[2]
    if bands == 1:
        values, options = values[..., 0], {**options, "planarconfig": None}
    elif options["planarconfig"] == "separate":
        values = values.transpose(2, 0, 1)
    photometric = "rgb" if bands in (3, 4) else "minisblack"
    tifffile.imwrite(path, values, photometric=photometric, **options)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    bands=st.sampled_from([1, 2, 3, 4, 5, 9]),
    planes=st.sampled_from(["contig", "separate"]),
    tile=st.sampled_from([None, (16, 32)]),
    compression=st.sampled_from([None, "zlib", "lzw", "zstd", "packbits", "lzma", "lerc"]),
    big=st.booleans(),
    order=st.sampled_from(["<", ">"]),
    seed=st.integers(0, 99),
)
def test_every_value_is_read(
    tmp_path_factory, kind, bands, planes, tile, compression, big, order, seed
):
    values = np.random.default_rng(seed).integers(0, 100, (19, 37, bands)).astype(kind)
    path = tmp_path_factory.mktemp("tiff") / "a.tif"
    how = {"planarconfig": planes, "tile": tile, "compression": compression}
    try:
        write(path, values, bigtiff=big, byteorder=order, **how)
    except ValueError:
        reject()  # there is no such file
    raster = read_raster(path)
    assert (raster.pixels == values).all()
    assert (read_header(path).height, read_header(path).width) == values.shape[:2]


@pytest.mark.parametrize("bits", [2, 4, 10, 12, 14])
def test_depths_between(tmp_path, bits):
    values = np.arange(40 * 3, dtype=np.uint16).reshape(3, 40) * 31 % 2**bits
    kind = np.uint8 if bits < 8 else np.uint16
    try:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(values.astype(kind), bitspersample=bits, photometric="minisblack")
    except NotImplementedError as error:
        pytest.skip(f"this imagecodecs reads such files, but writes none: {error}")
    raster = read_raster(tmp_path / "a.tif")
    assert (raster.pixels[..., 0] == values).all()
    shades = read_image(tmp_path / "a.tif")[0].numpy()
    assert np.abs(shades - values.astype(int) * 255 / (2**bits - 1)).max() <= 1


def test_grey_pages_are_bands_but_smaller_copies_are_none(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (3, 32, 48), np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", values, photometric="minisblack")
    assert (read_image(tmp_path / "pages.tif").numpy() == values).all()
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        whole = values.transpose(1, 2, 0)
        file.write(whole, photometric="rgb")
        file.write(whole[::2, ::2], photometric="rgb", subfiletype=1)
    assert (read_image(tmp_path / "pyramid.tif").numpy() == values).all()


def test_bands_by_the_names_that_gdal_writes(tmp_path):
    names = "".join(
        f'<Item name="DESCRIPTION" sample="{k}" role="description">{name}</Item>'
        for k, name in enumerate(("Blue", "Green", "Red", "NIR"))
    )
    values = np.random.default_rng(0).integers(0, 255, (8, 9, 4), np.uint8)
    tag = (42112, 2, 0, f"<GDALMetadata>{names}</GDALMetadata>", True)
    for planes in ("contig", "separate"):
        write(tmp_path / "a.tif", values, planarconfig=planes, extratags=[tag])
        image = read_image(tmp_path / "a.tif").permute(1, 2, 0).numpy()
        assert (image == values[..., [2, 1, 0]]).all()
        chosen = read_image(tmp_path / "a.tif", Rendering(bands=(4, 1, 2)))
        assert (chosen.permute(1, 2, 0).numpy() == values[..., [3, 0, 1]]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_pixels_are_given_as_stored(tmp_path, orientation, kind):
    values = np.random.default_rng(0).integers(0, 100, (6, 9, 3)).astype(kind)
    tag = (274, 3, 1, orientation, True)
    write(tmp_path / "a.tif", values, planarconfig="contig", extratags=[tag])
    raster = read_raster(tmp_path / "a.tif")
    assert (raster.pixels == values).all()
    assert (raster.upright.pixels == turn(values, orientation)).all()


@pytest.mark.parametrize(("kind", "bands"), [("u1", 3), ("u2", 1), ("u2", 3), ("f4", 1), ("i4", 1)])
def test_the_usual_kinds_need_no_extra(tmp_path, monkeypatch, kind, bands):
    values = np.random.default_rng(0).integers(0, 200, (6, 9, bands)).astype(kind)
    write(tmp_path / "a.tif", values, planarconfig="contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert (read_raster(tmp_path / "a.tif").pixels == values).all()


def test_others_say_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", np.zeros((6, 9, 5), np.uint16), planarconfig="contig")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"a\.tif: expected tifffile.*doubtmap\[tiff\]"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_damaged_files_are_named(tmp_path, share, compression):
    values = np.random.default_rng(0).integers(0, 2**16, (64, 64, 5), np.uint16)
    path = tmp_path / "a.tif"
    write(path, values, planarconfig="contig", compression=compression, tile=(16, 16))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"a\.tif: expected a readable image"):
        read_image(path)


def test_a_palette_of_several_pages(tmp_path):
    first = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    first.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first.copy()])
    assert read_image(tmp_path / "a.tif")[:, 0].T.tolist() == [
        [10, 20, 30],
        [40, 50, 60],
        [70, 80, 90],
    ]


HOLES = {
    "a mask": ("uint8", 3, {}),
    "a mask of deep bands": ("uint16", 5, {}),
    "alpha": ("uint8", 4, {"alpha": "yes"}),
    "a number": ("int16", 1, {"nodata": -99}),
    "a number of many bands": ("float32", 4, {"nodata": -3.4e38}),
    "NaN": ("float32", 1, {"nodata": float("nan")}),
    "NaN that is not said": ("float32", 2, {}),
}


@pytest.fixture(params=HOLES)
def holed(request, tmp_path):
    """A data set of one GeoTIFF that lacks data in places, with labels everywhere."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
    kind, bands, options = HOLES[request.param]
    generator = np.random.default_rng(0)
    values = generator.integers(1, 200, (bands, 24, 32)).astype(kind)
    values = values / 200 if kind == "float32" else values
    there = generator.random((24, 32)) < 0.8
    if request.param == "alpha":
        values[3] = 255 * there
    elif "mask" not in request.param:
        values[0, ~there] = options.get("nodata", np.nan)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "images" / "a.tif"
    profile = {"width": 32, "height": 24, "count": bands, "dtype": kind, **options}
    colours = {"photometric": "rgb"} if bands in (3, 4) and kind == "uint8" else {}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            *(path, "w"),
            driver="GTiff",
            crs="EPSG:32632",
            transform=rasterio.Affine(1, 0, 4e5, 0, -1, 5e6),
            **colours,
            **profile,
        ) as file,
    ):
        file.write(values.astype(kind))
        if "mask" in request.param:
            file.write_mask(there)
    label = generator.integers(0, 2, (24, 32)).astype(np.uint8)
    Image.fromarray(label).save(tmp_path / "labels" / "a.png")
    (tmp_path / "doubtmap.toml").write_text(
        'images = "images/{frame}.tif"\nlabels = "labels/{frame}.png"\nrange = [0, 255]\n'
        "[classes]\nfield = 0\nwood = 1\n"
    )
    return tmp_path, path, there, label


def test_pixels_without_data_are_void_as_score_leaves_them_out(holed):
    folder, path, there, label = holed
    sample = dm.open_dataset(f"folder:{folder}")[0]
    assert sample.image.shape == (3, 24, 32)
    known = sample.label.numpy() >= 0
    assert (known == there).all() and 0 < there.mean() < 1
    assert (sample.label.numpy()[there] == label[there]).all()
    pytest.importorskip("rasterio")
    from doubtmap.scenes.rasters import RasterScene

    scene = RasterScene(path, Rendering(range=(0, 255)))
    assert (scene.valid((0, 24), (0, 32)) == there).all()


def test_an_image_without_any_data_counts_for_nothing(tmp_path):
    values = np.full((8, 9, 1), np.nan, np.float32)
    write(tmp_path / "a.tif", values, planarconfig="contig")
    image, missing = read_labelled(tmp_path / "a.tif", Rendering(range=(0, 1)))
    assert missing.all() and not image.any()
    with pytest.raises(DataError, match="expected finite values, got NaN"):
        read_image(tmp_path / "a.tif", Rendering(range=(0, 1)))
    plain = np.random.default_rng(0).integers(0, 9, (8, 9, 3)).astype(np.uint8)
    write(tmp_path / "b.tif", plain, planarconfig="contig")
    image, missing = read_labelled(tmp_path / "b.tif", Rendering())
    assert missing is None and (image.numpy() == plain.transpose(2, 0, 1)).all()
