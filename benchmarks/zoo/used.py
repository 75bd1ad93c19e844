"""Networks that are built of a package's layers, as its tutorial builds them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from benchmarks.zoo.cases import Build, Case
from torch import Tensor, nn

C, ROWS = 3, 5
_GRAPH = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])


def _features(network: nn.Module, **terms: Any) -> Case:
    return Case(network, (torch.randn(ROWS, 8),), terms)


class Spiking(nn.Module):
    """Leaky neurons over a few steps, whose state each pass begins anew."""

    def __init__(self, neuron: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner, self.head, self.dropout = nn.Linear(8, 8), nn.Linear(8, C), nn.Dropout(0.2)
        self.first, self.second = neuron(), neuron()

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.first.init_leaky(), self.second.init_leaky()
        spikes = []
        for _ in range(3):
            spike, first = self.first(self.inner(x), first)
            spike, second = self.second(self.head(self.dropout(spike)), second)
            spikes.append(second)
        return torch.stack(spikes).mean(0)


def _snntorch() -> Case:
    snn = import_module("snntorch")
    return _features(Spiking(lambda: snn.Leaky(beta=0.9)))


class Reset(nn.Module):
    """Layers of spikingjelly, reset at the beginning of each pass."""

    def __init__(self) -> None:
        super().__init__()
        based = "spikingjelly.activation_based"
        self.layers = nn.Sequential(
            nn.Linear(8, 8),
            import_module(f"{based}.neuron").LIFNode(),
            import_module(f"{based}.layer").Dropout(0.2),
            nn.Linear(8, C),
        )

    def forward(self, x: Tensor) -> Tensor:
        import_module("spikingjelly.activation_based.functional").reset_net(self)
        return torch.stack([self.layers(x) for _ in range(3)]).mean(0)


class OnGraph(nn.Module):
    """A network of a fixed graph with five nodes."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        models = import_module("torch_geometric.nn.models")
        self.network = getattr(models, kind)(4, 8, 2, C, dropout=0.2)
        self.register_buffer("graph", _GRAPH)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, self.graph).mean(1)


def _on_graph(kind: str) -> Case:
    return Case(OnGraph(kind), (torch.randn(ROWS, 5, 4),))


class First(nn.Module):
    """The first of several outputs of layers, one behind the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            made = layer(x)
            x = made[0] if isinstance(made, tuple) else made
        return x


def _bayesian_torch(name: str) -> Case:
    layers = import_module("bayesian_torch.layers")
    kind = getattr(layers, f"Linear{name}")
    return _features(First(kind(8, 8), nn.ReLU(), kind(8, C)))


def _torchbnn() -> Case:
    bnn = import_module("torchbnn")
    first, last = (
        bnn.BayesLinear(prior_mu=0, prior_sigma=0.1, in_features=8, out_features=n) for n in (8, C)
    )
    return _features(nn.Sequential(first, nn.ReLU(), last))


def _blitz(name: str) -> Case:
    modules = import_module("blitz.modules")
    if name == "BayesianLinear":
        return _features(nn.Sequential(modules.BayesianLinear(8, 8), nn.ReLU(), nn.Linear(8, C)))
    if name == "BayesianConv2d":
        network = nn.Sequential(
            modules.BayesianConv2d(3, 4, (3, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, C)
        )
        return Case(network, (torch.randn(ROWS, 3, 8, 8),))
    return Case(First(modules.BayesianLSTM(4, C), Last()), (torch.randn(ROWS, 6, 4),))


class Last(nn.Module):
    """The last step of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


def _tabnet() -> Case:
    tab = import_module("pytorch_tabnet.tab_network")
    inner = tab.TabNet(8, C, n_d=4, n_a=4, n_steps=2, group_attention_matrix=torch.eye(8))
    return _features(nn.Sequential(nn.Dropout(0.2), inner), output_name=0)


def _tabm(kind: str) -> Case:
    tabm = import_module("tabm")
    network = tabm.TabM.make(
        n_num_features=8, d_out=C, k=4, n_blocks=2, d_block=8, dropout=0.1, arch_type=kind
    )
    return _features(network, class_axis=-1)


def _embedded(kind: str) -> Case:
    rtdl = import_module("rtdl_num_embeddings")
    made = {
        "PeriodicEmbeddings": lambda: rtdl.PeriodicEmbeddings(8, 4, lite=False),
        "LinearReLUEmbeddings": lambda: rtdl.LinearReLUEmbeddings(8, 4),
        "PiecewiseLinearEmbeddings": lambda: rtdl.PiecewiseLinearEmbeddings(
            [torch.linspace(-2, 2, 5) for _ in range(8)], 4, activation=False, version="B"
        ),
    }[kind]()
    head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, C))
    return _features(nn.Sequential(made, *head))


def _x_transformer(kind: str) -> Case:
    x = import_module("x_transformers")
    depth: dict[str, Any] = {
        **{"dim": 16, "depth": 2, "heads": 2, "attn_dim_head": 8},
        **{"attn_dropout": 0.1, "ff_dropout": 0.1, "layer_dropout": 0.1},
    }
    layers = (x.Decoder if kind == "Decoder" else x.Encoder)(**depth)
    if kind == "ViTransformerWrapper":
        network = x.ViTransformerWrapper(
            image_size=32, patch_size=8, num_classes=C, attn_layers=layers
        )
        return Case(network, (torch.randn(ROWS, 3, 32, 32),))
    network = x.TransformerWrapper(num_tokens=40, max_seq_len=16, attn_layers=layers)
    return Case(network, (torch.randint(0, 40, (ROWS, 12)),), {"class_axis": -1})


def _wired(kind: str) -> Case:
    ncps = import_module("ncps.torch")
    network = nn.Sequential(nn.Dropout(0.2), getattr(ncps, kind)(4, 6), Picked(), Last())
    return Case(nn.Sequential(network, nn.Linear(6, C)), (torch.randn(ROWS, 5, 4),))


class Picked(nn.Module):
    """The first of a pair."""

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        return x[0]


class Solved(nn.Module):
    """An ordinary differential equation, solved with steps of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.head = nn.Linear(8, 8), nn.Linear(8, C)
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("times", torch.linspace(0, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        solve = import_module("torchdiffeq").odeint
        path = solve(lambda t, y: self.rate(y).tanh(), x, self.times, method="rk4")
        return self.head(self.dropout(path[-1]))


def _behind_dropout(path: str, *args: Any, **kwargs: Any) -> Case:
    module, _, kind = path.rpartition(".")
    network = getattr(import_module(module), kind)(*args, **kwargs)
    return _features(nn.Sequential(nn.Dropout(0.2), network))


def _mamba() -> Case:
    mamba = import_module("mambapy.mamba")
    inner = mamba.Mamba(mamba.MambaConfig(d_model=8, n_layers=1, d_state=4))
    network = nn.Sequential(nn.Dropout(0.2), inner, Last(), nn.Linear(8, C))
    return Case(network, (torch.randn(ROWS, 6, 8),))


def _efficient() -> Case:
    kind = import_module("efficientnet_pytorch").EfficientNet
    network = kind.from_name("efficientnet-b0", num_classes=C, image_size=32)
    return Case(network, (torch.randn(ROWS, 3, 32, 32),))


def _egnn() -> Case:
    network = import_module("egnn_pytorch").EGNN(dim=4, dropout=0.1)
    return Case(
        network,
        {"feats": torch.randn(ROWS, 5, 4), "coors": torch.randn(ROWS, 5, 3)},
        {"task": "regression", "output": "mean", "output_name": 0, "output_axis": -1},
    )


NETWORKS: dict[str, Build] = {
    "snntorch:Leaky": _snntorch,
    "spikingjelly:LIFNode": lambda: _features(Reset()),
    **{f"torch_geometric:{kind}": lambda kind=kind: _on_graph(kind)  # type: ignore[misc]
       for kind in ("GCN", "GraphSAGE", "GIN")},
    **{f"bayesian_torch:Linear{name}": lambda name=name: _bayesian_torch(name)  # type: ignore[misc]
       for name in ("Reparameterization", "Flipout")},
    "torchbnn:BayesLinear": _torchbnn,
    **{f"blitz:{name}": lambda name=name: _blitz(name)  # type: ignore[misc]
       for name in ("BayesianLinear", "BayesianConv2d", "BayesianLSTM")},
    "pytorch_tabnet:TabNet": _tabnet,
    **{f"tabm:{kind}": lambda kind=kind: _tabm(kind)  # type: ignore[misc]
       for kind in ("tabm", "tabm-mini", "tabm-packed")},
    **{f"rtdl_num_embeddings:{kind}": lambda kind=kind: _embedded(kind)  # type: ignore[misc]
       for kind in ("PeriodicEmbeddings", "LinearReLUEmbeddings", "PiecewiseLinearEmbeddings")},
    **{f"x_transformers:{kind}": lambda kind=kind: _x_transformer(kind)  # type: ignore[misc]
       for kind in ("Encoder", "Decoder", "ViTransformerWrapper")},
    **{f"ncps:{kind}": lambda kind=kind: _wired(kind)  # type: ignore[misc]
       for kind in ("CfC", "LTC")},
    "torchdiffeq:odeint": lambda: _features(Solved()),
    "mambapy:Mamba": _mamba,
    "efficientnet_pytorch:EfficientNet": _efficient,
    "egnn_pytorch:EGNN": _egnn,
}  # fmt: skip
