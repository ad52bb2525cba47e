"""How many threads torch starts and how they wait; read by OpenMP when torch is first imported.

A library must not decide this for its process, so only the command line does, before torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Each says how long a thread without work spins before it sleeps.
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
COUNT_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

_ROOT = Path("/")


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy of control groups.

    Attributes:
        group: The group that is mounted.
        folder: Where, relative to the root of the file system.
        unified: Whether it is of version 2.
    """

    group: PurePosixPath
    folder: str
    unified: bool


def set_up_threads(environment: MutableMapping[str, str]) -> None:
    """Set OpenMP's variables in an environment, except where its owner has decided.

    Threads sleep while they wait: spinning ones take the cores that a neighbour's process needs and
    wait for each other while it has them. In a container there are no more threads than CPUs that
    its control group may use, which OpenMP does not know of.
    """
    if not any(name in environment for name in WAIT_VARIABLES):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    limit = cpu_limit()
    if limit is None or any(name in environment for name in COUNT_VARIABLES):
        return
    # A part of a CPU counts as one: two threads on 1.5 CPUs are faster than one.
    allowed = max(1, math.ceil(limit))
    if allowed < usable_cpus():
        environment["OMP_NUM_THREADS"] = str(allowed)


def usable_cpus() -> int:
    """Return the number of CPUs that this process may run on, whatever its control group says."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_limit(root: Path = _ROOT) -> float | None:
    """Return how many CPUs the control groups of this process grant it at a time.

    Both versions are read: ``cpu.max``, and ``cpu.cfs_quota_us`` with ``cpu.cfs_period_us``. The
    limit of a group holds for all groups below, so the least one counts.

    Args:
        root: Where /proc and /sys are.

    Returns:
        The limit; None if there is none, as on systems without control groups.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    limits = []
    for mount in _cpu_mounts(mounts):
        group = _group_of(groups, unified=mount.unified)
        if group is not None:
            limits += [_limit_of(folder, mount.unified) for folder in _folders(root, mount, group)]
    return min((limit for limit in limits if limit is not None), default=None)


def _cpu_mounts(mountinfo: str) -> Iterator[_Mount]:
    """Yield the hierarchies that may limit CPUs; the format is that of proc(5)."""
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.partition(" ")
        words = fields.split(" ")
        of_cpu = kind == "cgroup" and "cpu" in options.rpartition(" ")[2].split(",")
        if len(words) > 4 and (of_cpu or kind == "cgroup2"):
            yield _Mount(PurePosixPath(words[3]), words[4].lstrip("/"), kind == "cgroup2")


def _group_of(cgroup: str, *, unified: bool) -> PurePosixPath | None:
    """Return the group of this process, from lines "number:controllers:path"; None if none."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers if unified else "cpu" in controllers.split(","):
            return PurePosixPath(path)
    return None


def _folders(root: Path, mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """Yield the folders of a group and of those above it, as far as they are mounted."""
    # A container may see its own group alone, under the path that the host gives it.
    known = group.is_relative_to(mount.group)
    below = group.relative_to(mount.group).parts if known else ()
    for depth in range(len(below), -1, -1):
        yield root.joinpath(mount.folder, *below[:depth])


def _limit_of(folder: Path, unified: bool) -> float | None:
    """Return a group's own limit in CPUs; None if it has none."""
    try:
        if unified:
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        limit = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None
    return limit if limit > 0 else None  # -1 means no limit
