"""What the command says and asks, with a worker in this process in place of Ray's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from promptseg.apps.batch import run as run_module
from promptseg.apps.batch.cluster import Cluster
from promptseg.apps.batch.store import Store
from promptseg.apps.batch.work import Work
from promptseg.apps.batch.worker import Worker
from promptseg.apps.cli.main import app
from promptseg.pipeline import Pipeline

from .conftest import BROKEN, GOOD, SIZE


@pytest.fixture
def ran(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Work, Cluster, int]]:
    """What each run did; a worker in this process writes what Ray would."""
    monkeypatch.setattr("promptseg.pipeline.presets.load.load", lambda **_: pipe)
    done: list[tuple[Work, Cluster, int]] = []

    def run(left: Any, total: int, work: Work, cluster: Cluster, store: Store, progress: Any):
        done.append((work, cluster, left.num_rows))
        found = Worker(work)(left)
        for folder, table in ((store.results, found), (store.checkpoint, left.select(["id"]))):
            Path(folder).mkdir(exist_ok=True)
            pq.write_table(table, f"{folder}/{len(done)}.parquet")
        progress(store.done(), total)

    monkeypatch.setattr(run_module, "_run", run)
    return done


def test_a_run_and_what_it_says(
    ran: list[tuple[Work, Cluster, int]], pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "masks"
    words = ["batch", str(pictures), "--out", str(out), "-t", "cat", "--negative", "dog"]
    words += ["--top-k", "2", "--workers", "3", "--batch-size", "4", "--max-pixels", "20000"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    first, *rest = done.stdout.splitlines()
    summary = json.loads((out / "summary.json").read_text())
    assert first.startswith(
        f"{GOOD + BROKEN} images: {summary['with_masks']} with masks, "
        f"{summary['nothing_found']} with nothing found, {BROKEN} failed; {GOOD + BROKEN} now, "
    )
    assert [line.partition(":")[0] for line in rest[:BROKEN]] == [
        "broken1.png",
        "broken2.jpg",
        "broken3.png",
    ]
    assert rest[BROKEN:] == [f"written to {out}"]
    assert done.stderr == ""
    ((work, cluster, images),) = ran
    assert (work.query.text, work.query.negative_text) == (("cat",), ("dog",))
    assert work.ranking == {"top_k": 2, "min_score": None, "no_overlap": None}
    assert work.max_pixels == 20_000
    assert (cluster.workers, cluster.batch_size, images) == (3, 4, GOOD + BROKEN)

    again = CliRunner().invoke(app, words)
    assert again.stdout.splitlines()[0] == first.partition(";")[0]
    assert len(ran) == 1
    other = CliRunner().invoke(app, [*words, "-t", "bird"])
    assert other.exit_code == 2
    assert 'another text: ["cat"], not ["cat", "bird"]' in other.stderr


def test_tiles_are_part_of_what_is_asked(
    ran: list[tuple[Work, Cluster, int]], pictures: Path, tmp_path: Path
) -> None:
    words = ["batch", str(pictures / "05.png"), "--out", str(tmp_path / "masks"), "-t", "cat"]
    done = CliRunner().invoke(app, [*words, "--tiles", "64x80"])
    assert done.exit_code == 0, done.output
    assert ran[0][0].tiles == (64, 80)
    other = CliRunner().invoke(app, [*words, "--tiles", "auto"])
    assert other.exit_code == 2
    assert 'another tiles: [64, 80], not "auto"' in other.stderr
    assert "--tiles: 'many' is not auto" in CliRunner().invoke(
        app, [*words, "--tiles", "many"]
    ).stderr.replace("\n", " ")


def test_a_source_that_has_grown(
    ran: list[tuple[Work, Cluster, int]], pictures: Path, tmp_path: Path
) -> None:
    """Only what is new is segmented; the examples of the command are the same as from Python."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.open(pictures / "05.png").save(folder / "a.png")
    mask = np.zeros(SIZE, np.uint8)
    mask[4:20, 20:70] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["batch", str(folder), "--out", str(tmp_path / "out")]
    words += ["--reference", str(pictures / "05.png"), "--reference-mask"]
    words += [str(tmp_path / "mask.png"), "--reference-label", "cat"]
    assert CliRunner().invoke(app, words).exit_code == 0
    Image.open(pictures / "06.png").save(folder / "b.png")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("2 images: ")
    assert "; 1 now, " in done.stdout
    assert [images for _, _, images in ran] == [1, 1]
    (reference,) = ran[0][0].query.reference
    assert reference.label == "cat"
    run = json.loads((tmp_path / "out" / "run.json").read_text())["promptseg_batch"]
    assert run["labels"] == ["cat"]
