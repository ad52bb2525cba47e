"""The notebooks in examples/ run from their first cell to their last, and show pictures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from .documents import ROOT, read

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# Seconds a cell may take.
_TIMEOUT = 300
# What each notebook must have made, told by its own kernel after its last cell.
MADE = {
    "clicks": "panel.children[0].value = 300\nassert len(panel.result) == 1",
    "evaluation": "assert 0.5 < figures['mIoU'] <= 1\n"
    "assert '<svg' in Path('report.html').read_text()",
    "example": "assert result.labels == ['my cat']",
    "folder": "assert results['chelsea.jpg'].labels == ['cat']\nassert len(results) == 3",
    "text": "assert result.labels == ['cat']",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One kernel for all notebooks, so that torch is imported once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter's own about its folders and event loops
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient
        from nbclient.util import run_sync

        folder = tmp_path_factory.mktemp("notebooks")
        manager = AsyncKernelManager(kernel_name="python3")

        def run(notebook: nbformat.NotebookNode) -> None:
            client = NotebookClient(
                notebook,
                km=manager,
                timeout=_TIMEOUT,
                allow_errors=False,
                resources={"metadata": {"path": str(folder)}},
            )
            # What a widget shows then comes out of its cell, as plain output does; its own output
            # goes over the socket of the replies, and nbclient may wait for one in vain.
            client.comm_open_handlers = {}
            with client.setup_kernel(cleanup_kc=False, env=os.environ | {"MPLBACKEND": "agg"}):
                for index, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, index)
                client.kc.stop_channels()

        yield run
        run_sync(manager.shutdown_kernel)(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, kernel: Any) -> None:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    notebook.cells.append(nbformat.v4.new_code_cell(MADE[path.stem]))
    kernel(notebook)
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out.output_type == "error"]
    pages = "".join(str(out.get("data", {}).get("text/html", "")) for out in outputs)
    pictures = pages.count("data:image/png;base64,")
    assert pictures >= 2 or path.stem == "evaluation"


def test_every_notebook_is_stored_bare_and_told_of() -> None:
    """Without outputs, which would be stale and large."""
    assert {path.stem for path in NOTEBOOKS} == set(MADE)
    page = read("docs/notebooks.md")
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        for cell in notebook.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
        assert f"(../examples/{path.name})" in page
