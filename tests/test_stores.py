"""Runs that are written to buckets, and networks and fitted files that lie there."""

import json
import re

import numpy as np
import pytest
import torch
from bucket import Store, as_buckets, serving
from PIL import Image

import doubtmap as dm
from doubtmap.errors import DataError, Stopped, UsageError
from doubtmap.files.stores import cache, near, sent
from doubtmap.names import ADDRESSES

for name in ("fsspec", "aiohttp", "s3fs"):
    pytest.importorskip(name, reason=f"{name} is not installed")
import fsspec  # noqa: E402


@pytest.fixture(scope="module")
def store():
    with serving() as address:
        yield address


@pytest.fixture
def s3(store, monkeypatch):
    as_buckets(store, monkeypatch)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DOUBTMAP_CACHE", str(place))
    ADDRESSES.clear()
    yield place
    for path in [path for path in Store.files if path.startswith("/bucket/run")]:
        del Store.files[path]


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        pixels = draw.integers(0, 255, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def there(bucket="/bucket/run"):
    """What lies at an address, but for what says how and when it was made."""
    return {
        name.removeprefix(bucket): content
        for name, content in Store.files.items()
        if name.startswith(bucket)
    }


def files_in(folder):
    return {f"/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_in_a_bucket_is_the_run_in_a_folder(s3, run, images, tmp_path, own_cache):
    words = ["score", "demo", images, "--scores", "entropy,energy", "--out"]
    code, said, error = run(*words, "s3://bucket/run")
    assert code == 0, error
    assert said.strip() == "3 of 3 images scored: s3://bucket/run"
    assert not any(path.is_file() for path in own_cache.rglob("*"))
    assert run(*words, tmp_path / "near")[0] == 0
    far, here = there(), files_in(tmp_path / "near")
    assert far.keys() == here.keys() and len(far) > 12
    for name in far.keys() - {"/options.toml", "/score.json"}:
        assert far[name] == here[name], name
    assert str(own_cache).encode() not in b"".join(far.values())
    assert b'out = "s3://bucket/run"' in far["/options.toml"]
    assert b"--config s3://bucket/run/options.toml" in far["/options.toml"]


def test_a_run_that_was_stopped_goes_on_from_what_was_sent(s3, run, images, monkeypatch):
    from doubtmap.images import writing as scoring

    words = ["score", "demo", images, "--scores", "energy", "--out", "s3://bucket/run"]
    write, count = scoring._write, []

    def stop(*given):
        if count:
            raise Stopped("stopped by SIGTERM")
        count.append(write(*given))

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_write", stop)
        assert run(*words)[0] == 1
    assert any("/.waiting/" in name for name in there())
    Store.asked.clear()
    code, said, error = run(*words, "--resume")
    assert code == 0, error
    assert "3 of 3" in said and not any(".waiting" in name for name in there())
    sent_now = [line for line in Store.asked if line.startswith("PUT")]
    assert "PUT /bucket/run/energy/a.png" in sent_now
    assert "PUT /bucket/run/classes/a.png" not in sent_now  # it was sent when the run was stopped


def test_an_evaluation_that_is_not_finished_is_not_begun_anew_unasked(s3, run, monkeypatch):
    from doubtmap.evaluation import first_look

    words = ["evaluate", "demo", "synthetic:3", "--scores", "entropy", "--out", "s3://bucket/run"]
    observe, count = first_look.observe, []

    def fail(*given):
        count.append(0)
        if len(count) == 3:
            raise DataError("image 3: cannot be used.")
        return observe(*given)

    with monkeypatch.context() as patch:
        patch.setattr(first_look, "observe", fail)
        code, _, error = run(*words)
    assert code == 1 and "image 3" in error and "/.progress/journal" in there()
    code, _, error = run(*words)
    assert code == 2 and "s3://bucket/run: holds a run that is not finished" in error
    code, _, error = run(*words, "--resume")
    assert code == 0, error
    assert {"/results.json", "/report.html"} <= there().keys()
    assert "/.progress/journal" not in there()


def test_what_a_killed_run_left_here_is_never_lost(memory):
    with pytest.raises(KeyboardInterrupt), sent("memory://b/run", False) as place:
        place.mkdir()
        (place / "done").write_text("1")
        raise KeyboardInterrupt
    assert memory.cat("/b/run/done") == b"1" and not place.exists()
    place.mkdir(parents=True)
    (place / "more").write_text("2")
    with pytest.raises(UsageError, match="has left"), sent("memory://b/run", False):
        pass
    with sent("memory://b/run", True) as place:
        assert (place / "done").read_text() + (place / "more").read_text() == "12"
        (place / "done").unlink()
    assert sorted(memory.find("/b/run")) == ["/b/run/more"]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("half")
    with sent("memory://b/run", None) as place:
        assert not place.exists()


def test_what_cannot_be_sent_stays_here(s3, run, images, own_cache):
    Store.refused.add("/bucket/run/classes/b.png")
    try:
        words = ["score", "demo", images, "--scores", "entropy", "--out", "s3://bucket/run"]
        code, _, error = run(*words)
        assert code == 1 and "s3://bucket/run: cannot be written: that is not allowed" in error
        assert f"What was written lies in {own_cache}" in error
    finally:
        Store.refused.clear()
    code, _, error = run(*words, "--resume")
    assert code == 0, error
    assert len([name for name in there() if name.startswith("/classes/")]) == 3


@pytest.mark.parametrize(
    "address, code, says",
    [
        ("https://host/run", 2, "an address that can be written"),
        ("s3://readonly/run", 1, "s3://readonly/run.* cannot be written: that is not allowed"),
    ],
)
def test_an_address_that_cannot_be_written_is_refused_at_once(address, code, says, s3, run, images):
    found = run("score", "no-such-network", images, "--out", address)
    assert found[0] == code and re.search(says, found[2]), found


def test_one_run_at_a_time(memory):
    refused = pytest.raises(UsageError, match=r"memory://b/run: .* of its own")
    with sent("memory://b/run", False), refused, sent("memory://b/run", False):
        pass


def test_parts_in_buckets_are_merged(memory, run, tmp_path):
    words = ["evaluate", "demo", "synthetic:3", "--scores", "entropy"]
    for number in (1, 2):
        out = f"memory://b/part{number}"
        code, _, error = run(*words, "--part", f"{number}/2", "--out", out)
        assert code == 0 and f": {out}. Once" in error
    parts = ["memory://b/part2", "memory://b/part1"]
    assert run("merge", "memory://b/whole", *parts)[0] == 0
    assert run(*words, "--out", tmp_path / "one")[0] == 0
    far = json.loads(memory.cat("/b/whole/results.json"))
    here = json.loads((tmp_path / "one/results.json").read_text())
    for each in (far, here):
        del each["seconds"], each["command"], each["directory"]
    assert far == here


def test_networks_are_fetched_once_and_anew_when_they_change(memory, own_cache, caplog):
    torch.manual_seed(0)
    program = torch.export.export(torch.nn.Conv2d(3, 4, 1), (torch.zeros(1, 3, 8, 8),))
    torch.export.save(program, own_cache / "net.pt2")
    memory.pipe("/b/net.pt2", (own_cache / "net.pt2").read_bytes())
    image = torch.rand(1, 3, 8, 8)
    far, here = (dm.load(f"{at}/net.pt2") for at in ("memory://b", own_cache))
    torch.testing.assert_close(far(image).logits, here(image).logits, rtol=0, atol=0)
    assert far.description["source"] == "memory://b/net.pt2"
    assert "fetched to" in caplog.text
    caplog.clear()
    place = near("memory://b/net.pt2")
    assert "fetched to" not in caplog.text and place.is_relative_to(cache())
    memory.pipe("/b/net.pt2", b"other")
    assert near("memory://b/net.pt2").read_bytes() == b"other" and place.exists()


def test_folders_and_what_lies_beside_networks_are_fetched(s3):
    Store.files |= {"/bucket/hf/config.json": b"{}", "/bucket/hf/in/w.bin": b"1"}
    Store.files |= {"/bucket/n/net.onnx": b"a", "/bucket/n/net.onnx.data": b"b"}
    Store.files |= {"/bucket/n/net.bin": b"c", "/bucket/n/net.xml": b"d"}
    place = near("s3://bucket/hf/")
    assert files_in(place) == {"/config.json": b"{}", "/in/w.bin": b"1"} and place.name == "hf"
    onnx, xml = near("s3://bucket/n/net.onnx"), near("s3://bucket/n/net.xml")
    assert sorted(files_in(onnx.parent)) == ["/net.onnx", "/net.onnx.data"]
    assert {"/net.bin", "/net.xml"} <= files_in(xml.parent).keys()
    with pytest.raises(DataError, match="s3://bucket/none: nothing lies there"):
        near("s3://bucket/none")


def test_calibrators_thresholds_and_fitted_scores_lie_anywhere(memory, run, tmp_path):
    data = ["demo", "synthetic:2"]
    assert (
        run("calibrate", *data, "--method", "temperature", "--out", "memory://b/c.safetensors")[0]
        == 0
    )
    said = run("fit", "density", *data, "--out", "memory://b/d.safetensors")
    assert said[0] == 0, said
    assert "memory://b/d.safetensors" in said[1] + said[2]
    words = ["evaluate", *data, "--scores", "density:memory://b/d.safetensors"]
    words += ["--calibrator", "memory://b/c.safetensors", "--out", tmp_path / "out"]
    code, _, error = run(*words)
    assert code == 0, error
    about = json.loads((tmp_path / "out/results.json").read_text())
    assert "memory://b/c.safetensors" in json.dumps(about["model"])
