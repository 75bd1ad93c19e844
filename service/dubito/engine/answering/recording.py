"""Whole answers as CUDA graphs.

Its job: on a GPU the answer to a few rows takes some hundred kernels of a few microseconds each,
and calling them from Python takes several times as long as they do. A graph is recorded once and
then launched as one. It is recorded for a number of rows out of a fixed series, which a call is
filled up to with copies of its last row, at the second call that needs it; the engine makes the
usual ones at load, so that no request waits for a recording of those.

    rows      1, 2, 4, 8, 16, then two for each doubling: 24, 32, 48, 64, ...
    bytes     a call that is not recorded yet is filled up as well: the same kernels, the same bytes
    memory    all graphs of an engine share one pool; what they read is kept alive beside them

Only calls are recorded that read nothing but their rows and values that stay where they are
(`Passes.is_repeatable`).

Source: CUDA Programming Guide, "CUDA Graphs"; torch.cuda.graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TypeAlias

import torch
from cachetools import LRUCache
from torch import Tensor

from dubito.engine.calling.columns import Columns, Figures
from dubito.engine.summing.sheet import Sheet

RECORDED_AT_LOAD = (1, 2, 4, 8, 16, 32, 64, 128)  # rows
_MOST = 64  # graphs of an engine: the least recently used are evicted first
Answer: TypeAlias = Callable[[Mapping[str, Tensor]], tuple[Sheet, Figures]]


@dataclass(eq=False)
class _Entry:
    """One number of rows of one kind of call.

    Args:
        inputs: by name, where the graph reads them.
        graph: None until the second call.
        sheet: where the graph writes; None without one.
        figures: makes columns of it, once it is on the host.
        held: what the graph reads beside its inputs.
        is_refused: it could not be recorded.
    """

    inputs: dict[str, Tensor]
    graph: torch.cuda.CUDAGraph | None = None
    sheet: Sheet | None = None
    figures: Figures | None = None
    held: object = None
    is_refused: bool = False


class Recordings:
    """The graphs of one engine.

    Args:
        device: a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._entries: LRUCache[Hashable, _Entry] = LRUCache(_MOST)
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of graphs that are recorded."""
        return sum(entry.graph is not None for entry in self._entries.values())

    def columns(
        self,
        rows: Mapping[str, Tensor],
        kind: Hashable,
        answer: Answer,
        held: Callable[[], object],
    ) -> Columns:
        """The answer to some rows.

        Args:
            rows: by input name, on the host.
            kind: what the answer depends on beside the rows and their number.
            answer: makes its sums from rows on the device, and says what they become.
            held: what `answer` reads beside them, asked for after it ran once.
        """
        total = len(next(iter(rows.values())))
        filled = filled_rows(total)
        with self._lock:
            key = filled, kind
            entry = self._entries.get(key)
            is_new = entry is None
            if entry is None:
                entry = self._entries[key] = _Entry(
                    {
                        name: tensor.new_empty((filled, *tensor.shape[1:]), device=self._device)
                        for name, tensor in rows.items()
                    }
                )
            for name, tensor in rows.items():
                held_rows = entry.inputs[name]
                held_rows[:total].copy_(tensor)
                if filled > total:
                    held_rows[total:] = held_rows[total - 1]
            if entry.graph is None and not is_new and not entry.is_refused:
                self._record(entry, answer, held)
            if entry.graph is None or entry.sheet is None or entry.figures is None:
                sheet, figures = answer(entry.inputs)
                return figures(sheet.on_host(total))
            entry.graph.replay()
            sums = entry.sheet.on_host(total)
        return entry.figures(sums)

    def _record(self, entry: _Entry, answer: Answer, held: Callable[[], object]) -> None:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            with torch.cuda.stream(self._stream):  # libraries keep workspaces for every stream
                made, figures = answer(entry.inputs)
            graph, sheet = torch.cuda.CUDAGraph(), Sheet(made.numbers.clone(), made.shapes)
            del made
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                sheet.numbers.copy_(answer(entry.inputs)[0].numbers)
        except RuntimeError:
            entry.is_refused = True  # an operator of this network asks the host, say
            return
        finally:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        entry.graph, entry.sheet, entry.figures = graph, sheet, figures
        entry.held = held()


def filled_rows(rows: int) -> int:
    """The least number of the series that is not below."""
    at = 1
    while at < rows:
        if at >= 16 and at * 3 // 2 >= rows:
            return at * 3 // 2
        at *= 2
    return at
