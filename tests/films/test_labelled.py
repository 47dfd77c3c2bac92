"""Labelled frames inside a film: the right frame for each label, whoever asks in which order."""

import json
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from doubtmap.datasets.dataset import VOID
from doubtmap.errors import DataError, UsageError
from doubtmap.films.frames import Film, write_film
from doubtmap.films.labelled import HELD, open_film

av = pytest.importorskip("av", reason="PyAV is not installed")

SIZE = (48, 64)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "drive.mp4"
    frames = (np.full((*SIZE, 3), 8 * index, np.uint8) for index in range(30))
    write_film(path, frames, Fraction(10))
    return path


@pytest.fixture
def film(recorded, tmp_path):
    """Thirty frames, each brighter than the one before; three have labels."""
    path = tmp_path / "drive.mp4"
    path.write_bytes(recorded.read_bytes())
    folder = tmp_path / "drive"
    folder.mkdir()
    for name, value in (("cam1_000003", 0), ("000017", 1), ("cam1_2.5s", 255)):
        label = np.full(SIZE, value, np.uint8)
        label[:5] = 1
        Image.fromarray(label).save(folder / f"{name}.png")
    (folder / "classes.txt").write_text("road\ncar\n")
    return path


def brightness(sample):
    return round(float(sample.image.float().mean()) / 8)


def test_each_label_meets_its_frame_in_any_order(film):
    data = open_film(str(film))
    assert [data.sample_name(at) for at in range(3)] == [f"drive_{n:06d}" for n in (3, 17, 25)]
    for order in ((0, 1, 2), (2, 0, 1), (1, 1, 0)):
        assert [brightness(data[at]) for at in order] == [(3, 17, 25)[at] for at in order]
    assert data[0].label[:5].unique().tolist() == [1] and data[0].label[6:].unique().tolist() == [0]
    assert data[2].label[6:].unique().tolist() == [VOID]
    assert data.fields[1] == {"film": "drive", "frame": "000017"}


def test_times_meet_their_frames_in_a_film_of_changing_rate_that_begins_late(tmp_path):
    path = tmp_path / "late.mkv"
    shown = [5 + at / 10 if at < 10 else 6 + (at - 10) / 2 for at in range(20)]
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=10)
        stream.height, stream.width = SIZE
        stream.codec_context.time_base = Fraction(1, 1000)
        for at, seconds in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 8 * at, np.uint8), "rgb24")
            frame.pts, frame.time_base = round(seconds * 1000), Fraction(1, 1000)
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    (tmp_path / "late").mkdir()
    for name in ("0.3s", "2.5s"):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / f"late/{name}.png")
    (tmp_path / "late/classes.txt").write_text("road\n")
    data = open_film(str(path))
    assert [brightness(data[at]) for at in range(2)] == [3, 13]
    with closing(Film(str(path))) as film:
        times = [frame.seconds for frame in film.frames(every=5)]
    assert times == pytest.approx([0, 0.5, 1, 3.5], abs=2e-3)
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "late/99s.png")
    with pytest.raises(DataError, match=r"99s.png: expected a time .* last frame is at 5.5 s"):
        open_film(str(path))


def test_memory_is_constant(film):
    for at in range(30):
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(film.with_suffix("") / f"{at:03d}.png")
    for name in ("cam1_000003", "000017", "cam1_2.5s"):
        (film.with_suffix("") / f"{name}.png").unlink()
    data = open_film(str(film))
    assert [brightness(data[at]) for at in range(30)] == list(range(30))
    assert len(data._decoder._held) == HELD


def test_the_command_evaluates_labelled_frames(film, run, tmp_path):
    line = ("evaluate", "demo", f"film:{film}", "--scores", "entropy", "--out", tmp_path / "out")
    code, _, error = run(*line, "--by", "frame")
    assert code == 0, error
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["data"]["images"] == 3 and found["data"]["name"] == "film:drive"
    assert found["data"]["pixels"]["void"] >= (SIZE[0] - 5) * SIZE[1]
    assert list(found["by"]["cases"]) == ["000003", "000017", "000025"]
    code, _, error = run(*line, "--by", "town")
    assert (code, "Its images have" in error) == (2, True)


def test_what_does_not_belong_together_is_named(film, run):
    folder = film.with_suffix("")
    with pytest.raises(DataError, match="expected a folder with labels"):
        open_film(f"{film}:{folder}/no")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "99.png")
    with pytest.raises(DataError, match=r"expected frame 99, but it ends after frame 29\. Remove"):
        open_film(str(film))[3]
    (folder / "99.png").unlink()
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(folder / "000017.png")
    with pytest.raises(DataError, match="expected labels of the frame's 64 x 48 pixels"):
        open_film(str(film))[1]
    Image.fromarray(np.full(SIZE, 7, np.uint8)).save(folder / "000017.png")
    with pytest.raises(DataError, match=r"got 7\. Name it"):
        open_film(str(film))[1]
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "17.png")
    with pytest.raises(DataError, match="expected one file for frame 17"):
        open_film(str(film))
    (folder / "17.png").rename(folder / "x.png")
    with pytest.raises(UsageError, match="named after their frame"):
        open_film(str(film))
    (folder / "x.png").unlink()
    (folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: expected names"):
        open_film(str(film))
    assert run("evaluate", "demo", "film:")[0] == 2
