"""Ask `promptseg serve http` by many clients at once and check every answer.

    python benchmarks/serve_load.py [--clients 10] [--seconds 60] [--pictures 12]

Starts the server with the preset pocket on a free port. Each client asks, without a pause, whatever
comes next of a random list: phrases, clicks, boxes, an example, everything, by a picture's file and
by the id of an encoded one, in several formats; requests with an error in them; and requests whose
connection is closed before the answer. Every picture is another one, and every answer is compared
with what the Python interface finds in it: the same labels, and the same masks to the pixel.
Printed are the requests, their times, and the server's memory. The exit code is 1 if an answer was
wrong, the server refused a valid request, or its memory grew by more than the limit after every
question had been asked once.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from PIL import Image

from promptseg.apps.threads import set_up_threads

if TYPE_CHECKING:
    from promptseg import Pipeline

EXAMPLES = Path(__file__).resolve().parents[1] / "apps" / "web" / "examples"
LONGEST = 320
# In MB; allocators keep some of what was freed.
MAX_GROWTH = 150.0


@dataclass(frozen=True)
class Question:
    """What is asked and what the answer must be.

    Attributes:
        path: The endpoint.
        data: Fields of the request but for the picture.
        image: The picture's file.
        status: Of the answer.
        masks: Labels and run lengths of the masks, best first; None if they are not compared.
        files: Further files of the form.
    """

    path: str
    data: Mapping[str, Any]
    image: bytes
    status: int = 200
    masks: tuple[tuple[str, str], ...] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Tally:
    """What happened; shared by the clients.

    Attributes:
        seconds: Times of the answers.
        kinds: How many there were of each status.
        wrong: What was wrong, one line each.
    """

    seconds: list[float] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Parse the arguments, run the load and print what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pictures", type=int, default=12)
    options = parser.parse_args()
    set_up_threads(os.environ)
    import promptseg

    questions = make_questions(promptseg.load("pocket"), options.pictures)
    process, url = start_server(embeddings=(options.pictures + 1) // 2)
    try:
        tally, memory = run_load(url, process.pid, questions, options.clients, options.seconds)
    finally:
        code = stop_server(process)
    times = np.sort(tally.seconds)
    kinds = ", ".join(f"{number} x {kind}" for kind, number in sorted(tally.kinds.items()))
    print(f"{options.clients} clients, {options.seconds:g} s: {kinds}")
    print(
        f"{len(times) / options.seconds:.1f} answers a second; median {np.median(times):.2f} s, "
        f"95% within {np.quantile(times, 0.95):.2f} s"
    )
    first, settled, *during = memory
    growth = max(during) - settled
    print(
        f"memory: {first:.0f} MB at first, {settled:.0f} MB when all had been asked once, then at "
        f"most {max(during):.0f} MB"
    )
    print(f"wrong answers: {len(tally.wrong)}; the server's exit code: {code}")
    for line in tally.wrong[:10]:
        print(f"  {line}")
    return int(bool(tally.wrong) or growth > MAX_GROWTH or code != 0)


def make_questions(pipe: Pipeline, pictures: int) -> list[Question]:
    """Return questions with the answers of the Python interface."""
    from promptseg import Reference

    questions = []
    for number in range(pictures):
        content = make_picture(number)
        embedding = pipe.encode_image(content)
        height, width = embedding.original_size
        x, y = width // 2, height // 2
        box = [[width // 6, height // 6, width - width // 6, height - height // 6]]
        example = Reference(content, box=box[0], label="it")
        results = {
            "text": pipe(embedding, ["cat", "rocket", "person"]),
            "point": pipe(embedding, points=[(x, y), (1, 1)], point_labels=[1, 0]),
            "box": pipe(embedding, boxes=box),
            "reference": pipe(embedding, reference=example),
            "everything": pipe.everything(embedding, points_per_side=3),
        }
        asked: dict[str, dict[str, Any]] = {
            "text": {"text": ["cat", "rocket, person"]},
            "point": {"points": [[x, y], [1, 1]], "point_labels": [1, 0]},
            "box": {"boxes": box},
            "reference": {"reference_box": box[0], "reference_label": "it"},
            "everything": {"points_per_side": 3},
        }
        for kind, result in results.items():
            path = "/everything" if kind == "everything" else "/segment"
            files = {"reference": content} if kind == "reference" else {}
            masks = tuple(
                (label, mask.to_rle()["counts"])
                for label, mask in zip(result.labels, result.compact_masks, strict=True)
            )
            questions.append(Question(path, asked[kind], content, masks=masks, files=files))
        for shown in ("coco", "png", "overlay"):
            questions.append(Question("/segment", {**asked["box"], "format": shown}, content))
        for wrong in ({"points": [[1, 2, 3]]}, {"text": ["cat"], "top_k": -1}, {}):
            questions.append(Question("/segment", wrong, content, status=422))
    return questions


def make_picture(number: int) -> bytes:
    """Return one of the app's examples, cut and turned in a way of its own, as a JPEG."""
    rng = random.Random(number)
    paths = sorted(EXAMPLES.glob("*.jpg"))
    with Image.open(paths[number % len(paths)]) as photograph:
        photograph.thumbnail((LONGEST, LONGEST))
        corner = rng.randrange(1, 30), rng.randrange(1, 30)
        image = photograph.crop((*corner, photograph.width, photograph.height))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    content = io.BytesIO()
    image.convert("RGB").save(content, "JPEG")
    return content.getvalue()


def start_server(embeddings: int) -> tuple[subprocess.Popen[str], str]:
    """Start the server; return it and its address."""
    command = [sys.executable, "-m", "promptseg", "serve", "http", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--embeddings", str(embeddings)], stderr=subprocess.PIPE, text=True
    )
    told = []
    for line in process.stderr or ():
        told.append(line)
        found = re.search(r"serving (http://\S+)", line)
        if found:
            return process, found[1]
    stop_server(process)
    raise SystemExit(f"the server did not start: {''.join(told)}")


def stop_server(process: subprocess.Popen[str]) -> int:
    """Stop the server as a service manager does, show what it told, and return its exit code."""
    process.terminate()
    _, told = process.communicate(timeout=60)
    sys.stderr.write(told)
    return process.returncode


def run_load(
    url: str, pid: int, questions: Sequence[Question], clients: int, seconds: float
) -> tuple[Tally, list[float]]:
    """Ask for some seconds; return what happened, and the server's memory in MB over time.

    The first figure is from before all questions, the second from when each had been asked once.
    """
    tally, warm_up = Tally(), Tally()
    memory = [resident(pid)]
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        for question in questions:
            ask(client, question, False, {}, warm_up)
    tally.wrong += warm_up.wrong
    memory.append(resident(pid))
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=ask_on, args=(url, questions, seed, until, tally))
        for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        time.sleep(0.25)
        memory.append(resident(pid))
    for thread in threads:
        thread.join()
    with httpx.Client(base_url=url, trust_env=False) as client:
        kept = client.get("/health").json()["embeddings"]
    if kept["count"] > kept["most"] or kept["bytes"] > kept["most_bytes"]:
        tally.wrong.append(f"more is kept than may be: {kept}")
    return tally, [*memory, resident(pid)]


def resident(pid: int) -> float:
    """Return the memory of a process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def ask_on(url: str, questions: Sequence[Question], seed: int, until: float, tally: Tally) -> None:
    """Be a client until the time is over."""
    rng = random.Random(seed)
    names: dict[bytes, str] = {}
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        while time.monotonic() < until:
            question = rng.choice(questions)
            try:
                if rng.random() < 0.05:
                    leave(client, question, tally)
                else:
                    ask(client, question, rng.random() < 0.5, names, tally)
            except Exception as error:  # a client that ends must not look like success
                tally.wrong.append(f"{question.path}: {type(error).__name__}: {error}")


def leave(client: httpx.Client, question: Question, tally: Tally) -> None:
    """Ask, and close the connection soon after."""
    try:
        files = {"image": question.image, **question.files}
        client.post(question.path, data=as_form(question.data), files=files, timeout=0.05)
    except httpx.TimeoutException:
        tally.kinds["left"] += 1


def ask(
    client: httpx.Client, question: Question, by_name: bool, names: dict[bytes, str], tally: Tally
) -> None:
    """Ask and compare."""
    data = question.data
    by_name = by_name and question.image in names
    start = time.monotonic()
    if by_name:
        fields = {name: base64.b64encode(file).decode() for name, file in question.files.items()}
        fields["embedding"] = names[question.image]
        answer = client.post(question.path, json={**data, **fields})
    else:
        parts = {"image": question.image, **question.files}
        answer = client.post(question.path, data=as_form(data), files=parts)
    if answer.status_code == 404 and by_name:  # others had more recent pictures
        tally.kinds["404 of an old id"] += 1
        names.pop(question.image, None)
        return
    tally.seconds.append(time.monotonic() - start)
    tally.kinds[str(answer.status_code)] += 1
    if answer.status_code != question.status:
        tally.wrong.append(f"{question.path} {data}: {answer.status_code} {answer.text[:200]}")
    elif question.status != 200:
        if answer.json()["error"]["code"] != "bad_input":
            tally.wrong.append(f"{data}: {answer.text[:200]}")
    elif question.masks is not None:
        record = answer.json()
        names[question.image] = record["embedding"]
        found = tuple((m["label"], m["segmentation"]["counts"]) for m in record["masks"])
        if found != question.masks:
            tally.wrong.append(f"{question.path} {data}: other masks than in Python")
    elif not answer.content:
        tally.wrong.append(f"{question.path} {data}: an empty file")


def as_form(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request as a form has them."""
    return {
        name: value if name in ("text", "format", "reference_label") else json.dumps(value)
        for name, value in data.items()
    }


if __name__ == "__main__":
    raise SystemExit(main())
