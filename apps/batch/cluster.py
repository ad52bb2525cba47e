"""Where a batch runs: a Ray cluster or this machine, how many workers, what each needs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...models.errors import InputError, PromptsegError
from ..threads import cpu_limit, usable_cpus

# Bytes that a worker's models and libraries take, by preset, and bytes for each pixel of the
# largest image. For pocket measured by benchmarks/batch.py --memory, for others from the size of
# their weights.
_BASE_GB = {"pocket": 1.0, "mobile": 3.0, "base": 4.0, "large": 8.0}
_BYTES_PER_PIXEL = 10
# Of a worker's CPUs, so that reading and writing always find a place beside it.
_LEFT_FOR_FILES = 0.1
_HUSH = ("ray", "ray.data")
# Ray writes errors alone, and reports nothing to its makers.
ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class Cluster:
    """Where a batch runs.

    Attributes:
        address: Of a Ray cluster, such as "auto" or "host:6379"; None for this machine.
        workers: Most workers, each with a model; by default as many as there are places for.
        gpus_per_worker: GPUs of each worker, which may be a part of one, such as 0.5.
        cpus_per_worker: CPUs of each worker; its networks use as many threads.
        batch_size: Images that a worker gets at a time.
        memory_gb: Memory to reserve for each worker; by default estimated from the preset and the
            largest image.
        shard_rows: Images in each file of results, which is also what a crash costs; by default
            chosen from their number, 256 at most.

    Raises:
        InputError: A value is out of its range.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 0.0
    cpus_per_worker: int = 1
    batch_size: int = 8
    memory_gb: float | None = None
    shard_rows: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_worker", "batch_size", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be 1 or more, not {value}")
        if not self.gpus_per_worker >= 0:
            raise InputError(f"gpus_per_worker must be 0 or more, not {self.gpus_per_worker}")
        if self.memory_gb is not None and not self.memory_gb > 0:
            raise InputError(f"memory_gb must be positive, not {self.memory_gb}")

    def memory(self, preset: str, max_pixels: int) -> int:
        """Return the bytes to reserve for a worker."""
        if self.memory_gb is not None:
            return int(self.memory_gb * 1e9)
        return int(_BASE_GB.get(preset, 8.0) * 1e9) + _BYTES_PER_PIXEL * max_pixels

    def rows_at_once(self, images: int, workers: int) -> int:
        """Return how many images a file of results has."""
        if self.shard_rows is not None:
            return self.shard_rows
        return min(256, max(self.batch_size, -(-images // (16 * workers))))

    def worker_cpus(self) -> float:
        """Return the CPUs that a worker reserves."""
        return self.cpus_per_worker - _LEFT_FOR_FILES

    def most_workers(self, memory: int) -> int:
        """Return the most workers of the cluster that is connected to.

        Raises:
            InputError: No node has what a worker needs.
        """
        import ray

        places = 0
        most = {"CPU": 0.0, "GPU": 0.0, "memory": 0.0}
        wanted = {
            "CPU": self.worker_cpus(),
            "GPU": self.gpus_per_worker,
            "memory": float(memory),
        }
        for node in ray.nodes():
            if node["Alive"]:
                there: dict[str, float] = node["Resources"]
                most = {name: max(value, there.get(name, 0.0)) for name, value in most.items()}
                places += min(int(there.get(n, 0.0) / v + 1e-6) for n, v in wanted.items() if v)
        if not places:
            raise InputError(_too_much(wanted, most))
        return places if self.workers is None else self.workers


def _too_much(wanted: dict[str, float], most: dict[str, float]) -> str:
    remedies = {"CPU": "--cpus-per-worker", "GPU": "--gpus-per-worker", "memory": "--memory-gb"}
    for name, remedy in remedies.items():
        if wanted[name] > most[name]:
            need, there = wanted[name], most[name]
            if name == "memory":
                return (
                    f"a worker needs {need / 1e9:.1f} GB of memory, and the largest node has "
                    f"{there / 1e9:.1f} GB; allow smaller images by --max-pixels, or give {remedy}"
                )
            return f"a worker needs {need:g} {name}, and no node has more than {there:g}: {remedy}"
    return "no node has the CPUs, GPUs and memory that a worker needs together"


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Connect to the cluster, or start Ray on this machine; a running Ray is used as it is.

    Raises:
        InputError: There is no cluster at the address.
        PromptsegError: Ray does not start on this machine.
    """
    for name, value in ENVIRONMENT.items():  # before Ray is imported
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        # One more than there are: what reads and writes hardly needs any.
        cpus = max(cluster.cpus_per_worker, _own_cpus()) + 1
        options |= {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    else:
        options["address"] = cluster.address
    try:
        ray.init(**options)
    except Exception as error:  # a bare one where a start takes too long
        reason = " ".join(str(error).split())[:200]
        if cluster.address is None:
            raise PromptsegError(
                f"Ray does not start on this machine ({reason}); on a busy one, try again later"
            ) from error
        raise InputError(
            f"there is no Ray cluster at {cluster.address!r} ({reason}); check --address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _own_cpus() -> int:
    limit = cpu_limit()
    return usable_cpus() if limit is None else max(1, min(usable_cpus(), int(limit)))


@contextmanager
def hushed() -> Iterator[None]:
    """Let Ray report errors alone: progress and the summary are told by promptseg."""
    loggers = [logging.getLogger(name) for name in _HUSH]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
