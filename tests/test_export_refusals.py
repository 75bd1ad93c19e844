"""What cannot be served is refused at export, with the module and the remedy."""

import copy
import random
import re
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito.engine import Engine
from dubito_nn import ExportError, export
from dubito_nn.dropout import DropBlock2d, RecurrentDropoutGRU, TimeTiedDropout, VariationalLSTM

Forward = Callable[[nn.Module, Tensor], object]


class Written(nn.Module):
    """A small network whose forward pass is written in the test."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 3)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("count", torch.zeros(()))
        self._forward = forward

    def forward(self, x: Tensor) -> object:
        return self._forward(self, x)


def layers(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), *middle, nn.Linear(16, 3))


def counted(network: nn.Module, x: Tensor) -> Tensor:
    network.count += 1
    return network.head(network.dropout(x) / network.count)


def of_first_frames(network: nn.Module, x: Tensor) -> Tensor:
    """Two frames a row, each behind a token; rows take the tokens of the first frames of all."""
    frames = x.view(-1, 1, 4)
    tokens = network.dropout(torch.cat([torch.ones_like(frames), frames], dim=1))
    own = tokens[:, 1].reshape(x.shape[0], 8)
    return network.head(own + tokens[: x.shape[0], 0].repeat(1, 2))


class Recurring(nn.Module):
    """Packs what it is given as if each row were one step shorter than the last."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.dropout = nn.LSTM(1, 3, batch_first=True), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((x.shape[0],), 4)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(x[..., None]), lengths, batch_first=True, enforce_sorted=False
        )
        return self.lstm(packed)[1][0][-1]


def longest(network: nn.Module, x: Tensor) -> Tensor:
    hidden = network.dropout(x[:, : int((x > 0).sum(1).max())])
    return network.head(hidden.mean(1, keepdim=True).expand(-1, 8))


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Linear(16, 16), torch.randn(2, 16))


def derivative(network: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.requires_grad_()
        energy = network.dropout(network.inner(x)).square().sum()
        return network.head(torch.autograd.grad(energy, x, create_graph=True)[0])


def batch_wide_drop_block(network: nn.Module, x: Tensor) -> Tensor:
    mask = torch.bernoulli(torch.full_like(x, 0.7))
    return network.head(x * mask * mask.numel() / mask.sum())


def branching(network: nn.Module, x: Tensor) -> Tensor:
    return network.head(network.dropout(x if x.sum() > 0 else -x))


def seeded_inside(network: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return network.head(network.dropout(x))


class Holding(nn.Module):
    """Draws from a generator that it holds."""

    def __init__(self, generator: random.Random | np.random.Generator) -> None:
        super().__init__()
        self.generator, self.dropout, self.head = generator, nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(x)) * (1.0 + self.generator.random())


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "poisson": (
        lambda: Written(lambda n, x: n.head(torch.poisson(x.exp()))),
        r"the network itself.*aten.poisson.default.*draw with",
    ),
    "no randomness": (lambda: layers(nn.ReLU()), r"no random operation.*drop_prob"),
    "dropout with p = 0": (lambda: layers(nn.Dropout(0.0)), r"no random operation.*drop_prob"),
    "p = 1": (lambda: layers(nn.Dropout(1.0)), r"module `1` drops with probability 1.*take"),
    "p = 1 of whole channels": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.Dropout1d(1.0), nn.Flatten()),
        r"module `1` drops with probability 1.*take",
    ),
    "a site without effect": (
        lambda: Written(lambda n, x: n.head(x + 0 * n.dropout(x))),
        r"module `dropout`.*do not change the output.*take the layer out",
    ),
    "something else for many rows": (
        lambda: Written(lambda n, x: n.head(n.dropout(x) * (2 if x.shape[0] >= 64 else 1))),
        r"asks how many rows there are.*for 64 of them.*recorded for 2 to 63: compute every row",
    ),
    "a loop over the rows": (
        lambda: Written(lambda n, x: n.head(torch.stack([n.dropout(row) for row in x]))),
        r"does not work for every number of rows.*a Python loop over the rows.*x.shape\[0\]",
    ),
    "packed sequences": (
        lambda: Recurring(),
        r"module `\(the network itself\)` packs sequences.*take each row's last one",
    ),
    "a cut to the longest": (
        lambda: Written(longest),
        r"data-dependent.*cut to lengths.max\(\).*mask over the whole length",
    ),
    "a scripted part": (
        lambda: layers(nn.Dropout(0.5), traced()),
        r"module `\d` is a TorchScript module.*export with the nn.Module",
    ),
    "a derivative": (lambda: Written(derivative), r"takes a derivative.*write the derivative out"),
    "no site that anybody reads": (
        lambda: Written(lambda n, x: (n.dropout(x), n.head(x))[1]),
        r"no random operation that reaches its output.*serve the output",
    ),
    "the mean over rows": (
        lambda: Written(lambda n, x: n.head(n.dropout(n.inner(x) - x.mean(0)))),
        r"rows interact.*module `\(the network itself\)`.*per row",
    ),
    "a maximum that the example does not reach": (
        lambda: Written(lambda n, x: n.head(n.dropout(x + (x.amax(0) - 1000).relu()))),
        r"rows interact.*per row",
    ),
    "a mean that rounding hides": (
        lambda: Written(lambda n, x: n.head(n.dropout(x + 1e-7 * x.mean(0)))),
        r"rows interact.*per row",
    ),
    "softmax over rows": (
        lambda: layers(nn.Dropout(0.5), nn.Softmax(dim=0)),
        r"rows interact.*module `2`.*per row",
    ),
    "sorted rows": (
        lambda: Written(lambda n, x: n.head(n.dropout(x))[x[:, 0].argsort()]),
        r"rows interact.*per row",
    ),
    "the maximum of the batch": (
        lambda: Written(lambda n, x: n.head(n.dropout(x / x.abs().max()))),
        r"rows interact.*per row",
    ),
    "a batch-wide count": (lambda: Written(batch_wide_drop_block), r"rows interact.*per row"),
    "a branch on values": (lambda: Written(branching), r"data-dependent.*torch.where or a mask"),
    "an item": (
        lambda: Written(lambda n, x: n.head(n.dropout(x)) * (2 if x[0, 0].item() > 0 else 1)),
        r"data-dependent.*torch.where or a mask",
    ),
    "boolean indexing": (
        lambda: Written(lambda n, x: n.head(n.dropout(x[x[:, 0] > 0]))),
        r"the network itself.*data-dependent.*torch.where or a mask",
    ),
    "a generator of Python": (lambda: Holding(random.Random(0)), r"Python's `random`.*torch.rand"),
    "a generator of NumPy": (
        lambda: Holding(np.random.default_rng(0)),
        r"draws from Python's `random` or NumPy.*torch.rand",
    ),
    "a seed set in the forward pass": (
        lambda: Written(seeded_inside),
        r"seeds torch's random numbers in the forward pass.*outside forward",
    ),
    "batch-norm without running statistics": (
        lambda: layers(nn.BatchNorm1d(16, track_running_stats=False), nn.Dropout(0.5)),
        r"module `1`.*statistics of the batch.*nn.LayerNorm",
    ),
    "functional batch-norm in training": (
        lambda: Written(
            lambda n, x: n.head(n.dropout(functional.batch_norm(x, None, None, training=True)))
        ),
        r"module `\(the network itself\)`.*statistics of the batch.*nn.LayerNorm",
    ),
    "unwritten memory": (
        lambda: Written(lambda n, x: n.head(n.dropout(x)) + x.new_empty(3)),
        r"returns NaN",
    ),
    "a buffer written": (lambda: Written(counted), r"writes to its buffer `count`.*outside"),
    "a fixed batch size": (
        lambda: Written(lambda n, x: n.head(n.dropout(x).view(4, -1))),
        r"module `head`.*every number of rows.*x.shape\[0\]",
    ),
    "a size of four rows": (
        lambda: Written(lambda n, x: n.head(n.dropout(x)) + torch.ones(4, 1)),
        r"every number of rows.*x.shape\[0\]",
    ),
    "several outputs": (
        lambda: Written(lambda n, x: {"scores": n.head(n.dropout(x)), "hidden": x}),
        r"the outputs \['hidden', 'scores'\].*output_name",
    ),
    "three axes": (
        lambda: Written(lambda n, x: n.head(n.dropout(x)).unsqueeze(1)),
        r"expects the shape \(rows, C\), got \(5, 1, 3\)",
    ),
    "one column of logits": (lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 1)), r"sigmoid"),
    "probabilities declared logits": (
        lambda: layers(nn.Dropout(0.5)).append(nn.Softmax(1)),
        r"output='probs'",
    ),
    "NaN": (lambda: Written(lambda n, x: n.head(n.dropout(x)).sqrt()), r"NaN or infinity.*rows"),
    "a constant": (lambda: Written(lambda n, x: torch.ones(2, 3)), r"no random operation"),
    "no tensor": (lambda: Written(lambda n, x: "nothing"), r"returns a str.*output_name"),
    "singular values": (
        lambda: Written(
            lambda n, x: n.head(n.dropout(x)) + torch.linalg.svdvals(x.view(-1, 2, 4))[:, :1]
        ),
        r"operator `aten.linalg_svdvals.default`.*plain torch operators",
    ),
    "tokens of other rows' frames": (
        lambda: Written(of_first_frames),
        r"module `dropout` draws numbers that several rows share.*switch that module off",
    ),
    "an error of its own": (
        lambda: Written(lambda n, x: n.head(x[:, :3])),
        r"module `head` fails on the example.*give example_inputs as the network takes them",
    ),
}


def refusal(network: nn.Module, folder: Path, example: object = None, **changes: object) -> str:
    """The message of the refusal; nothing may have been written."""
    declared = {"task": "classification", "output": "logits"} | changes
    path = folder / "network.dubito"
    with pytest.raises(ExportError) as raised:
        export(network, torch.randn(4, 8) if example is None else example, path, **declared)
    assert list(folder.iterdir()) == []
    return str(raised.value)


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_that_cannot_be_served_is_refused_with_a_remedy(name, tmp_path):
    torch.manual_seed(0)
    build, expected = REFUSED[name]
    network = build()
    channels = isinstance(network, nn.Sequential) and isinstance(network[0], nn.Conv1d)
    example = torch.randn(4, 2, 8) if channels else torch.randn(4, 8)
    assert re.search(expected, refusal(network, tmp_path, example))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": "ranking"}, r"expects a task and one of its outputs"),
        ({"output": "mean"}, r"expects a task and one of its outputs"),
        ({"classes": ["a", "b"]}, r"classes expects 3 different names.*got \['a', 'b'\]"),
        ({"classes": ["a", "b", "b"]}, r"classes expects 3 different names"),
        ({"task": "regression", "output": "mean", "classes": ["a"]}, r"leave them out"),
        ({"output": "probs"}, r"probabilities that sum to 1.*output='logits'"),
        ({"output": "log_probs"}, r"probabilities that sum to 1.*output='logits'"),
        ({"output": "sigmoid_logits"}, r"one number per row, got 3.*output='logits'"),
        (
            {"task": "regression", "output": "mean_and_log_variance"},
            r"a pair of \(rows, D\) tensors or one \(rows, 2 D\).*one log-variance for each mean",
        ),
        ({"target_scale": (0.0, 1.0)}, r"target_scale is for regression"),
        *(
            (
                {"task": "regression", "output": "mean", "target_scale": scale},
                r"target_scale expects \(mean, standard deviation\).*training targets",
            )
            for scale in [
                (0.0, 0.0),
                (0.0, -1.0),
                ([1.0, 2.0], 1.0),
                3.0,
                (0.0, float("nan")),
                "ab",
            ]
        ),
        ({"features": "nowhere"}, r"features names `nowhere`.*choose one of \['0', '1', '2'\]"),
        ({"output_name": "scores"}, r"output_name names `scores`.*leave output_name out"),
        ({"free_dims": [1]}, r"input name → axis → name, got \[1\]"),
        ({"free_dims": {"input": [1]}}, r"input name → axis → name"),
        ({"free_dims": {"elsewhere": {1: "time"}}}, r"`elsewhere`: choose among the inputs"),
        ({"free_dims": {"input": {0: "time"}}}, r"axis numbers from 1 to 1.*always free"),
        ({"free_dims": {"input": {1: "batch"}}}, r"plain names other than `batch`"),
        ({"free_dims": {"input": {1: "width"}}}, r"free_dims"),
        ({"drop_prob": {"layer*": 0.2}}, r"`layer\*`, which matches no module: choose among"),
        ({"drop_prob": {"0": 1.5}}, r"drop_prob of `0` expects a probability in \(0, 1\), got 1.5"),
        ({"drop_prob": {"0": "half"}}, r"drop_prob of `0` expects a probability in \(0, 1\)"),
        ({"example": torch.randn(())}, r"at least one row, rows first"),
        ({"example": ()}, r"example_inputs is empty: give one batch"),
        ({"example": torch.randn(0, 8)}, r"at least one row"),
        ({"example": [[1.0] * 8]}, r"expects a tensor with at least one row"),
        ({"example": 3}, r"got int: convert it with torch.as_tensor"),
        ({"example": torch.zeros(3, 8, dtype=torch.long)}, r"rows that differ.*two real rows"),
        ({"example": torch.randn(4, 9)}, r"module `0` fails on the example"),
        ({"example": (torch.randn(4, 8), torch.randn(3, 8))}, r"equally many rows.*\[3, 4\]"),
        ({"notes": "x" * 20_000}, r"notes: expects a text of at most"),
    ],
)
def test_a_wrong_declaration_is_refused_with_a_remedy(changes, expected, tmp_path):
    torch.manual_seed(0)
    assert re.search(expected, refusal(layers(nn.Dropout(0.5)), tmp_path, **changes))


def test_what_is_no_module_or_cannot_be_traced_again_is_refused(tmp_path):
    assert "expects a torch.nn.Module, got function" in refusal(counted, tmp_path)
    locked = layers(nn.Dropout(0.5))
    locked.lock = threading.Lock()
    assert re.search(r"cannot be copied.*plain values", refusal(locked, tmp_path))


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ExportError, match="cannot write"):
        export(
            layers(nn.Dropout(0.5)),
            torch.randn(2, 8),
            tmp_path / "nowhere" / "network.dubito",
            task="classification",
            output="logits",
        )


def test_export_leaves_the_module_and_every_generator_as_they_were(tmp_path):
    network = layers(nn.BatchNorm1d(16), nn.Dropout(0.5)).requires_grad_(False)
    network.train()
    network[1].eval()
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    state, python_state = torch.get_rng_state(), random.getstate()
    path = tmp_path / "network.dubito"
    export(
        network,
        torch.randn(2, 8, generator=torch.Generator()),
        path,
        task="classification",
        output="logits",
        features="1",
        drop_prob={"0": 0.1},
    )
    assert [module.training for module in network.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )
    assert torch.equal(state, torch.get_rng_state())
    assert python_state == random.getstate()
    assert torch.is_grad_enabled()


def test_exporting_twice_gives_the_same_bytes_whatever_the_callers_mode(tmp_path):
    torch.manual_seed(0)
    network, x = layers(nn.Dropout(0.5), nn.AlphaDropout(0.2)), torch.randn(2, 8)
    declared = {"task": "classification", "output": "logits"}
    first = export(network, x, tmp_path / "one.dubito", **declared)
    torch.manual_seed(1)
    with torch.inference_mode():
        second = export(network.eval(), x, tmp_path / "two.dubito", **declared)
    assert first.digest == second.digest
    assert (tmp_path / "one.dubito").read_bytes() == (tmp_path / "two.dubito").read_bytes()


def test_a_tied_weight_is_stored_once(tmp_path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(functional.dropout(self.embedding(ids).mean(1), 0.2, self.training))

    bundle = export(
        Tied(),
        torch.arange(14).reshape(2, 7),
        tmp_path / "network.dubito",
        task="classification",
        output="logits",
    )
    assert [tuple(weight.shape) for weight in bundle.weights.values()] == [(50, 8)]
    assert (bundle.manifest.inputs[0].low, bundle.manifest.inputs[0].high) == (0, 13)


class Steps(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize(
    "layer", [VariationalLSTM(4, 5, 0.3), RecurrentDropoutGRU(4, 5, 0.3)], ids=["lstm", "gru"]
)
def test_unrolled_layers_have_one_length_and_say_so(tmp_path, layer):
    network, path = Steps(layer), tmp_path / "network.dubito"
    declared = {"task": "classification", "output": "logits"}
    with pytest.raises(ExportError, match=r"one of them.*one bundle per length.*TimeTiedDropout"):
        export(network, torch.randn(3, 6, 4), path, **declared, free_dims={"x": {1: "time"}})
    assert export(network, torch.randn(3, 6, 4), path, **declared).sites


def test_lstm_with_time_tied_dropout_around_it_takes_any_length(tmp_path):
    network = nn.Sequential(TimeTiedDropout(0.3), Steps(nn.LSTM(4, 5, batch_first=True)))
    bundle = export(
        network,
        torch.randn(3, 6, 4),
        tmp_path / "network.dubito",
        task="classification",
        output="logits",
        free_dims={"input": {1: "time"}},
    )
    assert Engine.load(bundle).sample(torch.randn(2, 9, 4)).shape == (64, 2, 3)


def test_the_map_that_dropblock_drops_from_has_one_size(tmp_path):
    pool = nn.AdaptiveAvgPool2d(1)
    network = nn.Sequential(DropBlock2d(0.1, 2), pool, nn.Flatten(), nn.Linear(2, 3))
    with pytest.raises(ExportError, match=r"DropBlock.*one bundle per size"):
        export(
            network,
            torch.randn(3, 2, 6, 6),
            tmp_path / "network.dubito",
            task="classification",
            output="logits",
            free_dims={"input": {2: "height"}},
        )


@pytest.mark.parametrize("path", ["", None, 3])
def test_a_path_that_names_no_file_is_refused(path):
    with pytest.raises(ExportError, match="path expects the name of a file"):
        export(
            layers(nn.Dropout()), torch.randn(2, 8), path, task="classification", output="logits"
        )


@pytest.mark.parametrize("classes", ["abc", [1, 2, 3], ["a", "", "c"]])
def test_class_names_that_are_no_list_of_texts_are_refused(classes: object, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    with pytest.raises(ExportError, match="classes expects a list of names"):
        export(
            network,
            torch.randn(4, 4),
            tmp_path / "network.dubito",
            task="classification",
            output="logits",
            classes=classes,  # type: ignore[arg-type]
        )
