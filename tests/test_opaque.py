"""Recurrent layers stay whole in the recording, so that time may have any length."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from dubito.engine import Engine, Sampling
from dubito_nn import Bundle, ExportError, export

LENGTH = {"tokens": {1: "length"}}


class Reader(nn.Module):
    """Tokens, two recurrent layers with dropout between, a head on the last step and the state."""

    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.rnn = kind(8, 6, 2, dropout=0.3, **options)
        sizes = (6, self.rnn.proj_size or 6)[1] * (2 if self.rnn.bidirectional else 1)
        self.head = nn.Linear(sizes, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        if not self.rnn.batch_first:
            embedded = embedded.transpose(0, 1)
        outputs, state = self.rnn(embedded)
        last = outputs[:, -1] if self.rnn.batch_first else outputs[-1]
        state = state[0] if isinstance(state, tuple) else state
        return self.head(last) + state.sum(0)[:, :3]


def exported(network: nn.Module, folder: Path) -> Bundle:
    path, tokens = folder / "network.dubito", torch.randint(20, (4, 7))
    return export(network, tokens, path, task="classification", output="logits", free_dims=LENGTH)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"batch_first": True}),
        (nn.LSTM, {"bidirectional": True}),
        (nn.LSTM, {"proj_size": 4}),
        (nn.GRU, {"batch_first": True, "bidirectional": True}),
        (nn.GRU, {}),
        (nn.RNN, {"batch_first": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
    ],
)
def test_a_recurrent_network_takes_sequences_of_any_length(kind, options, tmp_path):
    torch.manual_seed(0)
    network = Reader(kind, **options)
    bundle = exported(network, tmp_path)
    (site,) = bundle.sites
    assert (site.module_path, site.shape[0], site.drop_prob) == ("rnn", "length", 0.3)
    recurrences = [node for node in bundle.sampling.nodes if node.op.endswith(".input")]
    assert len(recurrences) == 2
    assert all(node.op in {f"aten.{n}.input" for n in KINDS[kind]} for node in recurrences)
    engine = Engine.load(bundle, num_samples=4)
    network.eval()
    for length in (1, 3, 12):
        tokens = torch.randint(20, (3, length))
        with torch.no_grad():
            point = engine.sample(tokens, sampling=Sampling(method="point"))[0]
            torch.testing.assert_close(point, network(tokens), atol=1e-5, rtol=1e-5)
        samples = engine.sample(tokens)
        assert samples.std(0).max() > 0
        alone = torch.cat([engine.sample(tokens[row : row + 1]) for row in range(3)], dim=1)
        torch.testing.assert_close(samples, alone, atol=1e-5, rtol=1e-5)


KINDS = {nn.LSTM: ["lstm"], nn.GRU: ["gru"], nn.RNN: ["rnn_tanh", "rnn_relu"]}


def test_a_packed_sequence_is_refused_since_its_lengths_are_values(tmp_path):
    class Packed(Reader):
        def forward(self, tokens: Tensor) -> Tensor:
            lengths = (tokens > 0).sum(1).clamp_min(1)
            packed = pack_padded_sequence(
                self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
            )
            return self.head(self.rnn(packed)[1][-1])

    with pytest.raises(ExportError, match=r"packs sequences.*last one"):
        exported(Packed(nn.GRU, batch_first=True), tmp_path)
