"""The teachers of `--recipe dudes`: who they are, what they say, and the cache of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_school import NAMES, taught

from doubtmap.errors import DataError, UsageError
from doubtmap.training.batches import NONE, Batches
from doubtmap.training.labels import Targets
from doubtmap.training.teachers import TARGETS, Cache, Teachers, teacher_fingerprints

CPU = torch.device("cpu")


def test_teachers_are_checked_before_anything_is_opened():
    with pytest.raises(UsageError, match="two or more networks, got 1"):
        Teachers(["demo"], "spread", NAMES)
    with pytest.raises(UsageError, match="the same weights twice, demo and demo"):
        Teachers(["demo", "demo"], "spread", NAMES)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_cache_holds_what_the_teachers_say_of_the_image(kind, school, training_set, tmp_path):
    teachers = Teachers(school[2], kind, NAMES)
    cache = Cache(tmp_path, teachers)
    told = []
    cache.fill(training_set, CPU, told=lambda *done: told.append(done))
    assert told == [(n, 8) for n in range(1, 9)]
    sample = training_set[3]
    said = teachers(sample.image[None].float() / 255)[0]
    kept = cache(sample)
    if kind == "mean":
        assert kept.shape == (3, 6, 8)
        blocks = said.unfold(1, 4, 4).unfold(2, 4, 4).mean((-1, -2))
        torch.testing.assert_close(kept, blocks, atol=1e-3, rtol=1e-3)
    else:
        torch.testing.assert_close(kept, said, atol=1e-3, rtol=1e-3)


def test_teachers_are_asked_once_about_an_image(school, training_set, tmp_path, monkeypatch):
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    cache.fill(training_set, CPU, part=(0, 2))
    assert len([*tmp_path.rglob("*.safetensors")]) == 4
    cache.fill(training_set, CPU, part=(1, 2))
    asked = []
    monkeypatch.setattr(Teachers, "__call__", lambda self, x: asked.append(x))
    cache.fill(training_set, CPU)
    assert not asked


def test_other_teachers_or_pixels_never_meet_an_old_file(school, training_set, tmp_path):
    sample = training_set[0]
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    fewer = Cache(tmp_path, Teachers(school[2][:2], "spread", NAMES))
    other = Cache(tmp_path, Teachers(school[2], "entropy", NAMES))
    order = Cache(tmp_path, Teachers(school[2][::-1], "spread", NAMES))
    paths = {one.path(sample) for one in (cache, fewer, other, order)}
    paths |= {cache.path(training_set[1])}
    assert len(paths) == 5
    with pytest.raises(DataError, match="what the teachers say of"):
        cache(sample)
    cache.fill(training_set, CPU, part=(0, 8))
    content = cache.path(sample).read_bytes()
    for damaged in (content[:-5], b"", b"\xff" * 40):
        cache.path(sample).write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            cache(sample)


def test_a_target_in_another_order_of_classes_is_the_same_class(school):
    image = torch.rand(1, 3, 24, 32)
    ours = Teachers(school[2], "mean", NAMES)(image)
    turned = Teachers(school[2], "mean", ("water", "Grass", "stone"))(image)
    torch.testing.assert_close(turned, ours[:, [2, 0, 1]])


def test_batches_carry_the_cached_target(school, training_set, tmp_path):
    cache = Cache(tmp_path, Teachers(school[2], "spread", NAMES))
    cache.fill(training_set, CPU)
    targets = Targets.of(training_set, NAMES)
    batches = Batches(training_set, targets, 4, (24, 32), augmentation=NONE, carried=cache)
    images, _ = next(iter(batches.epoch(0)))
    on_line = cache.teachers(images[:, :3])
    assert images.shape == (4, 4, 24, 32)
    torch.testing.assert_close(images[:, 3:], on_line, atol=1e-3, rtol=1e-3)


def test_a_cache_needs_teachers_that_can_be_recognised(school):
    teachers = Teachers(school[2], "spread", NAMES)
    for member in teachers.ensemble.members:
        member.source = replace(member.source, sha256=None)
    with pytest.raises(UsageError, match="--cache: expected teachers whose weights are one file"):
        _ = teachers.identity


def test_teachers_without_class_names_are_refused(network, school):
    with pytest.raises(UsageError, match=r"student's classes \(grass, stone, water\), got unnamed"):
        Teachers([network, f"{network.rpartition(':')[0]}:without_norm"], "spread", NAMES)


def test_a_cache_is_not_read_for_teachers_whose_code_changed(school, stripes, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(Path(stripes.removeprefix("folder:"), "net.py").read_text())
    names = [taught(f"python:{code}:build", school[0], name) for name in "12"]
    before = Teachers(names, "spread", NAMES).identity
    assert Teachers(names, "spread", NAMES).identity == before
    code.write_text(code.read_text() + "\n# another way\n")
    assert Teachers(names, "spread", NAMES).identity != before


def test_a_teacher_that_a_python_file_loads_by_itself_is_known_by_that_file(network, tmp_path):
    code = tmp_path / "net.py"
    code.write_text(Path(network.removeprefix("python:").rpartition(":")[0]).read_text())
    before = teacher_fingerprints([f"python:{code}:build"])
    code.write_text(code.read_text() + "\n# another way\n")
    assert (
        teacher_fingerprints([f"python:{code}:build"]) != before and teacher_fingerprints(()) == []
    )


def test_teachers_who_were_let_go_are_opened_again(school):
    teachers, image = Teachers(school[2], "mutual_information", NAMES), torch.rand(1, 3, 24, 32)
    said, identity = teachers(image), teachers.identity
    teachers.let_go()
    assert teachers.ensemble.members == () and teachers.identity == identity
    assert torch.equal(teachers(image), said)
