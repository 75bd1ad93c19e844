"""Engines that are loaded, by the digest of their bundle; loaded on demand, each once.

Threads that want the same engine while it loads wait for the one load. A load that fails leaves
nothing behind, and the next request tries again. Beyond the limit the least lately used leaves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from dubito.engine import Engine


class Catalogue:
    """Loaded engines.

    Args:
        load: makes an engine from a digest.
        max_loaded: most engines kept.
    """

    def __init__(self, load: Callable[[str], Engine], max_loaded: int) -> None:
        self._load = load
        self._max_loaded = max_loaded
        self._lock = threading.Lock()
        self._engines: OrderedDict[str, Future[Engine]] = OrderedDict()
        self._varies: dict[str, bool] = {}

    def get(self, digest: str) -> Engine:
        """The engine of a bundle, loaded if it is not yet.

        Raises:
            BundleRefusedError: the bundle cannot be run here.
        """
        with self._lock:
            future = self._engines.get(digest)
            is_ours = future is None
            if future is None:
                future = self._engines[digest] = Future()
            self._engines.move_to_end(digest)
            while len(self._engines) > self._max_loaded:
                gone, _ = self._engines.popitem(last=False)
                self._varies.pop(gone, None)
        if is_ours:
            self._fill(digest, future)
        return future.result()

    def _fill(self, digest: str, future: Future[Engine]) -> None:
        try:
            future.set_result(self._load(digest))
        except BaseException as error:
            with self._lock:
                if self._engines.get(digest) is future:
                    del self._engines[digest]
            future.set_exception(error)

    def is_loaded(self, digest: str) -> bool:
        """Whether the engine of a bundle is ready to answer."""
        with self._lock:
            future = self._engines.get(digest)
        return future is not None and future.done() and future.exception() is None

    def drop(self, digest: str) -> None:
        """Forget an engine; requests that hold it finish with it."""
        with self._lock:
            self._engines.pop(digest, None)
            self._varies.pop(digest, None)

    def note_variation(self, digest: str, varies: bool) -> None:
        """Remember whether the samples of the last Monte Carlo prediction differed."""
        with self._lock:
            if digest in self._engines:
                self._varies[digest] = varies

    def varies(self, digest: str) -> bool | None:
        """Whether the samples of the last prediction differed; None before the first one."""
        with self._lock:
            return self._varies.get(digest)
