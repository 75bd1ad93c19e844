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

FIXED = {
    **{"positions": 1, "by_class": 1, "binary": 0, "scaled": True, "blocks": True, "GROUP": 16},
    **{"PASSES": 32, "CLASSES": 16, "PLACES": 32, "BLOCKS": 1, "GROUPS": 32},
}
TYPES = {
    **dict.fromkeys(("z", "largest", "factor", "weights"), "*fp32"),
    **dict.fromkeys(("of_passes", "past", "state", "groups", "x", "mean", "correction"), "*fp64"),
    **{"best": "*i32", "inverse": "fp32"},
}
"""Arguments with which each kernel is compiled, by name; the others are whole numbers."""


@needs_triton
def test_kernels_say_in_the_interpreter_what_the_reference_says() -> None:
    options = ["-q", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/launched.py"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), *sys.path]),
            "TRITON_INTERPRET": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert " passed" in done.stdout


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dubito.engine.summing.cuda import corrections, passes, spreads

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in (
        *(passes.sum_passes, spreads.sum_probabilities),
        *(spreads.sum_numbers, corrections.sum_corrections),
    ):
        names = kernel.arg_names
        fixed = {name: value for name, value in FIXED.items() if name in names}
        types = {name: TYPES.get(name, "i32") for name in names}
        source = ASTSource(kernel, types | dict.fromkeys(fixed, "constexpr"), fixed)
        made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1})
        assert made.asm["cubin"]
    assert list(tmp_path.rglob("*.cubin"))
