"""A measurement's rows in a file, a picture a line, so that an interrupted run can go on.

The first line says what was measured; a run of anything else does not mix with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models.errors import InputError
from ...pipeline.files import write_text

Row = dict[str, Any]


class RowStore:
    """Rows by picture, each picture's written as soon as it is measured.

    Args:
        path: The file; made with its folder if it is not there.
        header: What is measured, JSON-able; a file that is there must be of the same.

    Attributes:
        rows: Rows by picture's name, those of the file and those added.

    Raises:
        InputError: The file is of another run, or is none of ours.
        OSError: The file cannot be read or written.
    """

    def __init__(self, path: Path, header: Mapping[str, str]) -> None:
        self.path = path
        self.rows: dict[str, list[Row]] = {}
        lines = self._whole_lines()
        # A file of a header alone holds nothing to lose, whatever run it is of.
        if len(lines) > 1 or (lines and not _is_header(lines[0])):
            self._check_header(lines[0], header)
            for number, line in enumerate(lines[1:], start=2):
                self._read_row(number, line)
            # Without the last line, where an interruption cut it off: it is measured again.
            write_text(path, "".join(line + "\n" for line in lines))
        else:
            write_text(path, _dump({"header": dict(header)}))

    def add(self, name: str, rows: list[Row]) -> None:
        """Keep a picture's rows."""
        self.rows[name] = rows
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_dump({"name": name, "rows": rows}))

    def _whole_lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return []
        except UnicodeDecodeError as error:
            raise self._refusal("it is not UTF-8 text") from error

    def _check_header(self, line: str, header: Mapping[str, str]) -> None:
        try:
            found = json.loads(line)["header"]
            differing = [key for key in {**header, **found} if header.get(key) != found.get(key)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._refusal("its first line does not say what was measured") from error
        if differing:
            key = differing[0]
            raise self._refusal(
                f"its {key} is {found.get(key)!r}, that of this run {header.get(key)!r}"
            )

    def _read_row(self, number: int, line: str) -> None:
        try:
            entry = json.loads(line)
            name, rows = entry["name"], entry["rows"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._refusal(f"line {number} is broken") from error
        if not isinstance(name, str) or not _are_rows(rows):
            raise self._refusal(f"line {number} is broken")
        self.rows[name] = rows

    def _refusal(self, reason: str) -> InputError:
        return InputError(
            f"{str(self.path)!r} holds no rows to go on from: {reason}; "
            "delete the file to measure anew, or give another --json"
        )


def _is_header(line: str) -> bool:
    try:
        return isinstance(json.loads(line)["header"], dict)
    except (ValueError, KeyError, TypeError):
        return False


def _are_rows(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _dump(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"
