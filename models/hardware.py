"""What this machine's processor can do, found out without importing torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Instructions that multiply bfloat16 in hardware, best first: the kernel's word, and its name.
_BF16_UNITS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
_CPUINFO = Path("/proc/cpuinfo")


def bf16_units() -> str:
    """Return the name of the CPU's instructions for bfloat16; "" if it has none that are known.

    Without them bfloat16 is emulated, many times slower than float32. Only Linux says what its CPU
    has; elsewhere the answer is "".
    """
    return _read_units(_CPUINFO)


@cache
def _read_units(cpuinfo: Path) -> str:
    """Find the units in the flags of the first processor that a file like /proc/cpuinfo lists."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return ""
    words = set(flags.partition(":")[2].split())
    # As torch has it: both need the first generation of AVX-512 as well.
    if not {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= words:
        return ""
    return next((name for word, name in _BF16_UNITS.items() if word in words), "")
