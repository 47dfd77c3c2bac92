"""Rasters, volumes and films in the viewer: what is shown is what the run wrote."""

import json
import struct

import numpy as np
import pytest
import torch
from runs_to_look_at import network

from doubtmap.errors import DataError
from doubtmap.scores import entropy
from doubtmap.viewer import gather, open_run
from doubtmap.viewer.contents import image_content, readable
from doubtmap.viewer.pixels import doubt_bytes, map_bytes
from doubtmap.windows import Windows

SCORES = {"entropy": entropy}


def doubt_of(content):
    """A doubt map as the page reads it, NaN in its gaps."""
    _, kind, width, height, low, high = struct.unpack("<4sIIIff", content[:24])
    pixels = np.frombuffer(content[24:], "<u2").reshape(height, width)
    values = low + pixels / 65535 * (high - low)
    return np.where(pixels == 0, np.nan, values) if kind == 2 else values


def test_gaps_stay_gaps_and_all_else_keeps_its_value():
    values = np.float32([[0.25, np.nan], [0.5, 1.0]])
    assert doubt_of(doubt_bytes(values)) == pytest.approx(values, abs=1e-4, nan_ok=True)
    one = np.float32([[3.0, np.nan]])
    assert doubt_of(doubt_bytes(one)) == pytest.approx(one, abs=1e-4, nan_ok=True)
    assert np.isnan(doubt_of(doubt_bytes(np.full((2, 2), np.nan, np.float32)))).all()


def test_a_raster_is_shown_with_its_gaps(tmp_path):
    rasterio = pytest.importorskip("rasterio", reason="rasterio is not installed")
    from doubtmap.scenes import write_scenes

    pixels = np.random.default_rng(0).integers(1, 256, (3, 96, 160), np.uint8)
    pixels[:, :, :32] = 0
    place = tmp_path / "Luftbild ä.tif"
    profile = {"driver": "GTiff", "width": 160, "height": 96, "count": 3, "dtype": "uint8"}
    profile |= {
        "nodata": 0,
        "crs": "EPSG:32640",
        "transform": rasterio.Affine(1, 0, 500, 0, -1, 700),
    }
    with rasterio.open(place, "w", **profile) as file:
        file.write(pixels)
    write_scenes(Windows(network(0), 64, 32), [place], SCORES, tmp_path / "out")
    run = open_run(tmp_path / "out")
    assert run.names == ["Luftbild ä"] and run.table["megapixels"] == [0.015]
    with rasterio.open(tmp_path / "out" / "entropy" / "Luftbild ä.tif") as file:
        written = file.read(1)
    shown = doubt_of(map_bytes(run, "doubt:entropy", 0))
    assert np.isnan(shown[:, :32]).all()
    assert shown == pytest.approx(written, abs=1e-4, nan_ok=True)
    codes = run.pictures.codes(run.layer("classes"), 0)
    assert (codes[:, :32] == -2).all() and (codes[:, 32:] >= 0).all()
    assert (run.pictures.photograph(0) == pixels.transpose(1, 2, 0)).all()
    assert image_content(gather([tmp_path / "out"]), "thumbs/0.jpg")
    (tmp_path / "out" / "entropy" / "Luftbild ä.tif").write_bytes(b"damaged")
    said = readable(gather([tmp_path / "out"]), "maps/0/1/0.bin")
    assert isinstance(said, str) and "cannot be opened as a raster" in said


def test_slices_of_volumes_are_images_sorted_by_their_doubt(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    from doubtmap.volumes import write_volumes

    values = np.random.default_rng(0).normal(size=(32, 24, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "case.nii.gz")
    write_volumes(network(0), [tmp_path / "case.nii.gz"], SCORES, tmp_path / "out")
    run = open_run(tmp_path / "out")
    assert run.names[4] == "case_slice004" and run.table["slice"] == [0, 1, 2, 3, 4]
    written = nibabel.load(tmp_path / "out" / "entropy" / "case.nii.gz").get_fdata()
    assert run.table["mean entropy"] == pytest.approx(list(written.mean((0, 1))))
    shown = doubt_of(map_bytes(run, "doubt:entropy", 3))
    assert shown == pytest.approx(written[:, :, 3].T, abs=1e-4)
    assert run.pictures.photograph(3).shape == (24, 32, 3)
    about = json.loads((tmp_path / "out" / "score.json").read_text())
    about["volumes"]["../../case"] = about["volumes"].pop("case")
    (tmp_path / "out" / "score.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="expected maps in the folder of the run"):
        open_run(tmp_path / "out")


def test_frames_of_films_come_in_any_order(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    from fractions import Fraction

    from doubtmap.films import write_films
    from doubtmap.films.frames import write_film

    levels = torch.linspace(0, 255, 40).to(torch.uint8)
    frames = (np.full((64, 96, 3), level, np.uint8) for level in levels.numpy())
    write_film(tmp_path / "drive.mp4", frames, Fraction(10))
    write_films(network(0), [str(tmp_path / "drive.mp4")], SCORES, tmp_path / "out", every=2)
    run = open_run(tmp_path / "out")
    assert run.names[3] == "drive_000006 (0.60 s)" and len(run.names) == 20
    assert run.layers == () and run.table["seconds"][3] == 0.6
    in_order = [run.pictures.photograph(at) for at in range(20)]
    for at in (19, 3, 4, 17, 0):
        assert (run.pictures.photograph(at) == in_order[at]).all()
    brightness = [frame[:64].mean() for frame in in_order]
    assert min(np.diff(brightness)) > -3 and brightness[-1] > brightness[0] + 20
    (tmp_path / "out" / "drive.mp4").unlink()
    said = readable(gather([tmp_path / "out"]), "images/0.jpg")
    assert isinstance(said, str) and "cannot be opened as a film" in said
