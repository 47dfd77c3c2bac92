"""A run that was killed and goes on gives what an unbroken one gives."""

import signal
import subprocess
import sys
import time

import pytest

import doubtmap as dm
from doubtmap.engine import journal as journal_module
from doubtmap.engine.journal import Journal
from doubtmap.evaluation.results import read_results

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


def test_a_process_killed_outright_loses_nothing_that_was_done(tmp_path):
    command = [
        *(sys.executable, "-c", "from doubtmap.cli import main; main()"),
        *("evaluate", "demo", "synthetic:4", "--scores", SCORES, "--replicates", "20"),
    ]

    def run(out, *more):
        return subprocess.run(
            [*command, "--out", str(out), *more], capture_output=True, text=True, timeout=200
        )

    assert run(tmp_path / "unbroken").returncode == 0
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "killed")], stderr=subprocess.DEVNULL
    )
    written = tmp_path / "killed" / ".progress" / "journal"
    while not (written.exists() and written.stat().st_size > 2 << 20):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = run(tmp_path / "killed", "--resume")
    assert resumed.returncode == 0, resumed.stderr
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
