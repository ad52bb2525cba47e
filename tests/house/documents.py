"""Reading the project's texts: their pages, code, commands and links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"!?\[[^\]]*\]\((?!\w+:)([^)\s]+)\)")
# What lies in these folders, in hidden ones and in environments is not the project's.
_LEFT_OUT = {"outputs", "runs", "build", "dist", "promptseg-output"}


def pages() -> list[str]:
    """Every text of the project, by its path."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(
        path.as_posix()
        for path in found
        if not any(part.startswith(".") or part in _LEFT_OUT for part in path.parts)
    )


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^ {4}[^\n]*$|^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """Arguments of each `promptseg` command in a block, indented or fenced, without comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    indented = re.sub(
        r"^```\w*\n(.*?)^```",
        lambda found: re.sub("^", "    ", found[1], flags=re.MULTILINE),
        joined,
        flags=re.DOTALL | re.MULTILINE,
    )
    lines = re.findall(r"^ {4}(promptseg .*)$", indented, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a text."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
