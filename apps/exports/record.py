"""The record of a result, as `promptseg segment --json` prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..console import printable
from .base import Exporter, stem

if TYPE_CHECKING:
    from ...pipeline.checks import UInt8Array
    from ...pipeline.result import Result


class JsonExporter(Exporter):
    """Writes IMAGE.json: the image's name and `Result.to_dict`, which leaves nothing out."""

    name = "json"

    @classmethod
    def outputs(cls, name: str) -> list[str]:
        return [f"{stem(name)}.json"]

    def add(self, name: str, image: UInt8Array | None, result: Result) -> list[str]:
        record = {"image": printable(name), **result.to_dict()}
        content = json.dumps(record, indent=2, allow_nan=False) + "\n"
        self.files.write(self._path(name), content.encode(), self.source(name))
        return []

    def has(self, name: str) -> bool:
        return self._path(name).is_file()

    def _path(self, name: str) -> Path:
        return self.folder / self.outputs(name)[0]
