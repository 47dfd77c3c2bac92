"""Which implementation serves: the build, the override, and inputs that C does not take."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import torch

from doubtmap import kernels
from doubtmap.errors import UsageError
from doubtmap.kernels import compiled, fused
from doubtmap.prediction import Prediction
from doubtmap.scores import divergence, energy, entropy, margin, max_logit
from doubtmap.scores.parsing import parse_scores
from doubtmap.scoring import score_maps


def test_the_pass_is_built_wherever_there_is_a_compiler():
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"no C compiler ({compiler})")
    assert compiled.missing() is None, "pip install --no-deps --no-build-isolation -e ."


def test_what_serves_is_visible_and_can_be_overridden(built, monkeypatch):
    assert kernels.available()["kernels"] == "compiled"
    assert kernels.available()["instructions"] in ("avx512", "avx2", "baseline")
    assert kernels.available()["threads"] == str(torch.get_num_threads())
    monkeypatch.setenv("DOUBTMAP_KERNELS", "reference")
    assert kernels.available() == {"kernels": "reference", "reason": "DOUBTMAP_KERNELS=reference"}
    monkeypatch.setenv("DOUBTMAP_KERNELS", "fast")
    with pytest.raises(UsageError, match="triton or nothing, got 'fast'"):
        kernels.available()


def test_without_the_library_pytorch_serves_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("DOUBTMAP_KERNELS", raising=False)
    monkeypatch.setattr(compiled, "missing", lambda: "it was not built")
    assert kernels.available() == {"kernels": "reference", "reason": "it was not built"}
    assert kernels.resized_statistics(torch.randn(1, 3, 2, 2), (4, 4)).margin.shape == (1, 4, 4)
    monkeypatch.setenv("DOUBTMAP_KERNELS", "compiled")
    with pytest.raises(UsageError, match="pip install --force-reinstall"):
        kernels.resized_statistics(torch.randn(1, 3, 2, 2), (4, 4))


def test_who_must_wait_for_pytorch_is_told_once(monkeypatch, caplog):
    monkeypatch.delenv("DOUBTMAP_KERNELS", raising=False)
    monkeypatch.setattr(compiled, "missing", lambda: "it was not built")
    fused._tell.cache_clear()
    for _ in range(2):
        kernels.available()
    (line,) = [record.getMessage() for record in caplog.records if record.name == "doubtmap"]
    assert "it was not built. PyTorch serves, some 20 times slower" in line


def test_a_missing_library_is_told_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "doubtmap/kernels/compiled.py"))
    with pytest.raises(OSError, match="it was not built when doubtmap was installed"):
        compiled.library.__wrapped__()
    (tmp_path / "setup.py").touch()
    with pytest.raises(OSError, match="in these sources; build it with"):
        compiled.library.__wrapped__()


@pytest.mark.parametrize("of", ["structures", "build"])
def test_a_library_of_other_sources_is_refused(built, monkeypatch, of):
    if of == "build":
        monkeypatch.setattr(compiled, "BUILD", compiled.BUILD + 1)
    else:
        monkeypatch.setattr(compiled.ctypes, "sizeof", lambda _: 8)
    with pytest.raises(OSError, match=r"another version.*build it again with: pip install"):
        compiled.library.__wrapped__()


def test_a_library_without_a_number_is_refused(built, monkeypatch, tmp_path):
    """As they were compiled before they had one: an empty library says nothing."""
    (tmp_path / "empty.c").write_text("int nothing;")
    to = tmp_path / compiled.FILE
    words = ["cc", "-shared", "-fPIC", str(tmp_path / "empty.c"), "-o", str(to)]
    if shutil.which("cc") is None or subprocess.run(words, check=False).returncode:
        pytest.skip("no C compiler")
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "compiled.py"))
    with pytest.raises(OSError, match=r"build none, expected \d"):
        compiled.library.__wrapped__()


def test_the_number_is_that_of_the_sources():
    header = Path(compiled.__file__).with_name("pixels.h").read_text()
    assert f"#define BUILD {compiled.BUILD}\n" in header


def served_by_compiled(monkeypatch, x):
    called = []
    monkeypatch.setattr(
        compiled, "statistics", lambda *a, real=compiled.statistics: called.append(1) or real(*a)
    )
    kernels.resized_statistics(x, (5, 6))
    return bool(called)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_c_takes_single_and_half_precision(built, monkeypatch, dtype):
    assert served_by_compiled(monkeypatch, torch.randn(1, 3, 5, 6).to(dtype))


def test_pytorch_takes_double_precision_and_gradients(built, monkeypatch):
    assert not served_by_compiled(monkeypatch, torch.randn(1, 3, 5, 6, dtype=torch.float64))
    x = torch.randn(1, 3, 5, 6, requires_grad=True)
    assert not served_by_compiled(monkeypatch, x)
    for score in (max_logit, entropy, margin, energy):
        x.grad = None
        score(x).sum().backward()
        assert x.grad.abs().sum() > 0
    with torch.no_grad():
        assert served_by_compiled(monkeypatch, x)


@pytest.mark.parametrize("temperature", [1e-35, 1e35])
def test_temperatures_beyond_float32_go_to_pytorch(built, monkeypatch, temperature):
    monkeypatch.setattr(compiled, "statistics", lambda *_, **__: pytest.fail("compiled"))
    assert fused.resized_divergence(torch.zeros(1, 3, 1, 1), temperature, (2, 2)).shape == (1, 2, 2)


def test_statistics_and_divergence_make_no_full_size_logits(built):
    prediction = Prediction(torch.randn(1, 5, 8, 8), size=(32, 32))
    first = divergence(prediction)
    assert prediction.statistics.divergence is None
    assert "logits" not in prediction.__dict__
    other_way = Prediction(prediction.native_logits, size=(32, 32))
    assert torch.equal(other_way.statistics.margin, prediction.statistics.margin)
    assert torch.equal(divergence(other_way), first)
    assert prediction.divergence(2.0) is prediction.divergence(2.0)


def test_the_scores_of_an_image_take_one_pass_in_any_order(built, monkeypatch):
    names = ["entropy", "max_softmax", "divergence", "margin", "energy"]
    scores, called, real = parse_scores(",".join(names)), [], compiled.statistics
    monkeypatch.setattr(compiled, "statistics", lambda *a, **k: called.append(1) or real(*a, **k))
    maps = score_maps(Prediction(torch.randn(1, 5, 8, 8), size=(32, 32)), scores)
    assert list(maps) == names
    assert len(called) == 1
