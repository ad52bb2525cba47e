"""What needs no Ray to be running: options, the folder of results, a base install without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from promptseg import batch
from promptseg.apps.batch.cluster import Cluster, connected
from promptseg.apps.batch.store import Store
from promptseg.apps.cli.batch_progress import describe_progress
from promptseg.apps.cli.main import app
from promptseg.models.errors import InputError, PromptsegError

# Neither Ray nor Arrow, and no torch before the options are understood.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "pyarrow"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in ("ray", "pyarrow") else real(name)
from promptseg.apps.cli.main import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    "words", [["photos", "--out", "o", "-t", "cat"], ["export", "o", "--format", "coco"]]
)
def test_without_ray_the_remedy_is_told(words: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "batch", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: batches need Ray Data; run: pip install 'promptseg[ray]'\n"
    assert done.stdout == "False\n"
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing", "-t", "cat"], "'missing' does not exist"),
        (["."], "say what to look for"),
        ([".", "-t", "cat"], "holds no images"),
        ([".", "-t", "cat", "--preset", "none"], "no preset is called 'none'"),
        ([".", "-t", "cat", "--dtype", "fp8"], "no dtype 'fp8'"),
        ([".", "-t", "cat", "--memory-gb", "-1"], "memory_gb must be positive"),
        ([".", "--concept", "mug"], "does not exist"),
        ([".", "-t", "not a dog"], "negative"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "say" in message:
        (tmp_path / "a.jpg").write_bytes(b"x")
    done = CliRunner().invoke(app, ["batch", *words, "--out", "out"])
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_and_options_are_those_of_the_run() -> None:
    shown = CliRunner().invoke(app, ["batch", "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "--gpus-per-worker" in shown.stdout
    assert CliRunner().invoke(app, ["batch", "photos", "--nonsense"]).exit_code == 2
    assert "--simplify" in CliRunner().invoke(app, ["batch", "export", "--help"]).stdout


def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not of a batch"):
        Store(tmp_path).begin({"text": ["cat"]})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="not of a batch"):
        Store(tmp_path).begin({"text": ["cat"]})
    with pytest.raises(InputError, match="holds no batch"):
        batch.export(tmp_path / "nothing", tmp_path / "to")


def test_a_folder_by_another_file_system_is_kept_in_the_same_way(tmp_path: Path) -> None:
    store = Store(f"local://{tmp_path}/out")
    store.begin({"text": ["cat"], "pair": (1, 2)})
    Store(f"{tmp_path}/out").begin({"text": ["dog"]})  # nothing is done yet
    Store(f"{tmp_path}/out").begin({"text": ["cat"], "pair": (1, 2)})
    (tmp_path / "out" / "checkpoint").mkdir()
    ids = pa.table({"id": ["a", "b"]})
    pq.write_table(ids, tmp_path / "out" / "checkpoint" / "x.parquet")
    pq.write_table(ids, tmp_path / "out" / "checkpoint" / "y.pending.parquet")
    Store(f"{tmp_path}/out").begin({"text": ["cat"], "pair": (1, 2)})
    with pytest.raises(InputError, match=r"another pair: \[1, 2\], not \[1, 3\]"):
        Store(f"{tmp_path}/out").begin({"text": ["cat"], "pair": (1, 3)})
    assert store.asked()["text"] == ["cat"]
    assert store.done() == 2
    assert store.done_ids().to_pylist() == ["a", "b"]
    with pytest.raises(InputError, match="no results"):
        store.dataset()


def test_sizes_of_a_cluster() -> None:
    cluster = Cluster(batch_size=8)
    assert cluster.rows_at_once(300, 3) == 8
    assert cluster.rows_at_once(10_000, 3) == 209
    assert cluster.rows_at_once(10**6, 3) == 256
    assert Cluster(shard_rows=7).rows_at_once(10**6, 3) == 7
    assert Cluster(memory_gb=2).memory("pocket", 10**9) == 2 * 10**9
    assert cluster.memory("large", 10**8) > cluster.memory("pocket", 10**8) == 2 * 10**9
    for wrong in ({"workers": 0}, {"gpus_per_worker": -1.0}, {"memory_gb": 0.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Cluster(**wrong)


def test_progress_in_a_log() -> None:
    assert describe_progress(5, 100, 0, 0.0) == "5 of 100 images"
    told = describe_progress(1200, 5000, 200, 20.0)
    assert told == "1200 of 5000 images, 10.0 a second, 7 min left"
    assert describe_progress(1, 10**5, 1, 1.0).endswith("1.0 a second, 27 h 47 min left")
    assert describe_progress(2, 4, 2, 50.0) == "2 of 4 images, 25.0 s an image, 1 min left"


@pytest.mark.parametrize(
    ("address", "raised", "message"),
    [
        (None, Exception("The node timed out\n during startup."), "does not start on this machine"),
        ("auto", ConnectionError("nobody there"), r"no Ray cluster at 'auto' \(nobody there\)"),
    ],
)
def test_a_ray_that_cannot_be_used_is_told(
    address: str | None, raised: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**_: object) -> None:
        raise raised

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(PromptsegError, match=message), connected(Cluster(address)):
        pass
