"""A small part of each campaign, and that each would notice a fault."""

import os
import signal
from collections import Counter
from pathlib import Path

import fuzz
import kill
import pytest
import record
import sanitize

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return fuzz.readers(tmp_path_factory.mktemp("readers"))


def test_damaged_inputs_are_read_or_refused(readers, tmp_path):
    assert len(readers) > 25
    for name in ("maps", "journals", "doubtmap.toml", "saved predictions, npy", "fitted: wrong"):
        (tmp_path / name).mkdir()
        tried = fuzz.feed(name, readers[name], 12, 0, tmp_path / name)
        assert tried.failures == [] and tried.counts["tried"] >= 12
        assert tried.row()["read"] + tried.row()["refused"] == tried.counts["tried"]


def test_a_reader_that_breaks_its_promise_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "KEPT", tmp_path / "kept")

    def careless(path):
        assert len(path.read_bytes()) < 40

    tried = fuzz.feed("careless", fuzz.Reader(careless, [b"a" * 30]), 100, 0, tmp_path)
    assert len(tried.failures) == 1 and "AssertionError" in tried.failures[0]
    assert len((tmp_path / "kept" / "careless").read_bytes()) >= 40  # shrunk, and kept

    def slow(path):
        os.kill(os.getpid(), signal.SIGALRM)

    with pytest.raises(TimeoutError):
        fuzz.attempt(fuzz.Reader(slow, [b""]), tmp_path / "x", Counter())


@pytest.mark.parametrize("how", ["flip", "set", "cut", "drop", "twice", "extreme", "word"])
def test_every_damage_does_some(how):
    assert fuzz.damaged(b"whole", [(how, 0.5, 3)]) != b"whole"
    assert isinstance(fuzz.damaged(b"", [(how, 0.0, 3)]), bytes)


def test_a_command_that_is_killed_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(kill, "LONGEST", 60)
    kill.world(tmp_path / "world", 3)
    score = kill.commands(tmp_path / "world")["score"]
    row, failures = kill.campaign("score", score, 2, 0, tmp_path)
    assert failures == [] and row["kills"] >= 2 and row["same"] == row["runs"]


def test_files_that_differ_are_named(tmp_path):
    for name, text in (("a.json", '{"x": 1, "seconds": 2}'), ("b.npy", "1"), ("c.html", "1")):
        (tmp_path / name).write_text(text)
    whole = kill.written(tmp_path)
    (tmp_path / "a.json").write_text('{"x": 1, "seconds": 3}')
    assert kill.differing(kill.written(tmp_path), whole) == []
    (tmp_path / "b.npy").write_text("2")
    (tmp_path / ".x.part").write_text("")
    (tmp_path / "c.html").unlink()
    assert kill.differing(kill.written(tmp_path), whole) == [".x.part", "b.npy", "c.html"]


def test_kernels_under_the_sanitizers(tmp_path):
    compiler = sanitize.compiler()
    if compiler is None:
        pytest.skip("no gcc with the address sanitizer is here")
    library = tmp_path / "segments.so"
    sanitize.build(compiler, ["segments.c", "pixels_threads.c"], library)
    start = f"import sys; sys.path.append({str(HERE)!r}); import sanitize; "
    for short in (0, 1):
        call = f"sanitize.segments({str(library)!r}, 20, 0, {short})"
        done = sanitize.watched(compiler, ["-c", start + call])
        assert (done.returncode == 0) == (short == 0), done.stderr
        assert ("heap-buffer-overflow" in done.stderr) == (short == 1)


def test_the_page_has_the_tables_of_the_results():
    text = record.PAGE.read_text()
    assert record.page(text) == text
    rows = record.read()["rows"]
    assert {row["campaign"] for row in rows} == set(record.HEADINGS)
    assert not any(row["failed"] for row in rows)
    for campaign, command in record.read()["commands"].items():
        assert command.startswith(f"python tests/campaign/{campaign}.py --count ")
