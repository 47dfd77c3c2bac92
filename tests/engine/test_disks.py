"""Full disks, folders that go away, too little memory: one sentence, and nothing half written."""

import errno
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import doubtmap as dm
from doubtmap.cli.app import machines
from doubtmap.engine import journal as journal_module
from doubtmap.engine.journal import Journal
from doubtmap.engine.run import Pairs, Remembered
from doubtmap.errors import is_out_of_memory
from doubtmap.files import check_place, sweep, write_atomically
from doubtmap.files.writing import beside
from doubtmap.images import write_scores
from doubtmap.memory import give_back
from doubtmap.streets.synthetic import SyntheticStreets


@pytest.fixture
def tiny_disk():
    """Files can be so large and no larger, as on a disk that is full; root is held to it too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def parts(folder):
    return [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize("size", [100, 40_000])
def test_a_full_disk_ends_evaluate_in_a_sentence_and_resume_goes_on(
    segmenter, tiny_disk, tmp_path, size
):
    streets = SyntheticStreets(3, seed=3, size=(64, 96))
    tiny_disk(size)
    with pytest.raises(dm.DataError, match=r"cannot be written \(File too large\). Make room"):
        dm.evaluate(segmenter, streets, "entropy", replicates=20, out=tmp_path)
    assert not parts(tmp_path)
    tiny_disk(resource.RLIM_INFINITY)
    resumed = dm.evaluate(segmenter, streets, "entropy", replicates=20, out=tmp_path, resume=True)
    assert len(resumed.figures["images"]) == 3 and not parts(tmp_path)


def test_a_disk_that_is_full_at_the_checkpoint(segmenter, tiny_disk, tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "LARGEST", 1)
    streets = SyntheticStreets(2, seed=3, size=(64, 96))

    def run(**more):
        return dm.evaluate(segmenter, streets, "entropy", replicates=20, out=tmp_path, **more)

    tiny_disk(300_000)
    with pytest.raises(dm.DataError, match="File too large"):
        run()
    progress = tmp_path / ".progress"
    assert not parts(tmp_path) and not (progress / "checkpoint.safetensors").exists()
    tiny_disk(resource.RLIM_INFINITY)
    assert (
        run(resume=True).figures["scores"]
        == dm.evaluate(segmenter, streets, "entropy", replicates=20).figures["scores"]
    )


def test_a_full_disk_ends_score_in_a_sentence(segmenter, tiny_disk, tmp_path):
    images = [tmp_path / f"{index}.png" for index in range(2)]
    for index, path in enumerate(images):
        street = SyntheticStreets(2, seed=3, size=(64, 96))[index]
        Image.fromarray(street.image.permute(1, 2, 0).numpy()).save(path)

    def run(**more):
        scores = {"entropy": dm.scores.entropy, "energy": dm.scores.energy}
        return write_scores(segmenter, images, scores, tmp_path / "maps", **more)

    tiny_disk(6_000)  # settings and classes go, a map does not
    with pytest.raises(dm.DataError, match="cannot be written"):
        run()
    assert not parts(tmp_path)
    tiny_disk(resource.RLIM_INFINITY)
    assert run(resume=True).startswith("2 of 2")


def test_a_full_temporary_folder(segmenter, tiny_disk):
    pairs = Pairs(segmenter, SyntheticStreets(2, seed=3, size=(64, 96)))
    tiny_disk(100)
    with pytest.raises(dm.DataError, match="another temporary folder with TMPDIR"):
        list(Remembered(pairs))


def test_an_output_folder_that_goes_away(segmenter, streets, tmp_path):
    import shutil

    def gone(stage, done, total):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)

    with pytest.raises(dm.DataError, match="removed while the run wrote to it"):
        dm.evaluate(
            segmenter, streets, "entropy", replicates=20, out=tmp_path / "out", progress=gone
        )
    image = tmp_path / "0.png"
    for index in range(3):
        Image.fromarray(np.full((64, 96, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    with pytest.raises(dm.DataError, match="removed while maps were written to it"):
        paths = [image.with_name(f"{index}.png") for index in range(3)]
        scores = {"entropy": dm.scores.entropy}
        write_scores(segmenter, paths, scores, tmp_path / "out", progress=gone)


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path):
    target = tmp_path / ("name" * 60)
    left = tmp_path / next(iter(name_of_part(target)))
    left.write_bytes(b"half")
    with beside(target) as file:
        file.write(b"whole")
        sweep(tmp_path)
        assert not left.exists()
        (written,) = parts(tmp_path)
        assert written.read_bytes() in (b"", b"whole")
    assert target.read_bytes() == b"whole" and not parts(tmp_path)
    left.write_bytes(b"half")
    check_place(tmp_path / "another")
    assert left.exists()
    check_place(target)
    assert not left.exists()
    with pytest.raises(ZeroDivisionError), beside(target):
        raise ZeroDivisionError
    assert target.read_bytes() == b"whole" and not parts(tmp_path)


def name_of_part(target):
    with beside(target):
        yield next(path.name for path in target.parent.iterdir() if path.suffix == ".part")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_anywhere_leaves_the_older_file(tmp_path, monkeypatch, number):
    path = tmp_path / "file"
    write_atomically(path, b"before")

    def fail(*_):
        raise OSError(number, "it does not work")

    for owner, name in ((Path, "replace"), ("doubtmap.files.writing.os", "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(
                *((owner, name) if isinstance(owner, type) else (f"{owner}.{name}",)), fail
            )
            says = "Make room" if number != errno.EIO else r"\). Choose another --out"
            with pytest.raises(dm.DataError, match=says):
                write_atomically(path, b"after", durable=True)
    assert path.read_bytes() == b"before" and not parts(tmp_path)


def test_a_journal_takes_all_of_a_record_or_says_so(tmp_path, tiny_disk):
    journal = Journal(tmp_path / "run", {}, resume=False)
    journal.append(b"a" * 1000)
    tiny_disk(1500)
    with pytest.raises(dm.DataError, match="File too large"):
        journal.append(b"b" * 1000)
    journal.close()
    tiny_disk(resource.RLIM_INFINITY)
    again = Journal(tmp_path / "run", {}, resume=True)
    assert list(again.records()) == [b"a" * 1000]
    again.close()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np.exceptions.AxisError(2) and np.empty and MemoryError("Unable to allocate 9 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"
        ),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_one_sentence(run, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("doubtmap.models.load", fail)
    code, out, err = run("evaluate", "demo", "synthetic:2")
    assert (code, out) == (1, "") and err.startswith("doubtmap: out of memory")
    assert "--resume goes on" in err and "Traceback" not in err


def test_other_trouble_with_the_machine_is_a_sentence_and_a_defect_is_not():
    assert "x.png: cannot be used (Input" in machines(OSError(5, "Input/output error", "x.png"))
    assert machines(RuntimeError("a defect of ours")) is None
    assert not is_out_of_memory(ValueError("memory"))


def test_freed_memory_goes_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1])

    give_back()
    blocks = [bytearray(1000) for _ in range(60_000)]
    keep = blocks[::2000]
    full = resident()
    del blocks
    give_back()
    assert resident() < full - 5_000 and len(keep) == 30  # pages of 4 KiB: of 60 MB, 20 at least


def test_a_checkpoint_is_not_much_larger_than_what_was_seen(tmp_path):
    from doubtmap.metrics.histogram import Histogram

    histogram = Histogram(1 << 21, shape=(4,))
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    histogram.update(values, np.zeros(5000, np.int64))
    state = histogram.state()
    assert sum(array.nbytes for array in state.values()) < 50 * values.nbytes
    again = Histogram.from_state(state)
    for part in ("counts", "lowest", "single"):
        assert np.array_equal(getattr(again.view(), part), getattr(histogram.view(), part))
