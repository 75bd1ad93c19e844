"""What README and docs show runs, and answers as printed: a real server on the demonstration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris

from .http import agree
from .processes import command, piped_code, serving

ROOT = Path(__file__).parent.parent
README, CLIENT, HTTP, OPERATION, INPUTS, TUTORIAL = (
    (ROOT / page).read_text()
    for page in (
        *("README.md", "docs/client.md", "docs/http.md", "docs/operation.md", "docs/inputs.md"),
        "docs/tutorial.md",
    )
)
ADDRESS = "http://127.0.0.1:8000"
TOLERANCE = 0.15  # another processor trains another network; what it says stays the same
Run = Callable[[str], str]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def block(language: str, containing: str, document: str = README) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", document, re.DOTALL)
    (only,) = [text for text in blocks if containing in text]
    return str(only)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, demonstration: Path) -> Iterator[Run]:
    """Runs shell commands in a folder of their own, where `dubito` and its server are at hand.

    `piped` runs code, in a process where Dubito is imported; one test shows that it can be.
    """
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(demonstration, folder / "data")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "bin").mkdir()
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            str(ROOT / folder) for folder in ("service", "models", "service/client")
        ),
        "DUBITO_DATA_DIR": str(folder / "data"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
    }

    def shell(text: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text.replace(ADDRESS, address)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    address = ADDRESS
    programs = folder / "bin"
    with command(programs / "dubito"), command(programs / "piped", piped_code):
        shell("dubito demo --if-missing")
        with serving(folder / "data", {"DUBITO_NUM_SAMPLES": "64"}) as server:
            address = server.url
            yield shell


def test_the_first_request_answers_as_printed(run: Run) -> None:
    reply = json.loads(run(block("bash", "examples/digits.json")))
    agree(json.loads(block("json", "request_id")), reply, abs=TOLERANCE, rel=TOLERANCE)


def test_the_same_request_gives_the_same_bytes(run: Run) -> None:
    request = block("bash", "examples/digits.json")
    assert run(request) == run(request)


def test_a_network_of_ones_own_goes_all_the_way(run: Run) -> None:
    export = block("python", "dubito_nn.export")
    engine = block("python", "Engine.load")
    run(f"cat > own.py <<'PY'\n{export}\n{engine}\nPY\n'{sys.executable}' -W error own.py")
    shown = run(block("bash", "dubito inspect"))
    assert "aten.native_dropout.default" in shown
    assert '"num_samples":200' in shown.replace(" ", "")
    rows = load_iris()
    folder = Path(run("pwd").strip())
    np.savez(folder / "held_out.npz", inputs=rows.data.astype(np.float32), labels=rows.target)
    assert "calibration 1" in run(block("bash", "dubito calibrate"))
    np.savez(folder / "test.npz", inputs=rows.data.astype(np.float32), labels=rows.target)
    assert "calibration 1" in run(block("bash", "dubito evaluate"))
    assert (folder / "report.html").read_text().endswith("</html>\n")
    request = re.findall(r"`POST (/v1/models/flowers/calibrate)`", README)
    assert request == ["/v1/models/flowers/calibrate"]


def test_the_client_of_ten_lines_prints_what_is_printed(run: Run) -> None:
    prints(run, block("python", "httpx", HTTP), block("text", "epistemic", HTTP))


def test_the_first_request_from_python_prints_what_is_printed(run: Run) -> None:
    prints(run, block("python", "dubito_client"), block("text", "accept"))


def test_the_page_of_the_client_runs_from_its_first_line_to_its_last(run: Run) -> None:
    code, printed = (
        "".join(re.findall(rf"```{language}\n(.*?)```", CLIENT, re.DOTALL))
        for language in ("python", "text")
    )
    prints(run, code, printed)


def test_the_tutorial_runs_from_its_first_line_to_its_last(run: Run) -> None:
    """What it prints is held against the parts of a text between dots, line by line."""
    shown = ""
    for language, text in re.findall(r"```(\w+)\n(.*?)```", TUTORIAL, re.DOTALL):
        if language == "python":
            shown = run(f"piped <<'PY'\n{text}PY")
        elif language == "bash" and text != "dubito serve\n":  # it runs already
            shown = run(text)
        elif language == "text":
            parts = [re.escape(part) for part in text.strip().split("...")]
            assert re.search(".*?".join(parts), shown, re.DOTALL), shown
    assert len(shown.split()) > 5  # of what `select` prints
    report = (Path(run("pwd").strip()) / "report.html").read_text()
    assert "What was promised, and what came" in report


def test_sentences_go_from_a_tokenizer_to_curl(run: Run) -> None:
    code, shell = (
        block(language, word, INPUTS)
        for language, word in (("python", "WordPieceTrainer"), ("bash", "register moods"))
    )
    run(f"piped <<'PY'\n{code}PY")
    shown = run(shell.replace("\ncurl", "\necho; curl"))
    assert "predictive entropy" in shown
    two, one = (json.loads(line) for line in shown.splitlines() if line.startswith("{"))
    assert two["outputs"]["label"] == ["good", "bad"]
    assert one["outputs"]["label"] == ["bad"]


def test_a_table_goes_from_scikit_learn_to_curl(run: Run) -> None:
    python, shell, curl = (
        block(language, word, INPUTS)
        for language, word in (
            ("python", "from_sklearn"),
            ("bash", "register outcomes"),
            ("bash", "id_column"),
        )
    )
    run(f"piped <<'PY'\n{python}PY")
    shown = run(shell)
    assert "calibration 1" in shown
    assert "id,age,job,label,mean_no,mean_yes" in shown
    first, second = map(json.loads, run(curl.replace("\ncurl", "\necho; curl")).split("\n"))
    assert len(first["outputs"]["label"]) == 2
    assert second["ids"] == [f"p{row}" for row in range(500, 505)]
    assert set(second["outputs"]["decision"]) <= {"accept", "review", "reject"}


def test_a_processor_of_transformers_is_served_with_its_network(run: Run) -> None:
    run(f"piped <<'PY'\n{block('python', 'ViTImageProcessorPil', INPUTS)}PY")
    shown = run(block("bash", "register photos", INPUTS).replace("\ncurl", "\necho; curl"))
    assert shown.count(".jpg") == 2
    one, both = (json.loads(line) for line in shown.split("\n") if line.startswith("{"))
    assert one["outputs"]["label"] == both["outputs"]["label"][1:]
    assert len(both["outputs"]["label"]) == 2


def prints(run: Run, code: str, printed: str) -> None:
    """Code prints what stands beside it, its numbers roughly."""
    number = re.compile(r"\d+\.\d*(?:e[+-]\d+)?")
    shown = run(f"piped <<'PY'\n{code}PY")
    assert number.sub("x", shown).split() == number.sub("x", printed).split()
    known = [float(text) for text in number.findall(printed)]
    assert [float(text) for text in number.findall(shown)] == pytest.approx(known, abs=TOLERANCE)


def test_a_backup_made_while_the_server_runs_is_whole_and_restored(run: Run) -> None:
    assert run(block("bash", "backup restore", OPERATION)).count("no problems, no orphans") == 2


def test_the_demonstration_reaches_its_accuracy(run: Run) -> None:
    page = json.loads(run(f"curl -s {ADDRESS}/v1/models/digits/calibration"))
    assert page["report"]["after"]["accuracy"] >= 0.97


def test_learned_rates_stand_in_the_version_and_in_inspect(run: Run) -> None:
    page = json.loads(run(f"curl -s {ADDRESS}/v1/models/digits-concrete/versions/1"))
    sites = page["sites"]
    assert all(site["learned"] for site in sites)
    assert len({site["drop_prob"] for site in sites}) == len(sites) > 1
    digest = page["digest"]
    bundle = run(f"find data -name '{digest}.dubito'").strip()
    shown = run(f"dubito inspect '{bundle}'")
    assert len(re.findall(r"\d learned", shown)) == len(sites)
