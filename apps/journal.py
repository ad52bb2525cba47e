"""A file of JSON lines that records what is done, so that an interrupted run can be resumed.

The first line says what was asked; a run that asks anything else does not resume from the file.
Each further line is one entry. A last line that an interruption cut off is ignored.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..models.errors import InputError
from ..models.foreign import read_regular
from ..pipeline.files import remove_leftovers, write_whole

_LONGEST_SHOWN = 80
_LONGEST_HEADER = 2**26
_LARGEST = 2**32

T = TypeVar("T")


class Journal:
    """The record of one run.

    Args:
        path: The file.
        key: Key of the first line; it tells whose journal a file is.
        asked: What is asked, JSON-able: all that entries depend on.
        remedy: What a user can do about a file that cannot be resumed from.
    """

    def __init__(self, path: Path, key: str, asked: Mapping[str, object], remedy: str) -> None:
        self.path = path
        self._key = key
        # As it is read back: tuples become lists.
        self._asked: dict[str, object] = json.loads(json.dumps(dict(asked)))
        self._remedy = remedy

    def read(self, parse: Callable[[Any], T]) -> list[T]:
        """Return the entries; none if there is no file, or nothing but a first line in it.

        Args:
            parse: Turns an entry's JSON into a value; may raise ValueError, TypeError or KeyError.

        Raises:
            InputError: The file is not a journal, belongs to another run, or is broken.
            OSError: It cannot be read.
        """
        if not os.path.lexists(self.path):
            return []
        try:
            content = read_regular(self.path, "it", limit=_LARGEST)
            lines = content.decode("utf-8").split("\n")[:-1]
        except UnicodeDecodeError as error:
            raise self._refusal("it is not UTF-8 text") from error
        except InputError as error:
            raise self._refusal(str(error)) from error
        if not lines:
            return []
        asked = _parse_header(lines[0], self._key)
        if asked is None:
            raise self._refusal("its first line does not say what was asked")
        # Without entries there is nothing to lose, whatever was asked.
        if len(lines) > 1:
            self._check(asked)
        entries = []
        for number, line in enumerate(lines[1:], start=2):
            try:
                entries.append(parse(json.loads(line, parse_constant=_refuse_constant)))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise self._refusal(f"line {number} is broken") from error
        return entries

    def write(self, entries: Iterable[Mapping[str, object]]) -> None:
        """Write the first line and these entries in place of what is there, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        remove_leftovers(self.path.parent)
        lines = [_dump({self._key: self._asked}), *map(_dump, entries)]
        write_whole(self.path, "".join(lines).encode())

    def append(self, entry: Mapping[str, object]) -> None:
        """Add an entry.

        Raises:
            OSError: It cannot be written.
        """
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_dump(entry))

    def _check(self, asked: Mapping[str, object]) -> None:
        for key in {**self._asked, **asked}:
            was, now = asked.get(key), self._asked.get(key)
            if was != now:
                raise self._refusal(f"its {key} is {_show(was)}, not {_show(now)} as in this run")

    def _refusal(self, reason: str) -> InputError:
        return InputError(f"cannot resume from {str(self.path)!r}: {reason}; {self._remedy}")


def is_journal(path: Path, key: str) -> bool:
    """Return whether a file is a journal whose first line has this key."""
    try:
        # Without waiting: opening a pipe that nobody writes to would never end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return False
            return _parse_header(file.readline(_LONGEST_HEADER).decode("utf-8"), key) is not None
    except (OSError, ValueError):
        return False


def _parse_header(line: str, key: str) -> dict[str, object] | None:
    try:
        asked = json.loads(line)[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return asked if isinstance(asked, dict) else None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _dump(values: Mapping[str, object]) -> str:
    # In ASCII, which can also hold the bytes of a path that are not UTF-8.
    return json.dumps(values, allow_nan=False) + "\n"
