"""What labels mean: text is a name, an integer an index, and numerals as names are asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dubito.calibration.reading import Written, read_labels, read_targets
from dubito.engine import Engine
from dubito.errors import InputError
from dubito.labels import Classes, LabelsAre
from dubito.recipes.rows import split_rows
from dubito_nn import Manifest, export

from .conftest import Bundles
from .http import npz, upload
from .shell import run_command

GRADES = ("1", "2", "3")
NPZ = {"Content-Type": "application/x-npz"}
ROWS: NDArray[np.float32] = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def grades(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose class names are numerals."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
    path = tmp_path_factory.mktemp("grades") / "grades.dubito"
    rows = torch.from_numpy(ROWS[:3])
    export(network, rows, path, task="classification", output="logits", classes=GRADES)
    return path


@pytest.mark.parametrize(
    ("names", "labels_are", "labels", "expected"),
    [
        (("0", "1", "2"), None, [2, "1", np.int64(0), np.uint8(1)], [2, 1, 0, 1]),
        (("ant", "bee"), None, [1, "ant"], [1, 0]),
        (("10", "20"), None, [0, 1, "20"], [0, 1, 1]),  # which no class is called
        (("cat", "1", "7"), None, [0, 1, 2], [0, 1, 2]),
        (GRADES, None, ["3", "1"], [2, 0]),
        (GRADES, "names", [3, "3", 1], [2, 2, 0]),
        (GRADES, "indices", [2, "3", 0], [2, 2, 0]),
        (("01", "1.5", "3.0"), "names", [1, 3], [0, 2]),
        (("01", "1"), "names", [1], [1]),
        (("-1", " 2"), "names", [-1, 2], [0, 1]),
    ],
)
def test_labels_are_read_as_names_or_indices(
    names: tuple[str, ...], labels_are: LabelsAre | None, labels: list[object], expected: list[int]
) -> None:
    classes = Classes(names, labels_are)
    assert [classes.index(label, "`labels`") for label in labels] == expected


@pytest.mark.parametrize(
    ("names", "labels_are", "label", "told"),
    [
        (GRADES, None, 1, r"name is class '1' \(index 0\) and as an index class '2' \(index 1\)"),
        (GRADES, None, 3, r"name is class '3' \(index 2\) and as an index no class: say `labels_"),
        (("-1", "0"), None, -1, r"name is class '-1' \(index 0\) and as an index no class"),
        (("1.0", "0.0"), None, 1, r"name is class '1.0' \(index 0\) .* class '0.0' \(index 1\)"),
        (("a", "1", "01"), None, 1, r"name is class '1' \(index 1\)"),
        (("01", "1.0"), "names", 1, r"which may be class '01' .* or class '1.0' .*: send names as"),
        (("ant", "bee"), "names", 1, r"expects a name \(ant, bee\), got 1"),
        (("ant", "bee"), "names", -1, r"expects a name \(ant, bee\), got -1"),
        (GRADES, "indices", 3, "an index from 0 to 2, got 3"),
        (GRADES, "indices", "4", "got '4'"),
        (("ant", "bee"), None, -1, "an index from 0 to 1, got -1"),
        (("1.0", "nan", "sNaN", "1e99"), None, 1.0, "got 1.0"),
        (GRADES, "names", True, "got True"),
        (GRADES, "names", None, "got None"),
    ],
)
def test_what_is_no_class_or_two_is_refused(
    names: tuple[str, ...], labels_are: LabelsAre | None, label: object, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        Classes(names, labels_are).index(label, "`labels`")


def _on(labels: object, names: tuple[str, ...], labels_are: LabelsAre | None = None) -> Any:
    manifest = Manifest(
        task="multilabel", output="sigmoid_logits", num_outputs=len(names), classes=names,
        sites=(), torch_version="", inputs=(),
    )  # fmt: skip
    return read_labels(Written(manifest, 2, labels=labels, labels_are=labels_are)).tolist()


def test_integers_of_several_labels_are_0_or_1_for_each_unless_they_are_names() -> None:
    pair, digits = ("0", "1"), tuple(map(str, range(4)))
    assert _on([[0, 1, 0, 1], [0, 0, 0, 0]], digits) == [[0, 1, 0, 1], [0, 0, 0, 0]]
    assert _on(np.array([[1, 0], [0, 0]], bool), pair) == [[1, 0], [0, 0]]
    assert _on([["1"], []], pair) == [[0, 1], [0, 0]]
    for labels in ([[0, 1], [0, 0]], np.array([[0, 1], [0, 0]])):
        with pytest.raises(
            InputError, match=r"names of labels, \[0, 1\], in row 0: say `labels_ar"
        ):
            _on(labels, pair)
        assert _on(labels, pair, "indices") == [[0, 1], [0, 0]]
        assert _on(labels, pair, "names") == [[1, 1], [1, 0]]
    with pytest.raises(InputError, match=r"names of labels, \[1, 3\], in row 1"):
        _on([["1"], [1, 3]], digits)
    assert _on([[2], [1, 3]], digits, "names") == [[0, 0, 1, 0], [0, 1, 0, 1]]
    with pytest.raises(InputError, match=r"names of the labels that are on.* in row 1"):
        _on([[2], [4]], digits, "names")


def test_integers_among_names_that_are_numerals_wait_for_labels_are(
    client: httpx.Client, grades: Path
) -> None:
    path = "/v1/models/grades"
    upload(client, "grades", grades).raise_for_status()
    inputs = ROWS.tolist()
    names = client.post(f"{path}/predict", json={"inputs": inputs}).json()["outputs"]["label"]
    integers = [int(name) for name in names]
    assert len(set(names)) == 3
    for body, options in (
        ({"labels": names}, {}),
        ({"labels": integers}, {"labels_are": "names"}),
        ({"labels": [one - 1 for one in integers]}, {"labels_are": "indices"}),
    ):
        asked = {"inputs": inputs, **body, **options}
        told = client.post(f"{path}/evaluate", json=asked)
        assert told.json()["report"]["accuracy"] == 1.0, told.text
        file = npz(inputs=ROWS, labels=np.array(body["labels"]))
        told = client.post(f"{path}/evaluate", content=file, headers=NPZ, params=options)
        assert told.json()["report"]["accuracy"] == 1.0, told.text
    refused = [
        client.post(f"{path}/{action}", json={"inputs": inputs, "labels": integers})
        for action in ("evaluate", "calibrate")
    ]
    file = npz(inputs=ROWS, labels=np.array(integers))
    refused.append(client.post(f"{path}/calibrate", content=file, headers=NPZ))
    many = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    file = npz(inputs=many, labels=np.arange(200) % 3 + 1)
    query = {"labels_are": "names"}
    fitted = client.post(f"{path}/calibrate", content=file, headers=NPZ, params=query)
    assert fitted.status_code == 200, fitted.text
    named = client.post(f"{path}/predict", json={"inputs": inputs}).json()["request_id"]
    feedback = {"request_id": named, "rows": [{"row": 0, "label": integers[0]}]}
    refused.append(client.post(f"{path}/feedback", json=feedback))
    for reply in refused:
        assert (reply.status_code, "as an index" in reply.json()["detail"]) == (422, True)
        assert "`labels_are`" in reply.json()["detail"]
    client.post(f"{path}/feedback", json={**feedback, "labels_are": "names"}).raise_for_status()
    as_text = {**feedback, "rows": [{"row": 0, "label": names[0]}]}
    known = client.post(f"{path}/feedback", json=as_text).json()["stored"]
    assert [one["known"] for one in known] == [1]


def test_the_command_line_settles_what_integers_are(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    grades: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "8")
    (tmp_path / "rows.npz").write_bytes(npz(inputs=ROWS, labels=np.arange(40) % 3 + 1))

    def run(*words: object) -> tuple[int, str, str]:
        return run_command(capsys, monkeypatch, *words)

    assert run("register", grades, "--model", "grades")[0] == 0
    for command in ("evaluate", "calibrate"):
        code, _, err = run(command, "grades", "--data", tmp_path / "rows.npz")
        assert (code, "as an index" in err) == (1, True)
    asked = ("evaluate", "grades", "--data", tmp_path / "rows.npz", "--json", "--labels-are")
    code, out, _ = run(*asked, "names")
    assert (code, json.loads(out)["num_rows"]) == (0, 40)
    code, _, err = run(*asked, "indices")
    assert (code, "an index from 0 to 2, got 3" in err) == (1, True)


def test_training_asks_what_integers_are_too() -> None:
    arrays = {"inputs": ROWS, "labels": np.arange(40) % 2 + 1}

    def labels(labels_are: LabelsAre | None) -> list[int]:
        rows = split_rows(
            arrays, classes=GRADES, labels_are=labels_are, validation_share=0.0, seed=0
        )
        return rows.targets[:2].tolist()

    assert labels("names") == [0, 1]
    assert labels("indices") == [1, 2]
    with pytest.raises(InputError, match="labels expects names or indices, got 1, which as a name"):
        labels(None)


def test_targets_have_no_names(bundles: Bundles) -> None:
    manifest = Engine.load(bundles("regression")).manifest
    written = Written(manifest, len(ROWS), targets=ROWS[:, 0], labels_are="names")
    with pytest.raises(InputError, match="`labels_are` belongs to labels"):
        read_targets(written)
