"""What this machine's processor can do, found out without importing torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Instructions that multiply bfloat16 in hardware, best first: the kernel's word, and its name.
_BF16_UNITS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
# The first generation of AVX-512.
_AVX512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_CPUINFO = Path("/proc/cpuinfo")
# Makers of x86 CPUs of which some get no AVX-512 from Intel's MKL: their names in /proc/cpuinfo.
_OTHER_MAKERS = {"AuthenticAMD", "HygonGenuine"}


def bf16_units() -> str:
    """Return the name of the CPU's instructions for bfloat16; "" if it has none that are known.

    Without them bfloat16 is emulated, many times slower than float32. Only Linux says what its CPU
    has; elsewhere the answer is "".
    """
    return _read_units(_CPUINFO)


def has_slow_mkl() -> bool:
    """Return whether oneDNN multiplies matrices faster here than Intel's MKL.

    It does, by much or by little, on the CPUs with AVX-512 of other makers. Only Linux says;
    elsewhere the answer is no.
    """
    return _is_slow(_CPUINFO)


@cache
def _is_slow(cpuinfo: Path) -> bool:
    maker = _read_line(cpuinfo, "vendor_id")
    return bool(_OTHER_MAKERS & set(maker)) and set(_read_line(cpuinfo, "flags")) >= _AVX512


@cache
def _read_units(cpuinfo: Path) -> str:
    """Find the units of the first processor that a file like /proc/cpuinfo lists."""
    words = set(_read_line(cpuinfo, "flags"))
    if not words >= _AVX512:  # torch wants it as well
        return ""
    return next((name for word, name in _BF16_UNITS.items() if word in words), "")


def _read_line(cpuinfo: Path, name: str) -> list[str]:
    """Return the words of the first line of that name."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            found = next((line for line in lines if line.startswith(name)), "")
    except OSError:
        return []
    return found.partition(":")[2].split()
