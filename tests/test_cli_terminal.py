"""The command line on terminals that lack letters, in pipes, and interrupted while it starts."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dubito.cli import main
from dubito_nn import export

from .conftest import NUM_FEATURES
from .processes import environment

NAME = "digits-concrete-of-the-second-series-with-a-name-of-sixty-four-x"
CLASSES = ("Schäferhund [bold]", "→ Katze", "犬 [/x]")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(NUM_FEATURES, 3))
    path = tmp_path_factory.mktemp("bundle") / "Blüte [b].dubito"
    export(
        network,
        torch.randn(3, NUM_FEATURES),
        path,
        task="classification",
        output="logits",
        classes=CLASSES,
        notes="für Jürgen ✓ [/]",
    )
    return path


@pytest.fixture(params=["ascii", "iso-8859-1", "utf-8"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with outputs of an encoding; their text."""
    encoding = request.param
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "Daten"))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "16")
    monkeypatch.setenv("LOGNAME", "jürgen")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: object) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in "oe"]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["dubito", *map(str, words)])
            patched.setattr(sys, "stdout", streams[0])
            patched.setattr(sys, "stderr", streams[1])
            with pytest.raises(SystemExit) as ended:
                main()
        out, err = (stream.buffer.getvalue().decode(encoding, "replace") for stream in streams)
        return int(ended.value.code or 0), out, err

    return run


def test_no_command_fails_for_a_letter_and_no_word_is_cut(
    run: Run, bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    encoding = request.node.callspec.params["run"]
    rows = tmp_path / "Zeilen.npy"
    np.save(rows, np.random.default_rng(0).normal(size=(20, NUM_FEATURES)).astype(np.float32))
    shown = [name.encode(encoding, "replace").decode(encoding) for name in CLASSES]
    for words, told in (
        (("register", bundle, "--model", NAME), [NAME]),
        (("inspect", bundle), [", ".join(shown), "[/]"]),
        (("models",), [NAME, "classification"]),
        (("show", NAME), ["[/]", "digest"]),
        (("predict", NAME, "--inputs", rows), ["predictive entropy", "mutual information"]),
        (("predict", NAME, "--inputs", rows, "--json"), ["standard_error"]),
        (("select", NAME, "--data", rows, "--strategy", "bald", "-k", "3"), ["candidates"]),
        (("pool", "add", rows, "--name", NAME), [NAME]),
        (("pool", "list"), [NAME, "inputs f4 4"]),
        (("predict", NAME, "--pool", NAME, "--out", tmp_path / "Größe.npz"), []),
        (("jobs",), [NAME, "succeeded"]),
        (("registry", "audit"), [NAME, "pool-add"]),
        (("registry", "check"), ["no problems"]),
    ):
        code, out, err = run(*words)
        assert code == 0, (words, out, err)
        for word in told:
            assert word in out, (word, out)
        assert "…" not in out
    code, out, err = run("register", "犬.dubito", "--model", NAME)
    assert (code, out) == (1, "")
    assert err.startswith("error: No such file")


def _heed_ctrl_c() -> None:
    """As in a terminal: what a shell runs in the background ignores it, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("module", ["typer", "tomllib"])  # the first one, and one deep within
def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_traceback(
    tmp_path: Path, module: str
) -> None:
    stands_still = "print('imports', flush=True)\nimport time\nwhile True: time.sleep(0.01)"
    (tmp_path / f"{module}.py").write_text(stands_still)
    settings = environment(tmp_path, {})
    settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), settings["PYTHONPATH"]])
    with subprocess.Popen(
        [sys.executable, "-m", "dubito", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=settings,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "imports\n"
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, "")
