"""Rasters of any size: right values, at the right place, whatever stops the run."""

import json
import resource

import numpy as np
import pytest
import torch

import doubtmap as dm
from doubtmap.errors import DataError, DoubtmapError, UsageError
from doubtmap.scenes import is_georeferenced, write_scenes
from doubtmap.scores.parsing import parse_scores
from doubtmap.windows import Windows

rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")

PLACE = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 320000, 0, -0.5, 2790000)}


def written(path, pixels, **about):
    """`(bands, h, w)` as a GeoTIFF."""
    profile = {"height": pixels.shape[1], "width": pixels.shape[2], "count": len(pixels)}
    profile |= PLACE | {"dtype": pixels.dtype, "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(path, "w", driver="GTiff", **profile | about) as target:
        target.write(pixels)
    return path


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    network.class_names = ["water", "land", "roof"]
    return dm.load(network, mean=[0, 0, 0], std=[1, 1, 1])


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 150, 300), dtype=np.uint8)


def scored(segmenter, path, out, scores="entropy", **about):
    return write_scenes(Windows(segmenter, 64, 32), [path], parse_scores(scores), out, **about)


def read(path):
    with rasterio.open(path) as source:
        return source.read(1)


def test_maps_lie_where_the_image_lies_and_say_what_the_network_says(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", pixels)
    assert is_georeferenced(path)
    scored(segmenter, path, tmp_path / "out", "entropy,margin")
    whole = segmenter(torch.from_numpy(pixels)[None])
    values = read(tmp_path / "out/entropy/scene.tif")
    np.testing.assert_allclose(values, dm.scores.entropy(whole)[0], atol=1e-5)
    with rasterio.open(tmp_path / "out/entropy/scene.tif") as source:
        about = source.profile
        assert source.descriptions == ("entropy",)
    assert about["crs"].to_epsg() == 32640
    assert about["transform"] == PLACE["transform"]
    assert np.isnan(about["nodata"])
    assert about["tiled"] and about["compress"] == "deflate"
    classes = read(tmp_path / "out/classes/scene.tif")
    np.testing.assert_array_equal(classes, whole.classes[0])
    with rasterio.open(tmp_path / "out/classes/scene.tif") as source:
        assert source.nodata == 255
        assert json.loads(source.tags()["class_names"]) == ["water", "land", "roof"]
        assert len({source.colormap(1)[index] for index in range(3)}) == 3
    about = json.loads((tmp_path / "out/score.json").read_text())
    assert about["images"]["scene"]["size"] == [150, 300]
    assert about["model"]["windows"] == {"tile": 64, "overlap": 32}
    assert (tmp_path / "out/overlay/scene.jpg").exists()
    assert not (tmp_path / "out/.strips").exists()


def test_what_has_no_data_has_no_doubt(segmenter, pixels, tmp_path):
    pixels[:, :, 140:] = 0
    pixels[:, 20, 20] = 0
    pixels[:, :, :140][:, pixels[0, :, :140] == 0] = 1
    pixels[:, 20, 20] = 0
    path = written(tmp_path / "scene.tif", pixels, nodata=0)
    scored(segmenter, path, tmp_path / "out")
    doubt = read(tmp_path / "out/entropy/scene.tif")
    classes = read(tmp_path / "out/classes/scene.tif")
    void = (pixels == 0).any(0)
    assert void.any() and not void.all()
    np.testing.assert_array_equal(np.isnan(doubt), void)
    np.testing.assert_array_equal(classes == 255, void)


def test_numbers_that_are_none_are_no_data_even_where_the_file_does_not_say_so(segmenter, tmp_path):
    values = np.random.default_rng(0).random((3, 70, 150), np.float32)
    values[:, :, :40] = np.nan
    values[1, 50, 100] = np.inf
    scored(segmenter, written(tmp_path / "scene.tif", values), tmp_path / "out")
    doubt = read(tmp_path / "out/entropy/scene.tif")
    np.testing.assert_array_equal(np.isnan(doubt), ~np.isfinite(values).all(0))


def test_a_speck_of_data_in_a_large_raster_is_scored(segmenter, tmp_path):
    pixels = np.zeros((3, 96, 2600), np.uint8)
    pixels[:, 41, 1500] = 9  # which the small picture passes over
    scored(segmenter, written(tmp_path / "scene.tif", pixels, nodata=0), tmp_path / "out")
    doubt = read(tmp_path / "out/entropy/scene.tif")
    assert np.argwhere(np.isfinite(doubt)).tolist() == [[41, 1500]]
    assert (tmp_path / "out/overlay/scene.jpg").exists()


def test_palettes_are_colours_and_single_bits_black_and_white(segmenter, pixels, tmp_path):
    table = np.random.default_rng(1).integers(0, 256, (256, 4))
    for name, about, colours in (
        ("places", {}, table[pixels[0], :3].transpose(2, 0, 1)),
        ("bits", {"nbits": 1}, np.repeat((pixels[:1] > 99) * 255, 3, 0)),
        ("fours", {"nbits": 4}, np.repeat(pixels[:1] // 16 * 17, 3, 0)),
    ):
        path = tmp_path / f"{name}.tif"
        values = {"places": pixels[:1], "bits": pixels[:1] > 99, "fours": pixels[:1] // 16}[name]
        written(path, values.astype(np.uint8), **about)
        if name == "places":
            with rasterio.open(path, "r+") as target:
                target.write_colormap(1, {at: tuple(map(int, row)) for at, row in enumerate(table)})
        scored(segmenter, path, tmp_path / "out")
        whole = segmenter(torch.from_numpy(colours.astype(np.uint8))[None])
        values = read(tmp_path / f"out/entropy/{name}.tif")
        np.testing.assert_allclose(values, dm.scores.entropy(whole)[0], atol=1e-5)


def test_a_place_without_a_reference_system_is_a_place(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", pixels, crs=None)
    assert is_georeferenced(path)
    scored(segmenter, path, tmp_path / "out")
    with rasterio.open(tmp_path / "out/entropy/scene.tif") as source:
        assert source.crs is None and source.transform == PLACE["transform"]


def test_a_scene_without_any_data_is_named(segmenter, pixels, tmp_path):
    path = written(tmp_path / "empty.tif", np.zeros_like(pixels), nodata=0)
    with pytest.raises(DataError, match=r"empty.tif: expected pixels with data"):
        scored(segmenter, path, tmp_path / "out")
    whole = written(tmp_path / "scene.tif", pixels)
    said = write_scenes(
        Windows(segmenter, 64, 32),
        [path, whole],
        parse_scores("entropy"),
        tmp_path / "both",
        skip_bad=True,
    )
    assert said.startswith("1 of 2 images scored, 1 could not be used")


def test_bands_and_ranges_are_chosen(tmp_path):
    torch.manual_seed(0)
    about = {"mean": [0, 0], "std": [1, 1], "classes": ["a", "b", "c"]}
    network = dm.load(torch.nn.Conv2d(2, 3, 1), bands=(4, 2), **about)
    deep = np.random.default_rng(0).integers(0, 2048, (4, 70, 90), dtype=np.uint16)
    path = written(tmp_path / "scene.tif", deep)
    scored(network, path, tmp_path / "out", range=(0, 2047))
    shown = np.rint(deep / 2047 * 255).astype(np.uint8)
    whole = network(torch.from_numpy(shown)[None])
    values = read(tmp_path / "out/entropy/scene.tif")
    np.testing.assert_allclose(values, dm.scores.entropy(whole)[0], atol=1e-5)
    network = dm.load(torch.nn.Conv2d(2, 3, 1), bands=(7, 2), **about)
    with pytest.raises(DataError, match="expected 7 bands"):
        scored(network, path, tmp_path / "no")


def test_ground_control_points_are_kept(segmenter, pixels, tmp_path):
    corners = [(0, 0), (0, 300), (150, 0), (150, 300)]
    points = [
        rasterio.control.GroundControlPoint(row, column, 10 + column, 50 - row)
        for row, column in corners
    ]
    path = written(tmp_path / "scene.tif", pixels, crs="EPSG:4326", transform=None, gcps=points)
    assert is_georeferenced(path)
    scored(segmenter, path, tmp_path / "out")
    with rasterio.open(tmp_path / "out/entropy/scene.tif") as source:
        found, system = source.gcps
    assert system.to_epsg() == 4326
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_a_run_that_was_stopped_goes_on_after_its_last_strip(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", np.tile(pixels, (1, 3, 1)))
    scored(segmenter, path, tmp_path / "whole")
    looked = []

    def stop(_, done, total):
        looked.append(done)
        if done > total // 2 and len(looked) <= total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(segmenter, path, tmp_path / "out", progress=stop)
    before = len(looked)
    looked.extend([0] * 1000)
    again = []
    scored(
        segmenter,
        path,
        tmp_path / "out",
        resume=True,
        progress=lambda _, done, total: again.append((done, total)),
    )
    assert 0 < len(again) < before + len(again) and len(again) < again[-1][1]
    for name in ("entropy", "classes"):
        expected = read(tmp_path / f"whole/{name}/scene.tif")
        np.testing.assert_array_equal(read(tmp_path / f"out/{name}/scene.tif"), expected)
    with pytest.raises(UsageError, match="scores differ"):
        scored(segmenter, path, tmp_path / "out", "margin", resume=True)


def test_a_broken_block_in_the_middle_is_named(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", pixels, compress="deflate")
    content = bytearray(path.read_bytes())
    middle = len(content) * 3 // 4
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"scene.tif: rows \d+ to \d+, columns .* cannot be read"):
        scored(segmenter, path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part*"))


def test_cloud_optimised_files_hold_the_same(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", pixels)
    scored(segmenter, path, tmp_path / "out")
    scored(segmenter, path, tmp_path / "cog", cloud=True)
    with rasterio.open(tmp_path / "cog/entropy/scene.tif") as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(source.read(1), read(tmp_path / "out/entropy/scene.tif"))


def test_the_command_takes_a_geotiff_and_gives_one(pixels, tmp_path, run):
    path = written(tmp_path / "scene.tif", pixels)
    out = tmp_path / "out"
    code, said, error = run("score", "demo", path, "--tile", "96", "--overlap", "32", "--out", out)
    assert code == 0, error
    assert "1 of 1 images scored" in said
    assert read(out / "doubt/scene.tif").shape == (150, 300)
    code, _, error = run("score", "demo", path, "--tile", "100", "--out", out)
    assert (code, "Try 96" in error) == (2, True)


def test_maps_of_an_earlier_run_do_not_count_as_done(segmenter, pixels, tmp_path):
    out, scores = tmp_path / "out", parse_scores("entropy")
    paths = [written(tmp_path / f"{name}.tif", pixels[:, :64, :64]) for name in "ab"]
    write_scenes(Windows(segmenter, 64, 32), paths, scores, out)
    old = read(out / "entropy/b.tif")
    paths = [written(tmp_path / f"{name}.tif", 255 - pixels[:, :64, :64]) for name in "ab"]

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scenes(Windows(segmenter, 64, 32), paths, scores, out, progress=stop)
    paths.append(written(tmp_path / "c.tif", pixels[:, :64, :64]))  # one more may come
    write_scenes(Windows(segmenter, 64, 32), paths, scores, out, resume=True)
    assert np.abs(read(out / "entropy/b.tif") - old).max() > 0.01
    written(tmp_path / "a.tif", pixels[:, :64, :64])
    with pytest.raises(UsageError, match="those of a are others now"):
        write_scenes(Windows(segmenter, 64, 32), paths, scores, out, resume=True)


def test_overviews_of_classes_hold_classes_only(tmp_path):
    network = dm.load(torch.nn.Conv2d(3, 300, 1), mean=[0] * 3, std=[1] * 3)
    path = written(
        tmp_path / "s.tif", np.random.default_rng(0).integers(0, 255, (3, 600, 64)).astype(np.uint8)
    )
    scored(network, path, tmp_path / "out")
    with rasterio.open(tmp_path / "out/classes/s.tif") as source:
        assert source.dtypes == ("uint16",) and source.overviews(1)
        whole = source.read(1)
        small = source.read(1, out_shape=(150, 16))
    assert set(np.unique(small)) <= set(np.unique(whole)) and whole.max() > 255


class Counting:
    """A network that counts its windows."""

    def __init__(self, segmenter):
        self.segmenter, self.seen = segmenter, 0

    def __getattr__(self, name):
        return getattr(self.segmenter, name)

    def __call__(self, images):
        self.seen += 1
        return self.segmenter(images)


def test_windows_without_data_are_not_looked_at_nor_when_a_run_goes_on(segmenter, pixels, tmp_path):
    tall = np.tile(pixels, (1, 4, 1)).clip(1)
    full = written(tmp_path / "full.tif", tall)
    tall[:, 60:500] = 0
    path = written(tmp_path / "scene.tif", tall, nodata=0)
    every, some, rest = (Counting(segmenter) for _ in range(3))
    scored(every, full, tmp_path / "full")
    scored(some, path, tmp_path / "whole")
    assert 0 < some.seen < every.seen / 2

    def stop(_, done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scored(segmenter, path, tmp_path / "out", progress=stop)
    scored(rest, path, tmp_path / "out", resume=True)
    assert 0 < rest.seen < some.seen
    whole, out = (read(tmp_path / f"{name}/entropy/scene.tif") for name in ("whole", "out"))
    np.testing.assert_array_equal(whole, out)
    np.testing.assert_array_equal(np.isnan(out), (tall == 0).any(0))


@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_a_full_disk_is_named_and_the_run_goes_on(segmenter, pixels, tmp_path, limit, tiny_disk):
    """The smaller limit stops at a strip, the larger one at the map that is made of them."""
    path = written(tmp_path / "scene.tif", np.tile(pixels, (1, 2, 1)))
    scored(segmenter, path, tmp_path / "whole", "entropy")
    tiny_disk(limit)
    with pytest.raises(DataError, match=r"cannot be written.*--out|full|File too large"):
        scored(segmenter, path, tmp_path / "out", "entropy")
    assert not list((tmp_path / "out").rglob("*.part"))
    assert (limit > 10_000) == bool(list((tmp_path / "out").rglob("*.safetensors")))
    tiny_disk(2**30)
    scored(segmenter, path, tmp_path / "out", "entropy", resume=True)
    whole, out = (read(tmp_path / f"{name}/entropy/scene.tif") for name in ("whole", "out"))
    np.testing.assert_array_equal(whole, out)


@pytest.fixture
def tiny_disk():
    """Files can be so large and no larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_broken_block_leaves_what_was_done_before_it(segmenter, pixels, tmp_path):
    path = written(tmp_path / "scene.tif", np.tile(pixels, (1, 3, 1)), compress="deflate")
    content = path.read_bytes()
    torn = bytearray(content)
    torn[len(torn) * 3 // 4 : len(torn) * 3 // 4 + 3000] = bytes(3000)
    path.write_bytes(torn)
    with pytest.raises(DataError, match=r"rows \d+ to \d+, columns .* cannot be read"):
        scored(segmenter, path, tmp_path / "out")
    assert list((tmp_path / "out/.strips/scene").glob("*.safetensors"))
    with pytest.raises(DataError, match="cannot be read"):  # again, and not from the start
        scored(Counting(segmenter), path, tmp_path / "out", resume=True)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="are others now"):  # mended: not the file that was seen
        scored(segmenter, path, tmp_path / "out", resume=True)


def test_images_in_several_reference_systems_keep_their_own(segmenter, pixels, tmp_path):
    systems = {"a": "EPSG:32640", "b": "EPSG:3857"}
    paths = [written(tmp_path / f"{name}.tif", pixels, crs=crs) for name, crs in systems.items()]
    write_scenes(Windows(segmenter, 64, 32), paths, parse_scores("entropy"), tmp_path / "out")
    for name, crs in systems.items():
        with rasterio.open(tmp_path / f"out/entropy/{name}.tif") as source:
            assert source.crs == crs


def test_tiles_that_a_network_cannot_take_are_one_sentence(pixels, tmp_path):
    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.place = torch.nn.Parameter(torch.randn(1, 3, 100, 300))

        def forward(self, x):
            return 50 * x - self.place

    network = dm.load(Fixed(), mean=[0] * 3, std=[1] * 3)
    path = written(tmp_path / "scene.tif", pixels)
    with pytest.raises(DoubtmapError, match="refused an image of 64x64 pixels"):
        scored(network, path, tmp_path / "out")


def test_options_without_a_use_are_refused(pixels, tmp_path, run):
    path = written(tmp_path / "scene.tif", pixels)
    for option in ("--every", "--axis"):
        code, _, error = run("score", "demo", path, option, "1", "--out", tmp_path / "out")
        assert (code, f"expected no {option} with images" in error) == (2, True)
    for film, option in (("a.mp4", "--axis"), ("a.nii", "--every")):
        code, _, error = run("score", "demo", film, option, "1", "--out", tmp_path / "out")
        assert (code, f"expected no {option} with" in error) == (2, True)
    words = ("objects", "demo", path, "--threshold", "1", "--out", tmp_path / "out")
    code, _, error = run(*words, "--on-share", "0.2")
    assert (code, "expected --on with it" in error) == (2, True)
    code, _, error = run("score", "demo", path, "--tile", "64", "--overlap", "96")
    assert (code, "half of --tile, 32, got 96" in " ".join(error.split())) == (2, True)
