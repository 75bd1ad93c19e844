"""Answers of a distilled head, and of `mc` for the rows that it leaves to it.

Flow: rows → what the head reads → moments at fixed points → columns; rows that are as strange as a
share of usual rows are → `mc` → columns in their place. A row's own strangeness decides, whoever
stands beside it.

Dimensions: T samples, N fixed points, B rows, b of them that are left to `mc`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.streaming import joined
from dubito.engine.calling.columns import Columns
from dubito.engine.calling.prediction import Prediction
from dubito.engine.distilled import Student
from dubito.engine.heads.head import MomentFigures
from dubito.engine.moments import OutputMoments

if TYPE_CHECKING:
    from dubito.engine.engine import Engine


def learned_columns(engine: Engine, call: EngineCall) -> Columns:
    """The columns of all rows of a call."""
    parts, figures = [], _figures(engine)
    for moments, p_value_B in _answers(engine, call):
        made = figures.columns(moments, call.scaling, keep_nodes=call.keep_samples)
        columns = {name: column.cpu().numpy().copy() for name, column in made.items()}  # not shared
        parts.append(columns | {"fit_p_value": p_value_B.cpu().numpy()})
    names = engine.head.sample_names
    columns = joined(parts, names)
    fallback = call.sampling.fallback
    if fallback is None:
        return columns
    left_b = np.flatnonzero(columns["fit_p_value"] <= fallback)
    if not len(left_b):
        return _repeated(columns, names, call)
    places = torch.from_numpy(left_b)
    rows = {name: tensor[places.to(tensor.device)] for name, tensor in call.rows.items()}
    own = replace(call, rows=rows, sampling=call.sampling.in_its_place, outputs=None)
    answered = joined(list(engine.columns_of(own)), names)
    columns, answered = (_repeated(some, names, call) for some in (columns, answered))
    for name, column in columns.items():
        if name in names:
            column[:, left_b] = answered[name]
        elif name in answered:  # the label follows from the mean
            column[left_b] = answered[name]
    return columns


def learned_passes(engine: Engine, call: EngineCall) -> Iterator[Iterator[Tensor]]:
    """Block of rows by block, fixed points that stand in for passes, or the passes themselves."""
    figures, count = _figures(engine), call.sampling.num_returned
    first, fallback = 0, call.sampling.fallback
    for moments, p_value_B in _answers(engine, call):
        raw = _times(figures.passes(moments), count)
        if fallback is not None:
            left_b = (p_value_B <= fallback).nonzero()[:, 0]
            if len(left_b):
                rows = {
                    name: tensor[(first + left_b).to(tensor.device)]
                    for name, tensor in call.rows.items()
                }
                own = replace(call, rows=rows, sampling=call.sampling.in_its_place)
                blocks = [torch.cat(list(block)) for block in engine.passes_of(own)]
                raw[:, left_b] = _times(torch.cat(blocks, 1), count).to(raw)
        first += len(p_value_B)
        yield iter([raw])


def said_by(
    engine: Engine, student: Student, features: Tensor, scores: Tensor
) -> tuple[Prediction, Tensor]:
    """What a head says of what it reads, raw, and how many usual rows are as strange.

    Args:
        engine: of the network.
        student: a head of it, on the device.
        features: (B, F).
        scores: (B, K).
    """
    moments, p_value_B = student.run(features, scores)
    declared = engine.students.declared(moments)
    made = _figures(engine).columns(declared, 1.0, keep_nodes=False)
    columns = {name: column.cpu().numpy() for name, column in made.items()}
    return engine.head.prediction(columns, engine.defaults), p_value_B.cpu()


def _answers(engine: Engine, call: EngineCall) -> Iterator[tuple[OutputMoments, Tensor]]:
    for rows in engine.pieces("shared", call.rows).rows(call.rows):
        if call.check is not None:
            call.check()
        yield engine.students.answer(rows, call.sampling.fit)


def _figures(engine: Engine) -> MomentFigures:
    figures = engine.head.moments
    assert figures is not None  # `check_head` refuses others
    return figures


def _repeated(columns: Columns, names: tuple[str, ...], call: EngineCall) -> Columns:
    """The columns with every pass or fixed point as often as makes both equally many."""
    count = call.sampling.num_returned
    return {
        name: np.repeat(column, count // len(column), axis=0) if name in names else column
        for name, column in columns.items()
    }


def _times(raw: Tensor, count: int) -> Tensor:
    return raw.repeat_interleave(count // len(raw), dim=0)
