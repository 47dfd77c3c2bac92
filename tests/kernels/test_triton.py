"""The Triton pass, in processes of its own: the interpreter is chosen before Triton is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from doubtmap import kernels
from doubtmap.errors import UsageError
from doubtmap.kernels import triton_pass

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed here"
)


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=HERE.parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_triton
def test_parity_with_the_reference(tmp_path):
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    # NumPy tells of an infinity that a GPU makes too; all results are looked at.
    ignored = ["-W", "ignore:overflow encountered:RuntimeWarning"]
    ignored += ["-W", "ignore:Conversion of an array:DeprecationWarning"]  # Triton 3.4 by itself
    out = run(
        *(
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-rs",
            *ignored,
            "tests/kernels/triton_cases.py",
        ),
        DOUBTMAP_KERNELS="triton",
        TRITON_CACHE_DIR=str(tmp_path),
        **interpreter,
    )
    assert " 100%" in out or "[100%]" in out
    assert "SKIPPED" not in out


@needs_triton
def test_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    out = run(
        str(HERE / "compile_for_gpus.py"), TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path)
    )
    assert out.split() == ["statistics_kernel"] * 2 + ["norm_kernel", "weight_kernel"]


def test_without_it_the_reference_serves_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_pass, "missing", lambda: "there is no CUDA device")
    assert kernels.available("cuda") == {
        "kernels": "reference",
        "reason": "there is no CUDA device",
    }
    monkeypatch.setenv("DOUBTMAP_KERNELS", "triton")
    with pytest.raises(UsageError, match="there is no CUDA device"):
        kernels.available("cuda")


def test_it_is_said_why_it_is_missing(monkeypatch):
    monkeypatch.setattr(triton_pass.importlib.util, "find_spec", lambda _: None)
    assert triton_pass.missing.__wrapped__() == "triton is not installed"
    monkeypatch.undo()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_pass.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert triton_pass.missing.__wrapped__() == "there is no CUDA device"


def test_cpu_tensors_never_go_to_the_interpreter_unasked(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delenv("DOUBTMAP_KERNELS", raising=False)
    assert kernels.available("cpu")["kernels"] in ("compiled", "reference")
