"""Shards as a data set: what a folder of the same files is, sample by sample, near and afar."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import doubtmap as dm
from doubtmap.datasets import open_dataset
from doubtmap.datasets.fingerprints import sample_marks
from doubtmap.datasets.reading import read_image, read_label
from doubtmap.errors import DataError, UsageError
from doubtmap.files.shards import braces, members_of, shards_of


def encoded(pixels, suffix):
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write(path, files, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))


def sample(seed=0, size=(6, 9), suffix="png"):
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 256, (*size, 3), dtype=np.uint8)
    label = draw.integers(0, 3, size, dtype=np.uint8)
    return encoded(image, suffix), encoded(label, "png")


@pytest.fixture
def two(tmp_path):
    """Two shards of two samples each, with what other programs put beside."""
    for shard in (0, 1):
        files = {"./._00.png": b"x", "__info__.json": b"{}"}
        for at in (0, 1):
            image, label = sample(2 * shard + at)
            key = f"{2 * shard + at:02d}"
            files |= {f"{key}.png": image, f"{key}.seg.png": label, f"{key}.cls": b"1"}
        write(tmp_path / f"s-{shard}.tar", files)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    return tmp_path


CASES = st.lists(
    st.tuples(
        st.sampled_from(["png", "jpg", "tif"]),
        st.sampled_from(["seg.png", "mask.png", "label.tif"]),
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        st.sampled_from(["", "in/", "a-ä/"]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases=CASES, format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_shards_are_what_a_folder_is(cases, format, tmp_path_factory):
    base = tmp_path_factory.mktemp("shards")
    shards = [{}, {}, {}]
    for at, (suffix, label_suffix, size, folder, shard) in enumerate(cases):
        image, label = sample(at, size, suffix)
        shards[shard] |= {f"{folder}{at}.{suffix}": image, f"{folder}{at}.{label_suffix}": label}
    for at, files in enumerate(shards):
        write(base / f"s-{at}.tar", files, format)
        for name, content in files.items():
            (base / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
            (base / "plain" / name).write_bytes(content)
    found = open_dataset(f"webdataset:{base}/s-{{0..2}}.tar", classes=["a", "b", "c"])
    names = [name for files in shards for name in files]
    pairs = [(base / "plain" / a, base / "plain" / b) for a, b in zip(names[::2], names[1::2])]
    plain = open_dataset(pairs, classes=["a", "b", "c"])
    assert len(found) == len(plain) == len(cases)
    assert sorted(found.sample_name(index).rpartition("_")[2] for index in range(len(found))) == [
        str(at) for at in range(len(cases))
    ]
    for mine, other in zip(found, plain):
        assert (mine.image == other.image).all() and (mine.label == other.label).all()
    for (image, label), (file, mask) in zip(found.files, plain.files):
        assert (read_image(image) == read_image(file)).all()
        assert (read_label(label) == read_label(mask)).all()


def test_samples_are_read_at_random_and_are_sent(two):
    found = open_dataset(f"webdataset:{two}/*.tar")
    assert found.class_names == ("sky", "road", "car") and found.name == "webdataset:*.tar"
    assert [found.sample_name(index) for index in range(4)] == ["00", "01", "02", "03"]
    image, label = sample(3)
    again = pickle.loads(pickle.dumps(found))
    for dataset in (found, again):
        image_file, label_file = dataset.files[3]
        assert image_file.read_bytes() == image and label_file.read_bytes() == label
        assert str(image_file) == f"{two}/s-1.tar/03.png"
    assert (again[3].image == found[3].image).all()
    marks = sample_marks(found)
    assert len(set(marks.values())) == 4
    (two / "s-1.tar").write_bytes((two / "s-1.tar").read_bytes() + b"\0" * 512)
    assert [name for name, mark in sample_marks(found).items() if mark != marks[name]] == [
        "02",
        "03",
    ]


def test_keys_that_come_twice_are_told_apart(two):
    (two / "t-0.tar").write_bytes((two / "s-0.tar").read_bytes())
    found = open_dataset(f"webdataset:{two}/{{s,t}}-0.tar")
    names = [found.sample_name(index) for index in range(4)]
    assert names == ["s-0_00", "s-0_01", "t-0_00", "t-0_01"]


def test_shards_afar_are_read_by_ranges_and_indexed_once(two, monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setenv("DOUBTMAP_CACHE", str(two / "cache"))
    memory = fsspec.filesystem("memory")
    for file in two.glob("*.t*"):
        memory.pipe(f"/far/{file.name}", file.read_bytes())
    far = open_dataset("webdataset:memory://far/s-{0..1}.tar")
    for mine, other in zip(far, open_dataset(f"webdataset:{two}/s-*.tar")):
        assert (mine.image == other.image).all() and mine.name == other.name
    assert len(list((two / "cache/shards").iterdir())) == 2
    monkeypatch.setattr("doubtmap.files.shards._index", None)
    (again,) = members_of(shards_of("memory://far/s-1.tar"))
    assert again[2].read_bytes() == sample(2)[0]
    memory.store.clear()
    with pytest.raises(DataError, match=r"memory://far/s-1.tar/02.png: cannot be read"):
        again[2].read_bytes()


def test_an_evaluation_of_shards_is_that_of_a_table(two, run, tmp_path):
    for members in members_of(shards_of(f"{two}/s-*.tar")):
        for member in members:
            (two / member.name).write_bytes(member.read_bytes())
    lines = [f"{at:02d}.png,{at:02d}.seg.png" for at in range(4)]
    (two / "t.csv").write_text("\n".join(["image,label", *lines]))
    words = ["--scores", "entropy", "--classes", ",".join(dm.load("demo").class_names)]
    figures = []
    for data in (f"webdataset:{two}/s-{{0..1}}.tar", f"table:{two}/t.csv"):
        out = tmp_path / str(len(figures))
        code, _, error = run("evaluate", "demo", data, *words, "--unknown", "rest", "--out", out)
        assert code == 0, error
        figures.append(json.loads((out / "results.json").read_text())["scores"])
    assert figures[0] == figures[1]


def test_braces():
    assert braces("{0..2}-{a,b}") == ["0-a", "0-b", "1-a", "1-b", "2-a", "2-b"]
    assert braces("{098..101}") == ["098", "099", "100", "101"] and braces("x{1}") == ["x{1}"]


@pytest.mark.parametrize(
    "files, says",
    [
        ({"0.png": 0}, "the sample 0 has no label"),
        ({"0.mask.png": 1}, "the sample 0 has no image"),
        ({"0.png": 0, "0.jpg": 0, "0.seg.png": 1}, r"one image in the sample 0, got 0.png and 0.j"),
        ({"0.png": 0, "0.seg.png": 1, "0.mask.png": 1}, "one label in the sample 0"),
        ({"notes.txt": 0}, "expected samples of image and label, found none"),
    ],
)
def test_samples_that_are_none_are_named(files, says, tmp_path):
    write(tmp_path / "s.tar", {name: sample()[which] for name, which in files.items()})
    with pytest.raises(DataError, match=says):
        open_dataset(f"webdataset:{tmp_path}/s.tar", classes=["a", "b", "c"])


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 1.0])
def test_a_shard_that_is_cut_off_is_named(keep, two):
    content = (two / "s-0.tar").read_bytes()
    end = -(-len(content.rstrip(b"\0")) // 512) * 512
    (two / "s-0.tar").write_bytes(content[: int(keep * end)])
    with pytest.raises(DataError, match=r"s-0\.tar: expected a whole tar file"):
        open_dataset(f"webdataset:{two}/s-0.tar")


def test_what_is_no_shard_is_named(two):
    (two / "no.tar").write_bytes(b"\x1f\x8b" + b"x" * 2000)
    for text, kind, says in (
        ("no.tar", DataError, "expected a tar file without compression"),
        ("none.tar", DataError, "No such file"),
        ("none-*.tar", DataError, "found none"),
        ("s-0.tar.gz", UsageError, "without compression"),
    ):
        with pytest.raises(kind, match=says):
            open_dataset(f"webdataset:{two}/{text}")
    (two / "classes.txt").unlink()
    with pytest.raises(UsageError, match=r"classes\.txt"):
        open_dataset(f"webdataset:{two}/s-0.tar")
