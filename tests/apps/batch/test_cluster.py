"""Batches on a real Ray cluster of three nodes: machines and workers that die, runs that stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from promptseg import batch
from promptseg.apps.batch.cluster import ENVIRONMENT
from promptseg.apps.batch.rows import fields_of
from promptseg.apps.batch.sources import read_source
from promptseg.apps.cli.main import app
from promptseg.models.errors import InputError, PromptsegError
from promptseg.pipeline import Pipeline

# What Ray and what it brings do when they are imported, started and stopped.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

NODE = {"num_cpus": 1, "memory": 3 * 10**9, "object_store_memory": 80 * 2**20}
SMALL = {"batch_size": 5, "shard_rows": 10, "memory_gb": 1.0}


@pytest.fixture(scope="module")
def head() -> Iterator[Any]:
    """A cluster of one node, without a place for a worker, to which this process is connected."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.cluster_utils import Cluster

    node = {**NODE, "memory": 5 * 10**8, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=node)
    import ray

    ray.init(address=started.address, log_to_driver=False)
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture
def cluster(head: Any) -> Any:
    """Three nodes: the head, and two with a place for one worker each, whatever died before."""
    import ray

    while sum(node["Alive"] for node in ray.nodes()) < 3:
        head.add_node(**NODE)
    return head


@pytest.fixture(scope="module")
def expected(pictures: Path, pipe: Pipeline) -> dict[str, dict[str, Any] | None]:
    """What one process finds in each picture, one after the other; None for a broken one."""
    found: dict[str, dict[str, Any] | None] = {}
    for uri in read_source(pictures)["uri"].to_pylist():
        try:
            found[uri] = fields_of(pipe(uri, "cat"))
        except InputError:
            found[uri] = None
    return found


def write_manifest(path: Path, uris: list[str], number: int) -> list[str]:
    """Write a manifest of so many ids, on the same pictures by turns; return the ids."""
    ids = [f"row-{i:03d}" for i in range(number)]
    pq.write_table(pa.table({"id": ids, "uri": [uris[i % len(uris)] for i in range(number)]}), path)
    return ids


def check(out: Path, ids: list[str], expected: dict[str, dict[str, Any] | None]) -> None:
    """Every id is there once, and equal to the byte to what one process finds."""
    rows = ds.dataset(out / "results", format="parquet").to_table().sort_by("id").to_pylist()
    assert [row["id"] for row in rows] == ids
    for row in rows:
        wanted = expected[row["uri"]]
        assert (row["error"] is None) == (wanted is not None)
        if wanted is not None:
            assert json.dumps({key: row[key] for key in wanted}) == json.dumps(wanted)


def workers_of(cluster: Any) -> dict[int, int]:
    """The process of each worker of a batch, and that of its node."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if b"MapBatches(Worker)" not in (entry / "cmdline").read_bytes():
                continue
            parent = int((entry / "stat").read_text().rpartition(") ")[2].split()[1])
            if cluster.address.encode() in Path(f"/proc/{parent}/cmdline").read_bytes():
                found[int(entry.name)] = parent
        except (OSError, ValueError):
            continue
    return found


class Misfortune:
    """Kills a node when a third is done, and a worker of another one when two thirds are."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.killed_node = self.killed_worker = False

    def __call__(self, done: int, total: int) -> None:
        if not self.killed_node and done >= total / 3:
            nodes = {
                node.all_processes["raylet"][0].process.pid: node
                for node in self.cluster.worker_nodes
            }
            for raylet in workers_of(self.cluster).values():
                if raylet in nodes and not self.killed_node:
                    self.cluster.remove_node(nodes[raylet], allow_graceful=False)
                    self.killed_node = True
        elif self.killed_node and not self.killed_worker and done >= total * 2 / 3:
            for worker in workers_of(self.cluster):
                os.kill(worker, signal.SIGKILL)
                self.killed_worker = True
                break


def test_a_run_that_is_killed_continues(
    cluster: Any, pictures: Path, expected: dict[str, dict[str, Any] | None], tmp_path: Path
) -> None:
    """The command, killed in the middle of it, and the same from Python."""
    ids = write_manifest(tmp_path / "rows.parquet", list(expected), 60)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "promptseg.apps.cli.main", "batch", "-t", "cat"]
    command += [str(tmp_path / "rows.parquet"), "--out", str(out), "--address", cluster.address]
    command += ["--batch-size", "5", "--shard-rows", "10", "--memory-gb", "1"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    checkpoint = out / "checkpoint"
    while started.poll() is None and len(list(checkpoint.glob("*.parquet"))) < 3:
        time.sleep(0.2)
    assert started.poll() is None, started.communicate()
    started.kill()
    started.communicate()
    told: list[int] = []
    summary = batch.segment(
        tmp_path / "rows.parquet",
        out,
        "cat",
        cluster=batch.Cluster(**SMALL),
        progress=lambda done, total: told.append(done),
    )
    check(out, ids, expected)
    assert 0 < summary.segmented < 60
    assert (summary.images, summary.failed) == (60, 6)
    assert told[0] >= 20
    assert told[-1] == 60
    assert told == sorted(told)
    again = batch.segment(tmp_path / "rows.parquet", out, "cat", cluster=batch.Cluster(**SMALL))
    assert again.segmented == 0
    assert (again.images, again.with_masks) == (summary.images, summary.with_masks)
    words = ["batch", str(tmp_path / "rows.parquet"), "--out", str(out), "-t", "cat"]
    told_again = CliRunner().invoke(app, words)
    assert told_again.exit_code == 1
    assert f"60 images: {summary.with_masks} with masks" in told_again.stdout
    assert ", 6 failed\n" in told_again.stdout
    assert "... and 1 more, in the column error" in told_again.stdout
    with pytest.raises(InputError, match=r'another text: \["cat"\], not \["dog"\]'):
        batch.segment(tmp_path / "rows.parquet", out, "dog")


def test_a_node_and_a_worker_die(
    cluster: Any, pictures: Path, expected: dict[str, dict[str, Any] | None], tmp_path: Path
) -> None:
    """300 images of which 30 are broken."""
    ids = write_manifest(tmp_path / "rows.parquet", list(expected), 300)
    misfortune = Misfortune(cluster)
    summary = batch.segment(
        tmp_path / "rows.parquet",
        tmp_path / "out",
        "cat",
        cluster=batch.Cluster(**SMALL),
        progress=misfortune,
    )
    assert misfortune.killed_node
    assert misfortune.killed_worker
    check(tmp_path / "out", ids, expected)
    assert (summary.images, summary.failed, summary.segmented) == (300, 30, 300)
    assert len(summary.failures) == 20
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["failed"] == 30


def test_the_documented_code_runs(
    cluster: Any, repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What docs/scale.md shows."""
    monkeypatch.chdir(tmp_path)
    cat = Image.fromarray(data.chelsea())
    cat.save("photo.jpg")
    (tmp_path / "photos").mkdir()
    cat.save("photos/good.jpg")
    (tmp_path / "photos" / "broken.jpg").write_text("no picture")
    monkeypatch.setattr("promptseg.apps.batch.run.Cluster", lambda: batch.Cluster(**SMALL))
    names: dict[str, Any] = {}
    text = (repo_root / "docs" / "scale.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/scale.md", "exec"), names)
    summary = names["summary"]
    assert (summary.images, summary.with_masks, summary.failed) == (2, 1, 1)
    assert names["row"]["id"] in ("good.jpg", "broken.jpg")
    assert (tmp_path / "dataset" / "labels" / "good.txt").read_text()
    assert list((tmp_path / "encoded").glob("*.safetensors"))
    assert names["result"].image_size == (300, 451)


def test_what_no_node_has_is_told_at_once(cluster: Any, pictures: Path, tmp_path: Path) -> None:
    for wrong, message in (
        ({"memory_gb": 50}, r"needs 50\.0 GB of memory, and the largest node has 3\.0 GB"),
        ({"gpus_per_worker": 1}, "needs 1 GPU, and no node has more than 0"),
        ({"cpus_per_worker": 8}, "CPU, and no node has more than 1"),
    ):
        given = batch.Cluster(**{"memory_gb": 1.0, **wrong})
        with pytest.raises(InputError, match=message):
            batch.segment(pictures, tmp_path / "out", "cat", cluster=given)


def test_weights_that_workers_lack_are_told(
    cluster: Any, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = batch.Cluster(**SMALL)
    with pytest.raises(PromptsegError, match="promptseg models fetch mobile"):
        batch.segment(
            pictures, tmp_path / "out", "cat", preset="mobile", weights="/nowhere", cluster=given
        )
