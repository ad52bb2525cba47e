"""OpenMP's variables: set by the command line before torch, left alone where they are set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from promptseg.apps import threads
from promptseg.apps.threads import COUNT_VARIABLES, WAIT_VARIABLES, cpu_limit, set_up_threads

# Prints what OpenMP and torch took up, once the command has ended.
ASKING = """
import json, os, sys
from promptseg.apps import threads
quota = float(sys.argv.pop(1))
threads.cpu_limit = lambda: quota or None
threads.usable_cpus = lambda: 8
from promptseg.apps.cli.main import main
try:
    main()
finally:
    import torch
    print(json.dumps({"count": torch.get_num_threads(), **os.environ}), file=sys.stderr)
"""
AS_A_LIBRARY = """
import json, os, sys
import promptseg
before = dict(os.environ)
pipe = promptseg.load("pocket")
print(json.dumps(os.environ == before), file=sys.stderr)
"""
UNIFIED = "34 24 0:29 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CPU_ALONE = "35 24 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = (
    "23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    "36 24 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "37 24 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def bare() -> dict[str, str]:
    """The environment without what OpenMP reads."""
    names = (*WAIT_VARIABLES, *COUNT_VARIABLES)
    return {name: value for name, value in os.environ.items() if name not in names}


def start(code: str, *arguments: str, **variables: str) -> str:
    """What a process in such an environment writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**bare(), **variables}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stderr


def machine(folder: Path, groups: str, mounts: str, **files: str) -> Path:
    """A root with these files of /proc and, by their path below /sys/fs/cgroup, of /sys."""
    own = folder / "proc" / "self"
    own.mkdir(parents=True)
    (own / "cgroup").write_text(groups)
    (own / "mountinfo").write_text(OTHERS + mounts)
    for name, content in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize("wanted", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"},
                                    {"KMP_BLOCKTIME": "3"}])  # fmt: skip
def test_what_the_command_line_sets_reaches_openmp(wanted: dict[str, str]) -> None:
    # libgomp prints what it runs with when torch loads it.
    told = start(ASKING, "0", "--version", OMP_DISPLAY_ENV="VERBOSE", **wanted)
    policy = wanted.get("OMP_WAIT_POLICY", "PASSIVE" if not wanted else None)
    environment = json.loads(told.splitlines()[-1])
    assert environment.get("OMP_WAIT_POLICY") == policy
    if not wanted:
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in told
    for name, value in wanted.items():
        assert environment[name] == value


@pytest.mark.parametrize(
    ("quota", "variables", "count"),
    [
        ("1.5", {}, "2"),
        ("0.2", {}, "1"),
        ("3", {"OMP_NUM_THREADS": "1"}, "1"),
        ("3", {"MKL_NUM_THREADS": "4"}, None),
        ("8", {}, None),
        ("64", {}, None),
    ],
)
def test_a_containers_limit_reaches_torch(quota, variables, count) -> None:
    told = json.loads(start(ASKING, quota, "--version", **variables).splitlines()[-1])
    assert told.get("OMP_NUM_THREADS") == count
    if count is not None:
        assert told["count"] == int(count)


def test_a_library_sets_nothing() -> None:
    assert json.loads(start(AS_A_LIBRARY).splitlines()[-1]) is True


def test_without_a_limit_the_count_is_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cpu_limit", lambda: None)
    environment: dict[str, str] = {}
    set_up_threads(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_version_2_in_a_container(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", UNIFIED.format(root="/"), **{"cpu.max": "250000 100000\n"})
    assert cpu_limit(root) == 2.5


def test_version_2_with_the_least_of_nested_groups(tmp_path: Path) -> None:
    files = {
        "a.slice/cpu.max": "150000 50000\n",
        "a.slice/b.service/cpu.max": "max 100000\n",
        "a.slice/b.service/c/cpu.max": "400000 100000\n",
        "a.slice/other/cpu.max": "100000 100000\n",
    }
    root = machine(tmp_path, "0::/a.slice/b.service/c\n", UNIFIED.format(root="/"), **files)
    assert cpu_limit(root) == 3


def test_version_1_of_a_container_under_the_hosts_path(tmp_path: Path) -> None:
    groups = "5:memory:/docker/f00\n4:cpu,cpuacct:/docker/f00\n0::/\n"
    quota = {
        "cpu,cpuacct/cpu.cfs_quota_us": "150000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    root = machine(tmp_path, groups, CPU_ALONE.format(root="/docker/f00"), **quota)
    assert cpu_limit(root) == 1.5


def test_version_1_in_a_group_of_the_host(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/mine/cpu.cfs_quota_us": "50000\n",
        "cpu,cpuacct/mine/cpu.cfs_period_us": "100000\n",
        "cpuset/mine/cpu.cfs_quota_us": "1\n",
    }
    groups = "7:cpuset:/\n4:cpu,cpuacct:/mine\n"
    root = machine(tmp_path, groups, CPU_ALONE.format(root="/"), **files)
    assert cpu_limit(root) == 0.5


def test_a_path_outside_the_mounted_group_means_the_mounted_group(tmp_path: Path) -> None:
    groups, mount = "0::/elsewhere\n", UNIFIED.format(root="/docker/f00")
    root = machine(tmp_path, groups, mount, **{"cpu.max": "100000 100000\n"})
    assert cpu_limit(root) == 1


@pytest.mark.parametrize("content", ["max 100000\n", "", "many few\n", "1\n", "100000 0\n", "-1 5"])
def test_no_limit_and_no_sense(tmp_path: Path, content: str) -> None:
    root = machine(tmp_path, "0::/\n", UNIFIED.format(root="/"), **{"cpu.max": content})
    assert cpu_limit(root) is None


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpu_limit(tmp_path) is None
    root = machine(tmp_path, "\nnonsense\n", "nonsense\n - \n1 2 3 4 - cgroup2 x rw\n")
    assert cpu_limit(root) is None
