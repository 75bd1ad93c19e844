"""The usual way to serve Monte Carlo dropout with LitServe: T passes in a loop, of a batch.

    python benchmarks/lit_server.py PORT MOST_ROWS_OF_A_BATCH

One worker with one thread, as Dubito's server has; the figures are those that its reply states.
"""

from __future__ import annotations

import sys
from pathlib import Path

import litserve
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from benchmarks.networks import perceptron  # noqa: E402

SAMPLES = 50


class Perceptron(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.network = perceptron().train()

    def decode_request(self, request: dict[str, list[list[float]]]) -> Tensor:
        return torch.tensor(request["inputs"][0])

    def batch(self, inputs: list[Tensor]) -> Tensor:
        return torch.stack(inputs)

    @torch.inference_mode()
    def predict(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, x.shape[-1])
        p = torch.stack([self.network(x).softmax(-1) for _ in range(SAMPLES)])
        mean = p.mean(0)
        entropy, expected = _entropy(mean), _entropy(p).mean(0)
        figures = [p.var(0).sum(-1), entropy, expected, entropy - expected]
        return torch.cat([mean, torch.stack(figures, 1)], 1)

    def unbatch(self, output: Tensor) -> list[Tensor]:
        return list(output)

    def encode_response(self, output: Tensor) -> dict[str, object]:
        *mean, variance, entropy, expected, information = output.reshape(-1).tolist()
        return {
            "mean": mean,
            "variance": variance,
            "predictive_entropy": entropy,
            "expected_entropy": expected,
            "mutual_information": information,
        }


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p).sum(-1)


if __name__ == "__main__":
    port, rows = map(int, sys.argv[1:])
    api = Perceptron(max_batch_size=rows, batch_timeout=0.005 if rows > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=600)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error")
