"""A configured training, whole: rows, network, loop, gap, bundle.

read rows -> build -> [search p] -> train -> [batch-norm] -> gap and advice -> export
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

import dubito_nn
from dubito.errors import InputError
from dubito.recipes.build import build_network, output_of
from dubito.recipes.config import ConcreteTable, TokenTable, TrainConfig
from dubito.recipes.rows import Arrays, TrainingRows, split_rows
from dubito_nn import Bundle
from dubito_nn.preprocess import TableInput
from dubito_nn.training import (
    Advice,
    Augmentation,
    DropProbSearch,
    Gap,
    Loss,
    Progress,
    TrainingResult,
    advise,
    cross_entropy,
    gaussian_nll,
    has_dropout,
    measure_gap,
    mixup,
    reestimate_batch_norm,
    search_drop_prob,
    seeded,
    smoothed_cross_entropy,
    squared_error,
    train,
)

_NUM_EXAMPLES = 8

# Called after each epoch, with the p that is being tried, if any.
OnEpoch = Callable[[Progress, float | None], None]


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network, its bundle, and how the training went.

    Attributes:
        network: In eval mode, on the CPU.
        rows: What it was trained on.
        result: How the training went.
        search: The trials, where p was searched for.
        gap: Training against validation rows; None without validation rows.
        advice: What follows from the gap.
        bundle: As written.
    """

    network: nn.Module
    rows: TrainingRows
    result: TrainingResult
    search: DropProbSearch | None
    gap: Gap | None
    advice: Advice | None
    bundle: Bundle


def run(
    config: TrainConfig,
    arrays: Arrays,
    on_epoch: OnEpoch | None = None,
    declared: TableInput | None = None,
) -> Trained:
    """Train a network by its configuration and write its bundle.

    Args:
        config: As read.
        arrays: Of the file of rows.
        on_epoch: Called after each epoch; what it raises ends the training.
        declared: The table that the inputs were made of, which the bundle keeps; it has scaled
            them, so the network does not.

    Raises:
        InputError: rows and configuration do not fit, the network has no dropout, the loss is not
            finite, or the bundle cannot be written.
    """
    table = config.training
    if declared is not None and hasattr(config.network, "standardise"):
        network_table = config.network.model_copy(update={"standardise": False})
        config = config.model_copy(update={"network": network_table})
    if not config.bundle.parent.is_dir():
        raise InputError(f"bundle: expected a folder {config.bundle.parent}, got none: make it")
    rows = split_rows(
        arrays,
        classes=config.classes,
        labels_are=config.labels_are,
        validation_share=table.validation_share,
        seed=table.seed,
        tokens=isinstance(config.network, TokenTable),
    )
    try:
        _check(config, rows)
        search, network, result = _trained(config, rows, on_epoch)
        if table.reestimate_batch_norm:
            reestimate_batch_norm(network, rows.inputs)
        gap = None
        if rows.validation is not None:
            loss = _plain_loss(config, rows)
            gap = measure_gap(
                network, (rows.inputs, rows.targets), rows.validation, loss, seed=table.seed
            )
        bundle = _export(config, rows, network.cpu(), declared)
    except (ValueError, FloatingPointError) as error:  # ExportError is a ValueError
        raise InputError(str(error)) from error
    advice = None if gap is None else advise(gap)
    return Trained(network, rows, result, search, gap, advice, bundle)


def _check(config: TrainConfig, rows: TrainingRows) -> None:
    """Refuse before the training what would be refused after it."""
    table = config.training
    if rows.validation is None and (table.patience is not None or config.search is not None):
        raise InputError(
            "training.patience and search expect validation rows, got none: set "
            "training.validation_share, or put validation_inputs into the file"
        )
    if config.search is not None and isinstance(config.dropout, ConcreteTable):
        raise InputError("search is for fixed rates, concrete dropout learns its own: leave it out")
    if table.label_smoothing > 0.0 and rows.task == "regression":
        raise InputError("training.label_smoothing is for labels, the file has targets")
    if table.mixup is not None and isinstance(config.network, TokenTable):
        raise InputError(
            "training.mixup is for real inputs, the network takes tokens: leave it out"
        )
    _check_device(table.device)
    rate = config.search.drop_prob[0] if config.search is not None else None
    with seeded(table.seed):
        network = build_network(config, rows, rate)
    if not has_dropout(network, rows.inputs[:32]):
        raise InputError(
            "the network has no dropout, so all its samples would be equal: set dropout.drop_prob "
            "above 0"
        )


def _check_device(device: str) -> None:
    try:
        is_there = torch.device(device).type != "cuda" or torch.cuda.is_available()
    except RuntimeError:
        is_there = False
    if not is_there:
        raise InputError(
            f"training.device: expected a device of this machine, got {device}: take cpu"
        )


def _trained(
    config: TrainConfig, rows: TrainingRows, on_epoch: OnEpoch | None
) -> tuple[DropProbSearch | None, nn.Module, TrainingResult]:
    seed, search = config.training.seed, config.search
    if search is None or rows.validation is None:
        with seeded(seed):
            network = build_network(config, rows, None)
        return None, network, _fit(config, rows, network, None, on_epoch)
    results: list[TrainingResult] = []
    rates = iter(search.drop_prob)

    def fit(network: nn.Module) -> None:
        results.append(_fit(config, rows, network, next(rates), on_epoch))

    searched = search_drop_prob(
        partial(build_network, config, rows),
        fit,
        search.drop_prob,
        rows.validation,
        head=output_of(config, rows),  # type: ignore[arg-type]
        num_samples=search.num_samples,
        seed=seed,
    )
    return searched, searched.network, results[searched.trials.index(searched.best)]


def _fit(
    config: TrainConfig,
    rows: TrainingRows,
    network: nn.Module,
    rate: float | None,
    on_epoch: OnEpoch | None,
) -> TrainingResult:
    table = config.training
    return train(
        network,
        rows.inputs,
        rows.targets,
        loss=_loss(config, rows),
        epochs=table.epochs,
        batch_size=table.batch_size,
        learning_rate=table.learning_rate,
        schedule=table.schedule,
        weight_decay=table.weight_decay,
        l1=table.l1,
        max_norm=table.max_norm,
        clip_norm=table.clip_norm,
        augment=_augmentation(config, rows),
        validation=rows.validation,
        patience=table.patience,
        seed=table.seed,
        device=table.device,
        progress=None if on_epoch is None else lambda progress: on_epoch(progress, rate),
    )


def _augmentation(config: TrainConfig, rows: TrainingRows) -> Augmentation | None:
    alpha = config.training.mixup
    num_classes = len(rows.classes) if rows.classes else None
    return None if alpha is None else mixup(alpha, num_classes)


def _loss(config: TrainConfig, rows: TrainingRows) -> Loss:
    smoothing = config.training.label_smoothing
    return smoothed_cross_entropy(smoothing) if smoothing > 0.0 else _plain_loss(config, rows)


def _plain_loss(config: TrainConfig, rows: TrainingRows) -> Loss:
    losses: dict[str, Loss] = {
        "logits": cross_entropy,
        "mean": squared_error,
        "mean_and_log_variance": gaussian_nll,
    }
    return losses[output_of(config, rows)]


def _export(
    config: TrainConfig, rows: TrainingRows, network: nn.Module, declared: TableInput | None
) -> Bundle:
    with warnings.catch_warnings():
        # torch.export of torch 2.13 copies objects of a class that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        return dubito_nn.export(
            network,
            rows.inputs[:_NUM_EXAMPLES],
            config.bundle,
            task=rows.task,
            output=output_of(config, rows),
            classes=rows.classes,
            target_scale=rows.target_scale,
            notes=config.notes,
            preprocess=declared,
        )
