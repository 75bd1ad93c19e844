"""`dubito train` whole: configuration, rows, bundle, report."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from dubito.cli import main
from dubito.engine import Engine, Sampling
from dubito.errors import InputError
from dubito.recipes import read_config, run
from dubito.recipes.rows import split_rows
from dubito.recipes.table import read_table
from dubito_nn import load_bundle

ROOT = Path(__file__).parent.parent
Run = Callable[..., tuple[int, str, str]]

MLP = '[network]\nkind = "mlp"\nhidden = [16]\n'
QUICK = "[training]\nepochs = 3\nlearning_rate = 1e-2\n"


def _arrays(num_rows: int = 90) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_rows, 4)).astype(np.float32)
    return {"inputs": inputs, "labels": inputs[:, :3].argmax(axis=1)}


def _regression(num_rows: int = 90) -> dict[str, NDArray[np.generic]]:
    inputs = _arrays(num_rows)["inputs"]
    return {"inputs": inputs, "targets": 100.0 + 20.0 * inputs[:, 0].astype(np.float64)}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a configuration and its rows; returns the configuration's path."""

    def written(tables: str, **arrays: NDArray[np.generic]) -> Path:
        np.savez(tmp_path / "rows.npz", **(arrays or _arrays()))  # type: ignore[arg-type]
        path = tmp_path / "config.toml"
        path.write_text(f'data = "rows.npz"\nbundle = "made.dubito"\n{tables}')
        return path

    return written


@pytest.fixture
def dubito(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Runs a command; gives exit code, stdout and stderr."""
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dubito", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_training_leaves_a_bundle_prints_the_advice_and_registers(
    dubito: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    code, out, err = dubito("train", write(MLP + QUICK), "--register", "made")
    assert code == 0, err
    for word in ("gap", "validation rows", "dropout: ", "72 for training, 18 for validation"):
        assert word in out
    assert "loss" in err
    assert "made version 1" in out
    engine = Engine.load(tmp_path / "made.dubito")
    prediction = engine.predict(_arrays()["inputs"][:5], sampling=Sampling(num_samples=8))
    assert prediction.mean.shape == (5, 3)
    code, out, _ = dubito("models")
    assert "made" in out


def test_learned_rates_are_shown(dubito: Run, write: Callable[..., Path]) -> None:
    code, out, err = dubito("train", write(MLP + QUICK + '[dropout]\nkind = "concrete"\n'))
    assert code == 0, err
    assert "learned p" in out
    assert re.search(r"p 0\.\d+", err)


def test_targets_come_back_in_their_own_units(write: Callable[..., Path], tmp_path: Path) -> None:
    tables = MLP + "heteroscedastic = true\n" + QUICK.replace("3", "60")
    trained = run(read_config(write(tables)), _regression())
    assert trained.bundle.manifest.output == "mean_and_log_variance"
    prediction = Engine.load(tmp_path / "made.dubito").predict(_regression()["inputs"])
    assert abs(prediction.mean.mean() - 100.0) < 8.0
    assert prediction.mean.std() > 8.0


def test_a_search_takes_the_most_likely_rate(dubito: Run, write: Callable[..., Path]) -> None:
    tables = MLP + QUICK + "[search]\ndrop_prob = [0.1, 0.9]\nnum_samples = 8\n"
    path = write(tables.replace("epochs = 3", "epochs = 30"), **_regression())
    code, out, err = dubito("train", path)
    assert code == 0, err
    assert "noise precision" in out
    assert re.search(r"0\.1 .*taken", out)


def test_the_same_configuration_gives_the_same_bundle_and_seeds_nothing(
    write: Callable[..., Path],
) -> None:
    config = read_config(write(MLP + QUICK))
    before = torch.get_rng_state()
    first, second = (run(config, _arrays()).bundle.digest for _ in range(2))
    other = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    assert first == second != run(other, _arrays()).bundle.digest
    assert torch.equal(torch.get_rng_state(), before)


def test_names_and_rows_that_the_file_brings_are_used(write: Callable[..., Path]) -> None:
    arrays = _arrays()
    names = np.array(["ant", "bee", "cat"])[arrays["labels"].astype(int)]
    held_out = {"validation_inputs": arrays["inputs"][:20], "validation_labels": names[:20]}
    trained = run(
        read_config(write(MLP + QUICK)), {"inputs": arrays["inputs"], "labels": names, **held_out}
    )
    assert trained.rows.classes == trained.bundle.manifest.classes == ("ant", "bee", "cat")
    assert trained.rows.validation is not None
    assert (len(trained.rows.inputs), len(trained.rows.validation[0])) == (90, 20)


def test_without_validation_rows_there_is_no_gap(dubito: Run, write: Callable[..., Path]) -> None:
    code, out, _ = dubito("train", write(MLP + QUICK + "validation_share = 0.0\n"))
    assert (code, "the gap to held-out rows is not known" in out) == (0, True)


def test_the_documented_configuration_is_complete_and_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "flowers.toml"
    path.write_text(block.replace("epochs = 100", "epochs = 2"))
    config = read_config(path)
    given = tomllib.loads(block)
    of_tables = {"label", "target", "columns"}
    assert set(given) == set(type(config).model_fields) - of_tables
    assert set(given["training"]) == set(type(config.training).model_fields)
    trained = run(config, _arrays())
    assert trained.search is not None
    assert (tmp_path / "flowers.dubito").exists()


def test_the_documented_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(block, {})
    assert "body.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (MLP + "[training]\nepoch = 3", "training: unknown key `epoch` (did you mean `epochs`?)"),
        (MLP + "[training]\nepoch = 3", "the keys are batch_size, clip_norm"),
        (MLP + "hiden = [3]", "network: unknown key `hiden`"),
        (MLP + "[optimiser]\nname = 'adam'", "unknown key `optimiser`"),
        (MLP + "[dropout]\ndrop_prob = 1.5", "dropout.drop_prob: "),
        (MLP + "[dropout]\ndrop_prob = -0.1", "got -0.1"),
        (MLP + "[search]\ndrop_prob = [0.1, 1.0]", "search.drop_prob"),
        (MLP + "[dropout]\ndrop_prob = '0.2'", "dropout.drop_prob: "),
        (MLP + "[training]\nepochs = '2'", "training.epochs: "),
        (MLP + "[training]\nepochs = true", "training.epochs: "),
        (MLP + "drop_inputs = 1", "network.drop_inputs: "),
        ("classes = ['a', 'a', 'b']\n" + MLP, "classes: expected different names, got a, a, b"),
        (MLP + "[dropout]\ndrop_prob = 0.0", "no dropout"),
        (MLP + QUICK + "patience = 2\nvalidation_share = 0.0", "expect validation rows"),
        (MLP + QUICK + "device = 'cuda'", "training.device"),
        (MLP + QUICK + "device = 'gpu'", "got gpu"),
        (MLP + "heteroscedastic = true", "is for targets"),
        (MLP + "[dropout]\nkind = 'concrete'\n[search]\ndrop_prob = [0.1]", "leave it out"),
        (MLP + QUICK.replace("1e-2", "1e30") + "schedule = 'constant'", "finite loss"),
        ("[network]\nkind = 'perceptron'", "network"),
        ("[network]\nkind = 'cnn'\nimage_shape = [1, 3, 3]", "network.image_shape"),
        ("", "network: "),
        ("network = [", "expected TOML"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_clear_line(
    dubito: Run, write: Callable[..., Path], tmp_path: Path, tables: str, told: str
) -> None:
    if told == "training.device" and torch.cuda.is_available():
        pytest.skip("the device is there")
    code, _, err = dubito("train", write(tables))
    assert code == 1
    assert told in err
    assert err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "made.dubito").exists()


_IMAGES = {
    "inputs": np.random.default_rng(1).normal(size=(40, 16)),
    "labels": np.arange(40) % 2,
}
_TOKENS = {
    "inputs": np.random.default_rng(1).integers(0, 7, (40, 5)),
    "labels": np.arange(40) % 2,
}


@pytest.mark.parametrize(
    ("network", "arrays"),
    [
        ('kind = "selu"\nhidden = [8, 8]', _IMAGES),
        ('kind = "cnn"\nimage_shape = [1, 4, 4]\nchannels = [2, 2]\nhidden = 4', _IMAGES),
        ('kind = "resnet"\nimage_shape = [1, 4, 4]\nchannels = [2, 4]\nblock_size = 2', _IMAGES),
        ('kind = "rnn"\nhidden = 4\ncell = "gru"', _TOKENS),
        ('kind = "transformer"\nnum_features = 8\nnum_heads = 2\nnum_layers = 1', _TOKENS),
    ],
    ids=["selu", "cnn", "resnet", "rnn", "transformer"],
)
def test_every_kind_of_network_leaves_a_bundle(
    write: Callable[..., Path], network: str, arrays: dict[str, NDArray[np.generic]]
) -> None:
    tables = f"[network]\n{network}\n[training]\nepochs = 1\nreestimate_batch_norm = true\n"
    trained = run(read_config(write(tables)), arrays)
    prediction = Engine.load(trained.bundle).predict(arrays["inputs"][:3])
    assert prediction.mean.shape == (3, 2)


@pytest.mark.parametrize(
    ("network", "arrays", "told"),
    [
        ('kind = "rnn"\nnum_words = 3', _TOKENS, "tokens from 0 to 2"),
        ('kind = "rnn"', _IMAGES, "token numbers"),
        ('kind = "resnet"\nimage_shape = [1, 4, 4]', _IMAGES, "smaller block_size"),
        ('kind = "selu"\n[dropout]\nkind = "concrete"', _IMAGES, "learned rates are for"),
        ('kind = "rnn"\n[training]\nmixup = 0.2', _TOKENS, "takes tokens"),
        ('kind = "transformer"', {**_TOKENS, "labels": np.arange(40) % 2 * 1.0}, "real values"),
        ('kind = "cnn"\nimage_shape = [1, 4, 4]', _regression(), "is for labels"),
    ],
)
def test_a_network_that_does_not_fit_the_rows_says_so(
    write: Callable[..., Path], network: str, arrays: dict[str, NDArray[np.generic]], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        run(read_config(write(f"[network]\n{network}\n")), arrays)


def test_names_and_places_are_checked_before_the_training(
    dubito: Run, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write(MLP + QUICK)
    assert "model name" in dubito("train", path, "--register", "Made")[2]
    path.write_text(path.read_text().replace("made.dubito", "no/made.dubito"))
    assert "expected a folder" in dubito("train", path)[2]
    assert "gone.toml" in dubito("train", tmp_path / "gone.toml")[2]


_ROWS = _arrays()["inputs"]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"inputs": _ROWS}, "either labels or targets"),
        ({"inputs": _ROWS, "labels": np.zeros(90, int), "weights": np.ones(90)}, "weights"),
        ({"inputs": _ROWS, "labels": np.zeros(89, int)}, "89 labels"),
        ({"inputs": _ROWS, "labels": np.zeros(90, int)}, "at least two"),
        ({"inputs": _ROWS, "labels": np.full(90, -1)}, "class indices"),
        ({"inputs": _ROWS, "labels": np.zeros(90)}, "real values are targets"),
        ({"inputs": _ROWS, "labels": np.r_[np.zeros(89, int), 10**9]}, "below 100000"),
        ({"inputs": _ROWS, "targets": np.zeros(90)}, "nothing to learn"),
        ({"inputs": _ROWS, "targets": np.full(90, 14.62)}, "nothing to learn"),
        ({"inputs": _ROWS, "targets": np.full(90, np.nan)}, "finite"),
        ({"inputs": _ROWS * np.inf, "targets": np.arange(90.0)}, "finite"),
        ({"inputs": _ROWS[:, 0], "targets": np.arange(90.0)}, "one row per example"),
        ({"inputs": _ROWS, "targets": np.array(["a"] * 90)}, "classes are labels"),
        (
            {"inputs": _ROWS, "targets": np.arange(90.0), "validation_inputs": _ROWS},
            "give both or neither",
        ),
        (
            {
                "inputs": _ROWS,
                "labels": np.arange(90) % 3,
                "validation_inputs": _ROWS[:20, :3],
                "validation_labels": np.zeros(20, int),
            },
            r"validation_inputs: expected rows of shape \(4,\) like inputs, got \(3,\)",
        ),
        (
            {
                "inputs": _ROWS,
                "labels": np.arange(90) % 3,
                "validation_inputs": _ROWS,
                "validation_labels": np.array(["ant"] * 90),
            },
            "text throughout",
        ),
    ],
)
def test_rows_that_cannot_be_used_say_so(arrays: dict[str, NDArray[np.generic]], told: str) -> None:
    with pytest.raises(InputError, match=told), np.errstate(invalid="ignore"):
        split_rows(arrays, classes=None, validation_share=0.2, seed=0)


def test_a_feature_that_never_varies_is_named_with_the_remedy(write: Callable[..., Path]) -> None:
    arrays = _arrays()
    arrays["inputs"][:, 2] = 1.0  # type: ignore[index]
    with pytest.raises(InputError, match="standardise = false"):
        run(read_config(write(MLP + QUICK)), arrays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_trained_on_a_gpu_leaves_a_bundle(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    trained = run(read_config(write(MLP + QUICK + 'device = "cuda"\n')), _arrays())
    assert trained.gap is not None
    assert (tmp_path / "made.dubito").exists()


def _people(path: Path) -> pd.DataFrame:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": [f"p{row}" for row in range(200)],
            "age": random.normal(40, 12, 200).round(1),
            "job": random.choice(["nurse", "clerk"], 200),
            "smokes": random.choice([True, False], 200),
        }
    )
    table["outcome"] = np.where((table["age"] > 40) ^ (table["job"] == "nurse"), "yes", "no")
    table.loc[::9, "age"] = np.nan
    table.to_csv(path / "people.csv", index=False)
    table.to_parquet(path / "people.parquet")
    return table


def test_a_table_leaves_a_bundle_that_predicts_the_table(dubito: Run, tmp_path: Path) -> None:
    table = _people(tmp_path)
    manifests = []
    for kind in ("csv", "parquet"):
        config = tmp_path / f"{kind}.toml"
        config.write_text(
            f'data = "people.{kind}"\nbundle = "{kind}.dubito"\nlabel = ["outcome"]\n'
            'columns = ["age", "job", "smokes"]\nnetwork.kind = "mlp"\n'
            "network.hidden = [16]\ntraining.epochs = 30\ntraining.learning_rate = 0.02"
        )
        code, _, err = dubito("train", config)
        assert code == 0, err
        manifests.append(load_bundle(tmp_path / f"{kind}.dubito").manifest)
    assert manifests[0].preprocess == manifests[1].preprocess
    assert manifests[0].classes == ("no", "yes")
    age, job, smokes = manifests[0].preprocess[0].columns  # type: ignore[index, union-attr]
    np.testing.assert_allclose((age.mean, age.missing), table["age"].mean())
    np.testing.assert_allclose(age.scale, table["age"].std(ddof=0))
    assert (job.values, smokes.missing) == (("clerk", "nurse"), None)
    engine = Engine.load(tmp_path / "csv.dubito", num_samples=16)
    found = engine.predict(table).to_pandas()  # type: ignore[arg-type]
    assert (found["label"] == table["outcome"]).mean() > 0.8
    np.testing.assert_allclose(found["mean_no"] + found["mean_yes"], 1)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("", "expected `label` or `target`"),
        ('label = ["outcome"]\ntarget = ["age"]', "expected `label` or `target`"),
        ('label = ["outcome"]', "column `id` expects .*200 different texts"),
        ('label = ["sick"]', "add `sick`"),
        ('label = ["outcome"]\ncolumns = ["outcome"]', "beside the truths"),
        ('target = ["job"]\ncolumns = ["age"]', "columns of numbers"),
        ('target = ["age"]\ncolumns = ["job"]', "got none in row 0"),
    ],
)
def test_a_table_that_cannot_be_used_says_so(tmp_path: Path, keys: str, reason: str) -> None:
    _people(tmp_path)
    path = tmp_path / "config.toml"
    start = 'data = "people.csv"\nbundle = "made.dubito"'
    path.write_text(f'{start}\n{keys}\nnetwork.kind = "mlp"')
    with pytest.raises(InputError, match=reason):
        read_table(read_config(path))
