"""What the viewer reads of runs, what it serves, and what it refuses."""

import csv
import gzip
import http.client
import json
import shutil
import struct
import threading
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from runs_to_look_at import CLASSES, FORMULA, HOSTILE, evaluated

from doubtmap.errors import DataError, UsageError
from doubtmap.evaluation.keeping import Keeping
from doubtmap.evaluation.results import read_results
from doubtmap.objects import ObjectRule, find_objects, outlines
from doubtmap.objects.coco import annotation
from doubtmap.reports.maps import read_figures, read_map
from doubtmap.version import __version__
from doubtmap.viewer import gather, open_run, write_static
from doubtmap.viewer.contents import _drawn, addresses, image_content, page_files
from doubtmap.viewer.pixels import code_bytes, doubt_bytes
from doubtmap.viewer.server import make_server
from doubtmap.viewer.verdicts import Verdicts


def unpacked(content):
    """Header and pixels of a map, as the page reads them."""
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    magic, kind, width, height, low, high = struct.unpack("<4sIIIff", content[:24])
    assert magic == b"DMAP"
    pixels = np.frombuffer(content[24:], "<i2" if kind else "<u2").reshape(height, width)
    return kind, low, high, pixels


def test_a_doubt_map_reaches_the_page_as_it_is():
    values = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    kind, low, high, pixels = unpacked(doubt_bytes(values))
    assert kind == 0
    found = low + pixels / 65535 * (high - low)
    assert np.abs(found - values).max() <= (high - low) / 65535


def test_a_constant_map_and_codes_reach_the_page():
    kind, low, high, pixels = unpacked(doubt_bytes(np.full((2, 3), 0.5, np.float32)))
    assert (low, high, pixels.max()) == (0.5, 0.5, 0)
    codes = np.array([[0, 300], [-1, -3]], np.int16)
    kind, *_, pixels = unpacked(code_bytes(codes))
    assert kind == 1
    assert (pixels == codes).all()


def test_a_large_map_is_thinned_and_keeps_its_values():
    values = np.arange(5000 * 4000, dtype=np.float32).reshape(5000, 4000)
    _, low, high, pixels = unpacked(doubt_bytes(values))
    assert pixels.shape == (2500, 2000)
    assert (low, high) == (0, values[::2, ::2].max())


def test_an_evaluation_is_shown_as_its_results_have_it(runs):
    run = open_run(runs.first)
    figures = read_results(runs.first / "results.json")
    assert run.names == [row["image"] for row in figures["images"]]
    assert run.table["accuracy"] == [row["accuracy"] for row in figures["images"]]
    assert [layer.key for layer in run.layers][:2] == ["labels", "classes"]
    marks = run.layer("doubt:entropy").thresholds
    assert set(marks) == {"unknown", "wrong"}
    assert marks["wrong"]["recall"] == sorted(marks["wrong"]["recall"])
    assert marks["wrong"]["recall"][-1] == 1
    thresholds = marks["wrong"]["threshold"]
    assert thresholds == sorted(thresholds, reverse=True)


def test_thresholds_find_what_they_say(runs):
    """Precision and recall of the run at a threshold, counted from the maps that it kept."""
    gathered = gather([runs.first])
    run = gathered.runs[0]
    marks = run.layer("doubt:entropy").thresholds["wrong"]
    at = len(marks["threshold"]) // 2
    above, wrong = [], []
    for image in range(len(gathered.names)):
        _, _, _, label = unpacked(image_content(gathered, f"maps/0/0/{image}.bin"))
        _, _, _, predicted = unpacked(image_content(gathered, f"maps/0/1/{image}.bin"))
        doubt = read_map(run.map_file(run.layer("doubt:entropy"), image))
        known = label >= 0
        above.append((doubt >= marks["threshold"][at])[known])
        wrong.append((label != predicted)[known])
    above, wrong = np.concatenate(above), np.concatenate(wrong)
    assert (above & wrong).sum() / wrong.sum() == pytest.approx(marks["recall"][at], abs=2e-3)
    assert (above & wrong).sum() / above.sum() == pytest.approx(marks["precision"][at], abs=2e-3)


def test_iou_of_an_image_is_that_of_its_maps(runs):
    gathered = gather([runs.first])
    _, _, _, label = unpacked(image_content(gathered, "maps/0/0/0.bin"))
    _, _, _, predicted = unpacked(image_content(gathered, "maps/0/1/0.bin"))
    road, said = label == 0, (predicted == 0) & (label >= 0)
    expected = (road & said).sum() / (road | said).sum()
    assert gathered.runs[0].table["iou road"][0] == pytest.approx(expected, abs=1e-4)


def test_a_table_of_scored_images_is_that_of_their_maps(runs):
    run = open_run(runs.scored)
    assert set(run.names) == {HOSTILE, FORMULA, "plain"}
    place = run.names.index("plain")
    doubt = read_map(runs.scored / "entropy" / "plain.png")
    assert run.table["mean entropy"][place] == pytest.approx(doubt.mean(), rel=1e-4)
    assert run.table["highest entropy"][place] == pytest.approx(doubt.max(), rel=1e-4)
    classes = np.asarray(Image.open(runs.scored / "classes" / "plain.png"))
    most = np.bincount(classes.reshape(-1)).argmax()
    share = (classes == most).mean()
    assert run.table[f"share {CLASSES[most]}"][place] == pytest.approx(share, rel=1e-4)
    figures = read_figures(runs.scored / "classes" / "plain.png")
    assert sum(figures[f"share {name}"] for name in CLASSES) == pytest.approx(1)


def test_images_of_one_file_are_one_image_of_two_runs(runs):
    gathered = gather([runs.scored, runs.objects])
    assert len(gathered.names) == 3
    assert gathered.places[0] == [0, 1, 2]
    assert sorted(gathered.places[1]) == [0, 1, 2]
    column = next(c for c in gathered.index("server")["columns"] if c["title"] == "objects")
    held = json.loads((runs.objects / "objects.json").read_text())
    assert sum(column["values"]) == len(held["annotations"]) > 0
    found = json.loads(image_content(gathered, "objects/1/2.json"))
    assert len(found["objects"]) == column["values"][2] and found["size"] == [96, 64]


@pytest.mark.parametrize("encoding", ["polygon", "rle"])
def test_objects_are_drawn_along_their_pixels(encoding):
    """Shoelace areas of the lines, holes turning the other way, add up to the object's area."""
    doubt = torch.rand(40, 60, generator=torch.Generator().manual_seed(0))
    things = find_objects(doubt, torch.zeros(40, 60, dtype=torch.int64), ObjectRule(threshold=0.3))
    thing = max(things, key=lambda each: each.area)
    shape = outlines(thing.mask, thing.box[:2])
    drawn = _drawn(annotation(thing, shape, (40, 60), encoding=encoding))
    assert len(drawn["lines"]) > 10
    total = 0.0
    for line in drawn["lines"]:
        x, y = np.array(line, float).reshape(-1, 2).T
        total += (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    assert total == thing.area == drawn["area"]


def test_what_changed_between_two_runs_is_a_column(runs):
    index = gather([runs.first, runs.second]).index("server")
    columns = {column["title"]: column["values"] for column in index["columns"]}
    for first, second, change in zip(
        columns["accuracy (A)"], columns["accuracy (B)"], columns["accuracy: B - A"]
    ):
        assert change == pytest.approx(second - first, abs=1e-5)


def test_names_that_two_runs_share_stay_apart_where_files_differ(runs, tmp_path):
    about = json.loads((runs.scored / "score.json").read_text())
    other = shutil.copytree(runs.scored, tmp_path / "other")
    moved = {name: path + ".moved" for name, path in about["images"].items()}
    (other / "score.json").write_text(json.dumps(about | {"images": moved}))
    text = (other / "images.csv").read_text().replace(".png", ".png.moved")
    (other / "images.csv").write_text(text)
    gathered = gather([runs.scored, other])
    assert len(set(gathered.names)) == 6


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("score.json", lambda about: about.pop("directory"), "written by doubtmap"),
        ("score.json", lambda about: about.pop("images"), "written by doubtmap"),
        ("score.json", lambda about: about.update(images={}), "no image"),
        ("score.json", lambda about: about.update(scales=3), "written by doubtmap"),
    ],
)
def test_a_run_that_lacks_something_gets_one_sentence(runs, tmp_path, file, change, said):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    about = json.loads((folder / file).read_text())
    change(about)
    (folder / file).write_text(json.dumps(about))
    with pytest.raises(DataError, match=said):
        open_run(folder)


def test_runs_that_are_none_or_not_ended_get_one_sentence(runs, tmp_path):
    with pytest.raises(DataError, match="expected a folder that doubtmap score"):
        open_run(tmp_path)
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(DataError, match="--resume"):
        open_run(tmp_path)
    folder = shutil.copytree(runs.first, tmp_path / "run")
    (folder / "results.json").write_text('{"images": [')
    with pytest.raises(DataError, match="strict JSON"):
        open_run(folder)
    with pytest.raises(UsageError, match="1 to 8"):
        gather([])


def test_a_run_of_another_version_is_told_of(runs, tmp_path):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    about = json.loads((folder / "score.json").read_text())
    (folder / "score.json").write_text(json.dumps(about | {"doubtmap": "9.0"}))
    assert "9.0" in open_run(folder).notes[0]
    assert __version__ in open_run(folder).notes[0]


@pytest.mark.parametrize("name", ["../../plain", "/etc/hostname"])
def test_nothing_outside_of_a_run_is_read_as_its_map(runs, tmp_path, name):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    about = json.loads((folder / "score.json").read_text())
    path = about["images"].pop("plain")
    about["images"][name] = path
    (folder / "score.json").write_text(json.dumps(about))
    gathered = gather([folder])
    with pytest.raises(DataError, match="in the folder of the run"):
        image_content(gathered, "maps/0/0/2.bin")


def test_an_image_that_is_none_is_never_sent(runs, tmp_path):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    about = json.loads((folder / "score.json").read_text())
    text = (folder / "images.csv").read_text().replace(about["images"]["plain"], str(secret))
    (folder / "images.csv").write_text(text)
    about["images"]["plain"] = str(secret)
    (folder / "score.json").write_text(json.dumps(about))
    with pytest.raises(DataError):
        image_content(gather([folder]), "images/2.jpg")


@pytest.mark.parametrize(
    "address",
    [
        *("images/9.jpg", "maps/0/9/0.bin", "maps/7/0/0.bin", "maps/0/0.bin", "thumbs/0/0.jpg"),
        *("images/../score.json", "images/-1.jpg", "objects/9/0.json", "score.json", ""),
    ],
)
def test_there_is_nothing_at_other_addresses(runs, address):
    assert image_content(gather([runs.scored]), address) is None


def test_verdicts_are_kept_beside_the_run_and_no_cell_is_a_formula(runs, tmp_path):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    gathered = gather([folder])
    verdicts = Verdicts.of(gathered)
    verdicts.judge(FORMULA, {"verdict": "label wrong", "note": "@now, or never"})
    verdicts.judge("plain", {"verdict": "fine"})
    verdicts.judge("plain", {"verdict": ""})
    again = Verdicts.of(gather([folder]))
    assert set(again.held) == {FORMULA}
    rows = list(csv.DictReader(again.table(gathered).splitlines()))
    assert [row["image"] for row in rows] == ["'" + FORMULA]
    assert rows[0]["note"] == "'@now, or never"
    assert rows[0]["verdict"] == "label wrong"
    with pytest.raises(UsageError, match="expected one of"):
        verdicts.judge("plain", {"verdict": "nonsense"})
    (folder / "verdicts.json").write_text("[]")
    with pytest.raises(DataError, match="Mend or move"):
        Verdicts.of(gathered)


@pytest.fixture
def server(runs, tmp_path):
    gathered = gather([shutil.copytree(runs.scored, tmp_path / "served")])
    server, address = make_server(gathered)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


def ask(address, method, path, body=None, host=None):
    """Status, headers and content of an answer."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def test_the_server_answers_those_who_know_its_secret(server):
    start = urlsplit(server).path
    status, headers, content = ask(server, "GET", start)
    assert status == 200
    assert content == page_files()["index.html"]
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    status, _, content = ask(server, "GET", start + "thumbs/0.jpg")
    assert (status, content[:2]) == (200, b"\xff\xd8")
    for path in ("/", "/wrong/index.html", start[:-2] + "/index.html", start + "../score.json"):
        assert ask(server, "GET", path)[0] == 404
    for path in ("..%2fscore.json", "images/%2e%2e/0.jpg", "thumbs/99.jpg"):
        assert ask(server, "GET", start + path)[0] == 404


def test_the_server_knows_only_its_own_name(server):
    start = urlsplit(server).path
    assert ask(server, "GET", start, host="evil.example")[0] == 404
    assert ask(server, "GET", start, host=f"localhost:{urlsplit(server).port}")[0] == 200


def test_the_server_takes_verdicts_and_refuses_nonsense(server):
    place = urlsplit(server).path + "verdicts.json"
    said = json.dumps({"image": 1, "verdict": "unknown", "note": ""})
    assert ask(server, "POST", place, said)[0] == 200
    assert json.loads(ask(server, "GET", place)[2])[FORMULA]["verdict"] == "unknown"
    for wrong in ("{", "[]", '{"image": 9, "verdict": "fine"}', '{"image": true, "verdict": ""}'):
        assert ask(server, "POST", place, wrong)[0] == 400
    assert ask(server, "POST", urlsplit(server).path + "other.json", said)[0] == 404
    assert ask(server, "POST", place, "x" * 200_000)[0] == 404


def test_a_folder_of_files_holds_all_that_the_page_asks_for(runs, tmp_path):
    gathered = gather([runs.scored, runs.objects])
    said = write_static(gathered, tmp_path / "site")
    assert "3 images" in said and "could not" not in said
    asked = {address for image in range(3) for address in addresses(gathered, image)}
    there = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.*")}
    assert asked | set(page_files()) | {"index.json"} == there
    assert json.loads((tmp_path / "site" / "index.json").read_text())["kept"] == "browser"


def test_a_folder_of_files_says_what_is_lost(runs, tmp_path):
    folder = shutil.copytree(runs.scored, tmp_path / "run")
    (folder / "entropy" / "plain.png").unlink()
    said = write_static(gather([folder]), tmp_path / "my site")
    assert "1 files could not be made" in said and f"--directory '{tmp_path / 'my site'}'" in said


def test_the_page_loads_nothing_from_elsewhere():
    for name, content in page_files().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text, name
        assert "innerHTML" not in text and "eval(" not in text, name
        assert " style=" not in text and " onclick" not in text, name


def test_the_command_writes_a_folder_and_tells_what_it_lacks(run, runs, tmp_path):
    code, out, _ = run("view", runs.scored, "--static", tmp_path / "site")
    assert code == 0 and "3 images" in out
    code, _, error = run("view", tmp_path / "nothing")
    assert code == 1 and "expected a folder" in error and "Traceback" not in error


def test_a_killed_evaluation_that_goes_on_has_all_maps(tmp_path, monkeypatch):
    """An image whose maps were not written does not count as done."""
    keep = Keeping.keep

    def die(self, index, *rest):
        if index == 1:
            raise DataError("the disk is full")
        keep(self, index, *rest)

    with monkeypatch.context() as patched, pytest.raises(DataError, match="disk is full"):
        patched.setattr(Keeping, "keep", die)
        evaluated(0, tmp_path)
    with pytest.raises(DataError, match="has not ended"):
        open_run(tmp_path)
    evaluated(0, tmp_path, resume=True)
    gathered = gather([tmp_path])
    asked = [address for image in range(4) for address in addresses(gathered, image)]
    assert all(image_content(gathered, address) for address in asked)
