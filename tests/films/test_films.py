"""Films frame by frame: the same doubt as of images, on one scale, as far as a run came."""

import csv
import json
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.errors import DataError, UsageError
from doubtmap.films import is_film
from doubtmap.films.frames import Film, opened, write_film
from doubtmap.films.scoring import score_film, write_films
from doubtmap.objects import ObjectRule, find_objects
from doubtmap.scores.parsing import parse_scores

av = pytest.importorskip("av", reason="PyAV is not installed")


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return dm.load(torch.nn.Conv2d(3, 3, 1), mean=[0, 0, 0], std=[1, 1, 1])


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Twelve frames, each of one grey that is brighter than the one before."""
    path = tmp_path_factory.mktemp("films") / "drive.mp4"
    frames = (np.full((48, 64, 3), 20 * index, np.uint8) for index in range(12))
    write_film(path, frames, Fraction(24))
    return path


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_frames_come_in_order_with_their_time(film):
    opened = Film(str(film))
    frames = list(opened.frames())
    opened.close()
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 24 for n in range(12)])
    assert [frame.pixels.mean() for frame in frames] == pytest.approx(
        [20 * n for n in range(12)], abs=3
    )
    assert opened.rate == 24


def test_doubt_is_that_of_the_frames_as_images(segmenter, film):
    opened = Film(str(film))
    for scored in score_film(segmenter, opened, parse_scores("entropy,margin"), every=5):
        image = torch.from_numpy(scored.frame.pixels).permute(2, 0, 1)[None]
        prediction = segmenter(image)
        expected = dm.scores.entropy(prediction)[0].numpy()
        np.testing.assert_array_equal(scored.maps["entropy"], expected)
        wrong = 1 - prediction.probabilities.amax(1).mean()
        assert scored.wrong == pytest.approx(float(wrong), abs=1e-6)
    assert scored.frame.index == 10


def test_a_limit_counts_frames(segmenter, film, tmp_path):
    said = write_films(segmenter, [str(film)], parse_scores("entropy"), tmp_path, every=3, limit=2)
    assert said.startswith("2 frames of 1 film scored")
    assert [row["frame"] for row in table(tmp_path / "drive.csv")] == ["0", "3"]


def test_a_film_and_a_table_come_out(segmenter, film, tmp_path):
    said = write_films(segmenter, [str(film)], parse_scores("entropy"), tmp_path, every=3)
    assert said.startswith("4 frames of 1 film scored")
    rows = table(tmp_path / "drive.csv")
    assert [row["frame"] for row in rows] == ["0", "3", "6", "9"]
    out = Film(str(tmp_path / "drive.mp4"))
    frames = list(out.frames())
    out.close()
    assert len(frames) == 4 and out.rate == 8
    assert frames[0].pixels.shape == (48 + 16, 64, 3)
    about = json.loads((tmp_path / "score.json").read_text())["films"]["drive"]
    assert about["scale"] == pytest.approx([0, np.log(3)])  # the entropy's own, in every frame
    first = next(score_film(segmenter, Film(str(film)), parse_scores("entropy")))
    assert float(rows[0]["mean entropy"]) == pytest.approx(first.maps["entropy"].mean(), rel=1e-4)


def test_a_run_that_was_stopped_leaves_what_it_had(segmenter, film, tmp_path):
    def stop(_, done, total):
        assert total == 12
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_films(segmenter, [str(film)], parse_scores("entropy"), tmp_path, progress=stop)
    assert len(table(tmp_path / "drive.csv")) == 7
    out = Film(str(tmp_path / "drive.mp4"))
    assert len(list(out.frames())) == 7
    assert not [path for path in tmp_path.iterdir() if ".part" in path.name]


def test_what_is_no_film_is_one_sentence(segmenter, film, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(film.read_bytes()[:300])
    with pytest.raises(DataError, match=r"broken.mp4: cannot be opened as a film"):
        Film(str(tmp_path / "broken.mp4"))
    with pytest.raises(DataError, match=r"none.mp4: cannot be opened as a film"):
        Film(str(tmp_path / "none.mp4"))


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("a/drive.MP4", True),
        ("rtsp://camera/1", True),
        ("/dev/video0", True),
        ("a.png", False),
        ("folder", False),
    ],
)
def test_films_are_known_by_their_names(name, yes):
    assert is_film(name) == yes


def test_the_command_takes_a_film(film, tmp_path, run):
    code, said, error = run(
        "score", "demo", film, "--scores", "entropy", "--every", "6", "--out", tmp_path / "o"
    )
    assert (code, "2 frames of 1 film" in said) == (0, True), error
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, error = run("score", "demo", film, tmp_path / "a.png", "--out", tmp_path / "o")
    assert (code, "expected films or other images, got both" in error) == (2, True)


def test_the_table_counts_the_objects_of_each_frame(tmp_path, run):
    spots = np.full((2, 96, 128, 3), 128, np.uint8)
    spots[1, 20:50, 20:60] = (255, 0, 0)
    write_film(tmp_path / "spots.mp4", spots, Fraction(10))
    line = ["score", "demo", tmp_path / "spots.mp4", "--scores", "entropy", "--out", tmp_path / "o"]
    code, _, error = run(*line, "--threshold", "0.5")
    assert code == 0, error
    limit = ObjectRule(0.5)
    with closing(Film(str(tmp_path / "spots.mp4"))) as opened:
        looked = [*score_film(dm.load("demo"), opened, parse_scores("entropy"))]
    counts = [
        len(find_objects(f.maps["entropy"], 0 * (f.maps["entropy"] > 9), limit)) for f in looked
    ]
    assert [int(row["objects"]) for row in table(tmp_path / "o/spots.csv")] == counts
    assert sum(counts) > 0
    code, _, error = run(*line, "--threshold", "none.json")
    assert (code, "expected a number or a file" in error) == (2, True)


def test_options_that_films_have_no_use_for_are_refused(film, tmp_path, run):
    said = run("score", "demo", film, "--format", "npy", "--resume", "--out", tmp_path / "o")
    assert (said[0], "expected no --format, --resume with films" in said[2]) == (2, True)
    assert not (tmp_path / "o").exists()


def test_a_film_is_not_replaced_by_its_overlay(segmenter, film, tmp_path):
    (copy := tmp_path / "drive.mp4").write_bytes(film.read_bytes())
    with pytest.raises(UsageError, match="would be replaced"):
        write_films(segmenter, [str(copy)], parse_scores("entropy"), tmp_path)
    assert copy.read_bytes() == film.read_bytes()


def test_a_folder_of_frames_is_a_film(tmp_path, run):
    folder = tmp_path / "drive"
    folder.mkdir()
    for index in range(12):
        pixels = np.full((32, 48, 3), 20 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"f{index}.png")  # f10 comes after f9
    film = opened(f"frames:{folder}@10")
    assert (film.rate, film.count) == (10, 12)
    found = list(film.frames(3))
    assert [frame.index for frame in found] == [0, 3, 6, 9]
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.3, 0.6, 0.9])
    assert [int(frame.pixels[0, 0, 0]) for frame in found] == [0, 60, 120, 180]
    out = tmp_path / "out"
    code, _, error = run("score", "demo", f"frames:{folder}", "--every", "4", "--out", out)
    assert code == 0, error
    assert len((out / "drive.csv").read_text().splitlines()) == 4
    assert opened(str(out / "drive.mp4")).rate == pytest.approx(25 / 4, rel=1e-2)
    with pytest.raises(UsageError, match="expected frames a second after @, such as 25, got fast"):
        opened(f"frames:{folder}@fast")
    with pytest.raises(DataError, match="found nothing there"):
        opened(f"frames:{tmp_path / 'nowhere'}")
