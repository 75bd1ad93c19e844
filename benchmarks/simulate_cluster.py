"""A hundred devices behind one router, on paper: queueing, and what a burst of ten times does.

    python benchmarks/simulate_cluster.py [--devices 100] [--results FILE] [--request-ms 0.9]

A discrete-event simulation (simpy). A device is as the server's: what waits is computed at once, up
to the rows of a batch, and takes the time that `bench_engine.py` measured for so many rows, linear
between them. Beside it a replica reads and writes its requests one after the other, `--request-ms`
each, while the device computes the batch before: a batch takes the longer of the two. A request has
`--rows` rows; it goes to the shorter line of two drawn at random, and is refused where that line is
longer than the server's limit. The number of replicas follows `dubito.cluster.autoscaling`, the
policy that `dubito serve --ray` uses, on what replicas told of late; a new one takes `--start-s`.

Requests arrive in ticks of a millisecond, so that times are right to that. Network time, failures
and models that have to be loaded are not simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simpy

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "service"), str(ROOT / "models")]

from dubito.cluster.autoscaling import wanted  # noqa: E402

TICK_S, TOLD_EVERY_S = 0.001, 1.0
MOST_ROWS, LONGEST_S = 256, 2.0  # DUBITO_MAX_BATCH_ROWS, DUBITO_MAX_QUEUE_MS
CALM_SHARE = 0.6
NETWORK = "MLP 784-1024-1024-10, p .5"
RESULTS = ROOT / "benchmarks" / "results"

Events = Generator[simpy.Event, Any, None]


@dataclass(frozen=True)
class Cost:
    """What a batch takes.

    Args:
        rows: measured numbers of rows, ascending.
        seconds: of each.
        request_s: of reading and writing one request.
        each: rows of a request.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    request_s: float
    each: int

    @classmethod
    def read(cls, path: Path, network: str, request_s: float, each: int) -> Cost:
        """As `bench_engine.py` left it, of the fewest samples."""
        of_network = [r for r in json.loads(path.read_text())["rows"] if r["network"] == network]
        samples = min(row["samples"] for row in of_network)
        measured = sorted(
            (row["batch"], row["minimum_s"]["engine"])
            for row in of_network
            if row["samples"] == samples
        )
        rows, seconds = zip(*measured, strict=True)
        return cls(rows, seconds, request_s, each)

    def of(self, requests: int) -> float:
        """Seconds of a batch of so many requests."""
        last, before, count = self.rows[-1], self.rows[-2], requests * self.each
        if count > last:
            slope = (self.seconds[-1] - self.seconds[-2]) / (last - before)
            device_s = self.seconds[-1] + slope * (count - last)
        else:
            device_s = float(np.interp(count, self.rows, self.seconds))
        return max(device_s, requests * self.request_s)

    @property
    def most(self) -> int:
        """Most requests of a batch."""
        return max(1, MOST_ROWS // self.each)

    @property
    def capacity(self) -> float:
        """Most requests a second of one device."""
        return self.most / self.of(self.most)


@dataclass(eq=False)
class Device:
    """One replica: its line, as (when it came, how many requests), and how busy it was."""

    waiting: deque[tuple[float, int]] = field(default_factory=deque)
    num_waiting: int = 0
    busy_s: float = 0.0
    told_busy_s: float = 0.0
    wakes: simpy.Event | None = None
    is_leaving: bool = False


@dataclass
class Window:
    """Replies and refusals of one second."""

    waits: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0
    replicas: int = 0

    def quantile(self, share: float) -> float:
        """A quantile of the waits, in ms; nan where nothing was answered."""
        if not self.waits:
            return float("nan")
        waits, counts = map(np.array, zip(*sorted(self.waits), strict=True))
        place = np.searchsorted(np.cumsum(counts), share * counts.sum())
        return 1000 * float(waits[min(place, len(waits) - 1)])


class Cluster:
    """Replicas behind a router.

    Args:
        cost: of a batch.
        seed: of arrivals and of the router.
        start_s: that a new replica takes.
    """

    def __init__(self, cost: Cost, seed: int, start_s: float) -> None:
        self.clock = simpy.Environment()
        self._cost = cost
        self._start_s = start_s
        self._numbers = np.random.default_rng(seed)
        self._devices: list[Device] = []
        self._starting = 0
        self._windows: dict[int, Window] = {}
        self._full_s = 1 / cost.capacity

    def add(self, count: int) -> None:
        """Have so many replicas more, at once."""
        for _ in range(count):
            device = Device()
            self._devices.append(device)
            self.clock.process(self._compute(device))

    def window(self) -> Window:
        """That of the present second."""
        return self._windows.setdefault(int(self.clock.now), Window())

    @property
    def windows(self) -> list[Window]:
        """All seconds, in order."""
        return [self._windows[second] for second in sorted(self._windows)]

    def arrivals(self, rates: Mapping[float, float]) -> Events:
        """Poisson arrivals; from each time on at a rate per second."""
        times = sorted(rates)
        while True:
            now = self.clock.now
            rate = rates[max(time for time in times if time <= now + TICK_S / 2)]
            count = int(self._numbers.poisson(rate * TICK_S))
            self._route(count, now)
            yield self.clock.timeout(TICK_S)

    def autoscaler(self, least: int, most: int, every_s: float, calm_s: float) -> Events:
        """Ask the policy now and then; fewer replicas only after a time of calm."""
        lower_since: float | None = None
        while True:
            yield self.clock.timeout(every_s)
            busy, ahead_s = [], []
            for device in self._devices:
                busy.append(min(1.0, (device.busy_s - device.told_busy_s) / every_s))
                device.told_busy_s = device.busy_s
                ahead_s.append(device.num_waiting * self._full_s)
            number = min(max(wanted(busy, ahead_s), least), most)
            there = len(self._devices) + self._starting
            if number >= there:
                lower_since = None
                for _ in range(number - there):
                    self.clock.process(self._start())
            elif lower_since is None:
                lower_since = self.clock.now
            elif self.clock.now - lower_since >= calm_s:
                for device in self._devices[number:]:
                    device.is_leaving = True
                    if device.wakes is not None:
                        device.wakes.succeed()
                        device.wakes = None
                del self._devices[number:]

    def watch(self) -> Events:
        """Note how many replicas there are, every second."""
        while True:
            self.window().replicas = len(self._devices)
            yield self.clock.timeout(TOLD_EVERY_S)

    def _start(self) -> Events:
        self._starting += 1
        yield self.clock.timeout(self._start_s)
        self._starting -= 1
        self.add(1)

    def _route(self, count: int, now: float) -> None:
        """Each to the shorter of two lines; refused where that would wait too long."""
        if not count:
            return
        most = LONGEST_S / self._full_s
        for first, second in self._numbers.integers(len(self._devices), size=(count, 2)):
            one, other = self._devices[first], self._devices[second]
            device = one if one.num_waiting <= other.num_waiting else other
            if device.num_waiting >= most:
                self.window().refused += 1
                continue
            device.num_waiting += 1
            if device.waiting and device.waiting[-1][0] == now:
                device.waiting[-1] = (now, device.waiting[-1][1] + 1)
            else:
                device.waiting.append((now, 1))
            if device.wakes is not None:
                device.wakes.succeed()
                device.wakes = None

    def _compute(self, device: Device) -> Events:
        """What waits when the device frees is computed at once, up to the rows of a batch."""
        while device.num_waiting or not device.is_leaving:
            if not device.num_waiting:
                device.wakes = self.clock.event()
                yield device.wakes
                continue
            batch = self._taken(device)
            seconds = self._cost.of(sum(count for _, count in batch))
            yield self.clock.timeout(seconds)
            device.busy_s += seconds
            now = self.clock.now
            self.window().waits += [(now - came, count) for came, count in batch]

    def _taken(self, device: Device) -> list[tuple[float, int]]:
        batch, left = [], self._cost.most
        while device.waiting and left:
            came, count = device.waiting.popleft()
            taken = min(count, left)
            if taken < count:
                device.waiting.appendleft((came, count - taken))
            batch.append((came, taken))
            left -= taken
        device.num_waiting -= self._cost.most - left
        return batch


def steady(cost: Cost, devices: int, load: float, seconds: float) -> dict[str, float]:
    """Waits at a load that does not change, the first quarter left out."""
    cluster = Cluster(cost, seed=0, start_s=0.0)
    cluster.add(devices)
    cluster.clock.process(cluster.arrivals({0.0: load * devices * cost.capacity}))
    cluster.clock.run(seconds)
    counted = cluster.windows[int(seconds / 4) :]
    together = Window([wait for window in counted for wait in window.waits])
    answered = sum(count for _, count in together.waits)
    refused = sum(window.refused for window in counted)
    return {
        "load": load,
        "requests_per_s": answered / len(counted),
        "p50_ms": together.quantile(0.5),
        "p99_ms": together.quantile(0.99),
        "refused_share": refused / (answered + refused),
    }


def burst(cost: Cost, options: argparse.Namespace) -> dict[str, object]:
    """Ten times the requests at once, with replicas that follow."""
    few = max(1, options.devices // 10)
    calm = CALM_SHARE * few * cost.capacity
    cluster = Cluster(cost, seed=1, start_s=options.start_s)
    cluster.add(few)
    before, end = 20.0, 20.0 + options.burst_s
    rates = {0.0: calm, before: 10 * calm, end: calm}
    cluster.clock.process(cluster.arrivals(rates))
    cluster.clock.process(
        cluster.autoscaler(1, options.devices, options.every_s, options.downscale_s)
    )
    cluster.clock.process(cluster.watch())
    cluster.clock.run(end + 20.0)
    windows = cluster.windows
    calm_p99 = max(window.quantile(0.99) for window in windows[5 : int(before)])
    well = [
        second
        for second, window in enumerate(windows)
        if second >= before and not window.refused and window.quantile(0.99) <= 2 * calm_p99
    ]
    return {
        "calm_requests_per_s": calm,
        "replicas_before": windows[int(before) - 1].replicas,
        "most_replicas": max(window.replicas for window in windows),
        "p99_calm_ms": calm_p99,
        "p99_burst_ms": max(w.quantile(0.99) for w in windows[int(before) : int(end)]),
        "refused_share": sum(w.refused for w in windows)
        / max(1, sum(count for w in windows for _, count in w.waits)),
        "well_again_after_s": (well[0] - before) if well else None,
        "seconds": [
            {"s": s, "replicas": w.replicas, "p99_ms": w.quantile(0.99), "refused": w.refused}
            for s, w in enumerate(windows)
        ],
    }


def main() -> None:
    options = _options()
    cost = Cost.read(options.results, options.network, options.request_ms / 1000, options.rows)
    loads = [steady(cost, options.devices, load, options.seconds) for load in options.loads]
    bursts = burst(cost, options)
    print(_shown(cost, options, loads, bursts))
    if options.json:
        asked = {k: v.name if isinstance(v, Path) else v for k, v in vars(options).items()}
        told = {"options": asked, "capacity": cost.capacity}
        options.json.write_text(json.dumps(told | {"steady": loads, "burst": bursts}, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS / "bench_engine.json")
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--rows", type=int, default=16, help="of a request")
    parser.add_argument("--request-ms", type=float, default=0.9, help="of HTTP, for one request")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.7, 0.8, 0.9, 0.95, 1.2])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--burst-s", type=float, default=90.0)
    parser.add_argument("--start-s", type=float, default=15.0, help="that a new replica takes")
    parser.add_argument("--every-s", type=float, default=5.0, help="between two looks")
    parser.add_argument("--downscale-s", type=float, default=60.0, help="of calm before fewer")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _shown(
    cost: Cost,
    options: argparse.Namespace,
    loads: list[dict[str, float]],
    bursts: dict[str, object],
) -> str:
    lines = [
        f"one device: {cost.of(1) * 1000:.2f} ms for a request of {cost.each} rows, "
        f"{cost.of(cost.most) * 1000:.1f} ms for {cost.most} of them, at most "
        f"{cost.capacity:.0f} requests / s; {options.devices} devices",
        "",
        "| load | answered / s | p50 ms | p99 ms | refused |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['load']:g} | {row['requests_per_s']:.0f} | {row['p50_ms']:.1f} |"
        f" {row['p99_ms']:.1f} | {100 * row['refused_share']:.1f} % |"
        for row in loads
    ]
    told = {name: value for name, value in bursts.items() if name != "seconds"}
    lines += ["", "a burst of ten times:", *(f"  {name}: {value}" for name, value in told.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
