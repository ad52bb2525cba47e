"""Serves the app with tiny models, asks it 300 times, and prints how much memory that added.

    python many_requests.py PORT

prints, in MB, what the process grew by from the 50th request to the 300th.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from promptseg.apps.web.folder import own_folder
from promptseg.models.pocket.sam import PocketSamConfig, build_pocket_sam
from promptseg.pipeline.decoding.segmenter import Segmenter
from promptseg.pipeline.pipeline import Pipeline

TINY = PocketSamConfig(image_size=96, embed_dim=16, neck_depth=1, high_res_dims=(8, 4), num_heads=2)
FIRST, ALL, USERS, PICTURES = 50, 300, 5, 6


def memory() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (240, 320, 3), np.uint8)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def main(port: int) -> None:
    torch.manual_seed(0)
    pipeline = Pipeline(Segmenter(build_pocket_sam(TINY)))
    with own_folder():
        import httpx

        from promptseg.apps.web.engine import Engine
        from promptseg.apps.web.server import build_app, serve

        page = build_app(engine=Engine(10**6, lambda preset, *, device: pipeline))
        ready = threading.Event()
        options = {"host": "127.0.0.1", "port": port, "started": lambda url: ready.set()}
        server = threading.Thread(target=serve, args=(page,), kwargs=options)
        server.start()
        ready.wait()
        api = f"http://127.0.0.1:{port}/gradio_api"
        client = httpx.Client(timeout=120)

        def upload(seed: int) -> dict[str, Any]:
            files = {"files": (f"{seed}.png", picture(seed))}
            path = client.post(f"{api}/upload", files=files).raise_for_status().json()[0]
            return {"path": path, "meta": {"_type": "gradio.FileData"}}

        uploads = [upload(seed) for seed in range(PICTURES)]

        def ask(i: int) -> None:
            data = [uploads[i % PICTURES], [[i, i % 200]], None, None]
            data += [0, 0, "coco" if i % 10 == 0 else "", "pocket", "cpu"]
            sent = client.post(f"{api}/call/segment_points", json={"data": data})
            event = sent.raise_for_status().json()["event_id"]
            text = client.get(f"{api}/call/segment_points/{event}").text
            assert "event: complete" in text, text

        with ThreadPoolExecutor(USERS) as users:
            list(users.map(ask, range(FIRST)))
            before = memory()
            list(users.map(ask, range(FIRST, ALL)))
            grown = memory() - before
        page.close(verbose=False)
        server.join()
    sys.stdout.write(f"{grown:.1f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
