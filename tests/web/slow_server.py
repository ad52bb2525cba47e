"""Serves the app with a pipeline that takes minutes, and says when its work starts and stops."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from promptseg.apps.web.folder import own_folder
from promptseg.models.embedding import ImageEmbedding, ImageFeatures
from promptseg.pipeline.proposals import Proposals
from promptseg.pipeline.query import Query
from promptseg.pipeline.result import Result
from promptseg.pipeline.scoring.ranking import RankingConfig, rank

SECONDS = 120.0


class SlowPipeline:
    """Answers the phrase "quick" at once, and works for minutes on anything else."""

    def encode_image(self, image: np.ndarray) -> ImageEmbedding:
        size = image.shape[0], image.shape[1]
        return ImageEmbedding(ImageFeatures(torch.zeros(1)), size, size, image=image)

    def propose(self, embedding: ImageEmbedding, query: Query) -> Proposals:
        if query.text != ("quick",):
            work(lambda: torch.zeros(1))
        masks = np.ones((1, *embedding.original_size), bool)
        one = np.ones(1, np.float32)
        return Proposals.of(masks, ["quick"], one, one, one)

    def propose_everything(
        self, embedding: ImageEmbedding, *, progress: Callable[[int, int], None], **options: Any
    ) -> Proposals:
        work(lambda: progress(1, 100))
        raise AssertionError("nobody waits so long")

    def rank(self, proposals: Proposals, **options: Any) -> Result:
        return rank(proposals, RankingConfig())


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def work(step: Callable[[], object]) -> None:
    say("work starts")
    until = time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            step()
            time.sleep(0.02)
    finally:
        say("work stops")


def main(port: int) -> None:
    with own_folder():
        from promptseg.apps.web import asker
        from promptseg.apps.web.engine import Engine
        from promptseg.apps.web.server import build_app, serve

        asker.GRACE_SECONDS = 3.0
        page = build_app(engine=Engine(10**6, lambda preset, *, device: SlowPipeline()))
        serve(page, host="127.0.0.1", port=port, started=lambda url: say(f"open {url}"))


if __name__ == "__main__":
    main(int(sys.argv[1]))
