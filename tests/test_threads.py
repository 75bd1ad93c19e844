"""How many threads compute: of the cores that a process may use, before any library is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dubito.application import Application
from dubito.settings import Settings
from dubito.threads import cores, prepare

AVAILABLE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _machine(root: Path, group: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": group, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "20000 100000\n"}, 1),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, AVAILABLE),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "99900000 100000\n"}, AVAILABLE),
        ("0::/\n", {}, AVAILABLE),
        (
            "0::/system.slice/dubito.service\n",
            {
                "sys/fs/cgroup/system.slice/dubito.service/cpu.max": "max 100000\n",
                "sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n",
            },
            1,
        ),
        (
            "5:memory:/a\n4:cpu,cpuacct:/a/b\n0::/\n",
            {
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "90000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "no numbers here\n"}, AVAILABLE),
    ],
)
def test_the_quota_of_every_group_around_a_process_bounds_its_cores(
    tmp_path: Path, group: str, files: dict[str, str], expected: int
) -> None:
    assert cores(_machine(tmp_path, group, files)) == expected


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path) == AVAILABLE


@pytest.mark.parametrize(
    ("given", "is_server", "expected"),
    [
        ({}, False, {}),
        ({"DUBITO_THREADS": "3"}, False, {"OMP_NUM_THREADS": "3"}),
        ({"OMP_NUM_THREADS": "5"}, True, {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "PASSIVE"}),
        (
            {"dubito_threads": "3", "OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "ACTIVE"},
            True,
            {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"},
        ),
        ({"DUBITO_THREADS": "-1"}, False, {}),
        ({"DUBITO_THREADS": "two"}, False, {}),
    ],
)
def test_the_setting_counts_before_the_variables_of_openmp(
    given: dict[str, str], is_server: bool, expected: dict[str, str]
) -> None:
    environment = dict(given)
    prepare(environment, is_server=is_server)
    assert {k: v for k, v in environment.items() if k.startswith("OMP")} == expected


def test_a_server_leaves_one_core_to_what_receives_and_answers() -> None:
    environment: dict[str, str] = {}
    prepare(environment, is_server=True)
    assert environment["OMP_NUM_THREADS"] == str(max(1, cores() - 1))


def test_openmp_is_told_before_it_is_loaded() -> None:
    told = {"DUBITO_THREADS": "3", "OMP_DISPLAY_ENV": "TRUE"}
    given = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    command = [sys.executable, "-m", "dubito", "serve", "--help"]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ended = subprocess.run(
        command, env={**given, "PYTHONPATH": path, **told}, capture_output=True, text=True
    )
    if "OMP_WAIT_POLICY" not in ended.stderr:
        pytest.skip("torch's OpenMP does not show what it was told")
    assert "OMP_NUM_THREADS = '3'" in ended.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in ended.stderr


def test_an_application_computes_with_the_threads_of_its_settings(settings: Settings) -> None:
    before = torch.get_num_threads()
    try:
        Application(settings.model_copy(update={"threads": before + 1})).close()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
