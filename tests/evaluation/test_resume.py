"""A run that was killed and goes on gives what an unbroken one gives."""

import json
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.numpy
from apart import Apart

import doubtmap as dm
from doubtmap.engine import journal as journal_module
from doubtmap.engine.journal import Journal
from doubtmap.errors import DataError
from doubtmap.evaluation.results import read_results
from doubtmap.files import held

SCORES = "max_softmax,entropy"


class Killed(Exception):
    """Stands for the end of the process."""


def killed_at(stage, image):
    def progress(at_stage, done, total):
        if (at_stage, done) == (stage, image):
            raise Killed

    return progress


def without_times(results):
    return results.figures | {"seconds": None}


@pytest.mark.parametrize(("stage", "image"), [("pixels", 1), ("pixels", 6), ("components", 3)])
@pytest.mark.parametrize("largest", [1, 1 << 31])
def test_a_resumed_run_equals_an_unbroken_one(
    fresh_segmenter, streets, tmp_path, monkeypatch, stage, image, largest
):
    monkeypatch.setattr(journal_module, "LARGEST", largest)
    segmenter = fresh_segmenter()
    unbroken = dm.evaluate(segmenter, streets, SCORES, replicates=20)
    with pytest.raises(Killed):
        dm.evaluate(
            segmenter,
            streets,
            SCORES,
            replicates=20,
            out=tmp_path,
            progress=killed_at(stage, image),
        )
    seen = []
    resumed = dm.evaluate(
        fresh_segmenter(),
        streets,
        SCORES,
        replicates=20,
        out=tmp_path,
        resume=True,
        progress=lambda *state: seen.append(state),
    )
    assert_alike(without_times(resumed), without_times(unbroken))
    assert_alike(resumed.curves, unbroken.curves)
    first = next(done for at_stage, done, _ in seen if at_stage == stage)
    assert first >= image
    assert not (tmp_path / ".progress").exists()


def test_without_resume_an_unfinished_run_is_not_thrown_away(segmenter, streets, tmp_path):
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, SCORES, out=tmp_path, progress=killed_at("pixels", 2))
    with pytest.raises(dm.UsageError, match="not finished"):
        dm.evaluate(segmenter, streets, SCORES, out=tmp_path)


def test_another_request_does_not_go_on_with_this_run(segmenter, streets, tmp_path):
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, SCORES, out=tmp_path, progress=killed_at("pixels", 2))
    with pytest.raises(dm.UsageError, match="scores differ"):
        dm.evaluate(segmenter, streets, "entropy", out=tmp_path, resume=True)


def test_a_torn_last_record_is_cut_off(tmp_path):
    journal = Journal(tmp_path / "run", {}, resume=False)
    journal.append(b"whole")
    journal.append(b"torn")
    journal.close()
    path = tmp_path / "run" / "journal"
    path.write_bytes(path.read_bytes()[:-2])
    again = Journal(tmp_path / "run", {}, resume=True)
    assert list(again.records()) == [b"whole"]
    again.append(b"next")
    assert list(again.records()) == [b"whole", b"next"]
    again.close()


def test_a_record_with_a_flipped_bit_is_cut_off(tmp_path):
    journal = Journal(tmp_path / "run", {}, resume=False)
    journal.append(b"first")
    journal.append(b"second")
    journal.close()
    path = tmp_path / "run" / "journal"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    again = Journal(tmp_path / "run", {}, resume=True)
    assert list(again.records()) == [b"first"]
    again.close()


def record(data):
    return struct.pack("<QI", len(data), zlib.crc32(data)) + data


def seen(**meta):
    told = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    return record(safetensors.numpy.save({"meta": told}))


TAMPERED = {
    "no tensors": record(b"not what an image measures"),
    "another image": seen(stage="pixels", index=2, name="elsewhere", void=0),
    "no image": seen(stage="pixels", index=-1, name="", void=0),
    "no arrays": seen(stage="pixels", index=2, name="*", void=0),
    "no components": seen(stage="components", index=2, name="*", void=0),
    "no index": seen(stage="pixels"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_journal_that_was_tampered_with_is_one_sentence(what, segmenter, streets, tmp_path):
    asked = {"replicates": 20, "out": tmp_path}
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, "entropy", progress=killed_at("pixels", 2), **asked)
    name = json.dumps(streets.sample_name(2)).encode()
    data = TAMPERED[what]
    if b'"*"' in data:
        meta = json.loads(safetensors.numpy.load(data[12:])["meta"].tobytes())
        data = seen(**meta | {"name": json.loads(name)})
    with (tmp_path / ".progress" / "journal").open("ab") as file:
        file.write(data)
    with pytest.raises(DataError, match=r"measured, but it cannot be used .*Remove it") as refused:
        dm.evaluate(segmenter, streets, "entropy", resume=True, **asked)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("checkpoint.safetensors", safetensors.numpy.save({"x": np.zeros(1)})),
        ("settings.json", b"[]"),
    ],
)
def test_files_of_something_else_are_one_sentence(file, content, segmenter, streets, tmp_path):
    asked = {"replicates": 20, "out": tmp_path}
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, "entropy", progress=killed_at("pixels", 2), **asked)
    (tmp_path / ".progress" / file).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be used .*Remove it to start anew\.$"):
        dm.evaluate(segmenter, streets, "entropy", resume=True, **asked)


@pytest.mark.parametrize("tail", [bytes(4096), struct.pack("<QI", 1 << 62, 7) + b"x"])
def test_what_a_loss_of_power_leaves_is_cut_off(tail, tmp_path):
    journal = Journal(tmp_path / "run", {}, resume=False)
    journal.append(b"whole")
    journal.close()
    with (tmp_path / "run" / "journal").open("ab") as file:
        file.write(tail)
    again = Journal(tmp_path / "run", {}, resume=True)
    assert list(again.records()) == [b"whole"]
    again.close()


def test_two_runs_do_not_share_a_folder(segmenter, streets, tmp_path):
    with held(tmp_path), pytest.raises(dm.UsageError, match="another run is using it"):
        threaded(lambda: dm.evaluate(segmenter, streets, "entropy", out=tmp_path))
    assert not list(tmp_path.iterdir())


def threaded(call):
    """What a call gives or raises in another thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_a_process_that_lives_is_not_disturbed_and_one_that_died_holds_nothing(tmp_path):
    code = (
        f"from doubtmap.files import held\nwith held({str(tmp_path)!r}): print(flush=True); input()"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"\n"
        with pytest.raises(dm.UsageError, match="another run is using it"), held(tmp_path):
            pass
        other.kill()
    assert (tmp_path / ".lock").exists()
    with held(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("older", [1, None])
def test_a_run_of_another_version_of_the_sums_is_refused(segmenter, streets, tmp_path, older):
    with pytest.raises(Killed):
        dm.evaluate(segmenter, streets, "entropy", out=tmp_path, progress=killed_at("pixels", 1))
    settings = tmp_path / ".progress" / "settings.json"
    told = json.loads(settings.read_text())
    del told["version of the sums"]
    settings.write_text(json.dumps(told | ({"version of the sums": older} if older else {})))
    with pytest.raises(dm.UsageError, match="but version of the sums differ"):
        dm.evaluate(segmenter, streets, "entropy", out=tmp_path, resume=True)


def test_a_process_killed_outright_loses_nothing_that_was_done(run, tmp_path):
    words = ["evaluate", "demo", "synthetic:12", "--scores", SCORES, "--replicates", "20", "--out"]
    assert run(*words, tmp_path / "unbroken")[0] == 0
    written = tmp_path / "killed" / ".progress" / "journal"
    other = Apart(tmp_path / "apart", *words, tmp_path / "killed", streets=(96, 144))
    other.killed_when(lambda: written.exists() and written.stat().st_size)
    assert written.stat().st_size
    code, _, err = run(*words, tmp_path / "killed", "--resume")
    assert code == 0, err
    before, after = (
        read_results(tmp_path / name / "results.json") for name in ("unbroken", "killed")
    )
    for changing in ("seconds", "command"):
        before.pop(changing), after.pop(changing)
    assert_alike(before, after)


def assert_alike(a, b):
    """Equal, but for the last bits of PyTorch's exp, which differ from process to process."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_alike(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for left, right in zip(a, b):
            assert_alike(left, right)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-9)
    else:
        assert a == b
