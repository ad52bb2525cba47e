"""The peak memory of the script that imports it, in a process of its own."""

from __future__ import annotations

from pathlib import Path


def peak_memory() -> int:
    """Most bytes that this process has had in memory.

    Not getrusage's figure, which begins with the peak of the process that started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(kilobytes) * 1024
