"""The convolutional network of the Fashion-MNIST evidence, trained, exported and kept as a bundle.

    image -> conv relu pool -> conv relu pool -> drop channels, conv relu pool
          -> drop units, linear relu (the features) -> drop units, head -> logits

The first draw comes after half of the arithmetic, which T passes then share.

Half of the garments of each minibatch are mirrored; digits, where it learns those, are not. The
last rows of the training part are held out: the network is not trained on them, and everything that
is chosen or fitted uses them alone.

Dimensions: B rows.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from data import Digits
from record import training_bar
from torch import Tensor, nn

from dubito_nn import Bundle, export, load_bundle
from dubito_nn.training import cross_entropy, seeded, train

SIDE = 28
Learns = Literal["garments", "digits"]
CLASSES: dict[Learns, tuple[str, ...]] = {
    "garments": (
        *("T-shirt", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "digits": tuple("0123456789"),
}


@dataclass(frozen=True)
class Training:
    """How the network is trained."""

    channels: tuple[int, int, int] = (16, 32, 64)
    num_features: int = 128
    channel_drop_prob: float = 0.2
    input_drop_prob: float = 0.3
    feature_drop_prob: float = 0.5
    held_out: int = 10_000
    epochs: int = 18
    batch_size: int = 128
    learning_rate: float = 2e-3
    seed: int = 0


class Garments(nn.Module):
    """(B, 784) -> (B, 10)."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        first, second, third = training.channels
        self.convolutions = nn.Sequential(
            nn.Unflatten(1, (1, SIDE, SIDE)),
            *_convolution(1, first),
            *_convolution(first, second),
            nn.Dropout2d(training.channel_drop_prob),
            *_convolution(second, third),
            nn.Flatten(),
        )
        inputs = third * (SIDE // 8) ** 2
        self.drop_inputs = nn.Dropout(training.input_drop_prob)
        self.features = nn.Sequential(nn.Linear(inputs, training.num_features), nn.ReLU())
        self.drop_features = nn.Dropout(training.feature_drop_prob)
        self.head = nn.Linear(training.num_features, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        features = self.features(self.drop_inputs(self.convolutions(x)))
        logits: Tensor = self.head(self.drop_features(features))
        return logits


def bundle_of(
    digits: Digits,
    training: Training,
    kept: Path | None,
    device: str = "cpu",
    learns: Learns = "garments",
) -> tuple[Bundle, bool]:
    """Return the network as a bundle, and whether it had to be trained first.

    Args:
        digits: Fashion-MNIST, or MNIST.
        training: How the network is trained; kept as the notes of the bundle.
        kept: Folder in which the bundle of an earlier run lies, or will lie; None keeps none.
        device: To train on.
        learns: What the images show.

    Raises:
        ValueError: The one that lies there was trained otherwise.
    """
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            return bundle_of(digits, training, Path(folder), device, learns)
    path, notes = kept / f"{learns}.dubito", json.dumps(asdict(training))
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        return _trained(digits, training, path, notes, device, learns), True
    found = load_bundle(path)
    if found.manifest.notes != notes:
        raise ValueError(
            f"expected a network trained with {notes} in {path}, got {found.manifest.notes}: "
            "name another folder"
        )
    return found, False


def _trained(
    digits: Digits, training: Training, path: Path, notes: str, device: str, learns: Learns
) -> Bundle:
    with seeded(training.seed):
        network = Garments(training)
    inputs, labels = digits.images[: -training.held_out], digits.labels[: -training.held_out]
    held_out = digits.images[-training.held_out :], digits.labels[-training.held_out :]
    with training_bar("training") as show:
        train(
            network,
            inputs,
            labels,
            loss=cross_entropy,
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
            augment=mirrored if learns == "garments" else None,
            validation=held_out,
            seed=training.seed,
            device=device,
            progress=show,
        )
    return export(
        network.cpu(),
        inputs[:4],
        path,
        task="classification",
        output="logits",
        classes=CLASSES[learns],
        features="features",
        notes=notes,
    )


def mirrored(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror each image with probability 1/2."""
    is_mirrored = torch.rand(len(x), 1) < 0.5
    turned = x.view(-1, SIDE, SIDE).flip(2).reshape(len(x), -1)
    return torch.where(is_mirrored, turned, x), y


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
