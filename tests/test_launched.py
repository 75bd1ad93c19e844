"""Kernels of sums without a GPU: what they say, in Triton's interpreter, and that they compile."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux alone"
)

COMPILE = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from dubito.engine.summing.cuda import corrections, passes, spreads

FIXED = {
    "positions": 1, "by_class": 1, "binary": 0, "scaled": True, "blocks": True, "GROUP": 4,
    "PASSES": 32, "CLASSES": 16, "PLACES": 32, "BLOCKS": 1, "GROUPS": 32,
}
POINTERS = {
    "z": "*fp32", "largest": "*fp32", "factor": "*fp32", "best": "*i32", "weights": "*fp32",
    "of_passes": "*fp64", "past": "*fp64", "state": "*fp64", "groups": "*fp64", "x": "*fp64",
    "mean": "*fp64", "correction": "*fp64", "inverse": "fp32",
}
for kernel in (
    passes.sum_passes, spreads.sum_probabilities, spreads.sum_numbers, corrections.sum_corrections
):
    names = kernel.arg_names
    fixed = {name: value for name, value in FIXED.items() if name in names}
    types = {name: POINTERS.get(name, "i32") for name in names} | dict.fromkeys(fixed, "constexpr")
    source = ASTSource(kernel, types, fixed)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
    assert len(made.asm["cubin"]) > 1000
    print(made.metadata.name)
"""


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What a process says that must not fail."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), *sys.path]),
            "TRITON_CACHE_DIR": str(folder),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@needs_triton
def test_kernels_say_in_the_interpreter_what_the_reference_says(tmp_path: Path) -> None:
    options = ["-q", "-n", "0", "-p", "no:cacheprovider"]
    command = ["-m", "pytest", *options, "tests/launched.py"]
    assert " passed" in run(command, tmp_path, TRITON_INTERPRET="1")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path: Path) -> None:
    said = run(["-c", COMPILE], tmp_path)
    assert said.split() == ["sum_passes", "sum_probabilities", "sum_numbers", "sum_corrections"]
