"""The HTTP contract of Label Studio's ML backends.

Source: Label Studio's own client, label_studio/ml/api_connector.py: health, setup, predict and
webhook; https://labelstud.io/guide/ml.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from ... import __version__
from ...models.embedding import ImageEmbedding
from ...models.errors import InputError
from ..service.answers import Answerer, Ranking
from ..service.http import make_app, read
from ..service.lane import Lane
from ..service.limits import MAX_WAITING
from .context import Context, name_masks, read_marks
from .images import TaskImages
from .labelling import Labelling, read_labelling
from .regions import regions

logger = logging.getLogger(__name__)

# Of one request; Label Studio sends its batches in smaller ones.
_MOST_TASKS = 1000
_NOTHING: dict[str, Any] = {"result": [], "score": 0}


class Setup(BaseModel):
    """What is read of a project that is connected."""

    schema_: str | None = Field(None, alias="schema")


class Event(BaseModel):
    """What is read of a webhook's event: nothing."""


class Task(BaseModel):
    """What is read of a task."""

    id: int | str | None = None
    data: dict[str, Any] = {}


class Params(BaseModel):
    """What is read of the parameters of a prediction."""

    context: Context | None = None


class Predict(BaseModel):
    """What is read of a request for predictions."""

    tasks: list[Task] = Field(max_length=_MOST_TASKS)
    label_config: str
    params: Params | None = None


def build_backend(
    answerer: Answerer,
    images: TaskImages,
    *,
    host: str = "127.0.0.1",
    allowed_hosts: Sequence[str] = (),
    ranking: Ranking | None = None,
) -> FastAPI:
    """Return the backend.

    Args:
        answerer: Finds masks.
        images: Fetches the images of tasks.
        host: Address that the server listens on.
        allowed_hosts: Further names under which Label Studio reaches it.
        ranking: Which masks are kept.
    """
    app = make_app("promptseg for Label Studio", host, allowed_hosts)
    lane = Lane(MAX_WAITING)
    version = f"promptseg-{__version__}-{answerer.preset}"
    predictor = _Predictor(answerer, ranking or Ranking())

    @app.get("/")
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell that predictions are made, and by what."""
        return {"status": "UP", "model_class": "promptseg", "model_version": version}

    @app.post("/setup")
    async def setup(request: Request) -> dict[str, str]:
        """Check a project's labelling configuration; its address and token are not used."""
        asked = await read(request, Setup)
        if asked.schema_:
            read_labelling(asked.schema_)
        return {"model_version": version}

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        """Return one entry for each task: by the user's marks, or else by the labels' names."""
        asked = await read(request, Predict)
        labelling = read_labelling(asked.label_config)
        context = asked.params.context if asked.params else None
        results = []
        for task in asked.tasks:
            try:
                source = _source(task, labelling)
                content = await anyio.to_thread.run_sync(images.fetch, source)

                def find(content: bytes = content) -> dict[str, Any]:
                    return predictor(content, labelling, context)

                entry = await lane.run(find, request.receive)
            except InputError as error:
                words = f"task {task.id}: {error}"
                logger.warning("%s", words)
                # Whoever waits for the answer to a mark is told by the status. Of an entry without
                # a result Label Studio stores no prediction, and it asks for it again later.
                if context is not None:
                    raise InputError(words) from error
                entry = {"error": words}
            results.append({**entry, "model_version": version})
        return {"results": results, "model_version": version}

    @app.post("/webhook", status_code=201)
    async def webhook(request: Request) -> dict[str, str]:
        """Take note of an event; nothing is trained."""
        await read(request, Event)
        return {"status": "nothing to do"}

    return app


class _Predictor:
    """Makes the prediction for one image.

    Args:
        answerer: Finds masks.
        ranking: Which masks are kept.
    """

    def __init__(self, answerer: Answerer, ranking: Ranking) -> None:
        self.answerer = answerer
        self.ranking = ranking

    def __call__(
        self, content: bytes, labelling: Labelling, context: Context | None
    ) -> dict[str, Any]:
        """Return the entry for an image; this runs in the lane's thread."""
        _, embedding = self.answerer.encode(content)
        if context is not None and context.result:
            return self._marked(embedding, labelling, context)
        if not labelling.labels:
            return _NOTHING
        query = self.answerer.query(list(labelling.labels))
        result = self.answerer.segment(embedding, query, self.ranking)
        names = [labelling.labels[phrase] for phrase in result.labels]
        return _entry(regions(result, names, labelling))

    def _marked(
        self, embedding: ImageEmbedding, labelling: Labelling, context: Context
    ) -> dict[str, Any]:
        marked = read_marks(context, embedding.original_size)
        if not (marked.texts or marked.boxes or 1 in marked.point_labels):
            return _NOTHING
        query = self.answerer.query(
            marked.texts or None,
            points=marked.points or None,
            point_labels=marked.point_labels or None,
            boxes=marked.boxes or None,
        )
        # Of a lone click only the best: there is no way to choose among whole and parts.
        top_k = self.ranking.top_k if query.finds else 1
        result = self.answerer.segment(embedding, query, Ranking(top_k=top_k))
        labels = list(dict.fromkeys(labelling.labels.values()))
        return _entry(regions(result, name_masks(result.labels, marked, labels), labelling))


def _entry(found: list[dict[str, Any]]) -> dict[str, Any]:
    if not found:
        return _NOTHING
    return {"result": found, "score": max(item["score"] for item in found)}


def _source(task: Task, labelling: Labelling) -> str:
    source = task.data.get(labelling.field)
    if not isinstance(source, str) or not source:
        raise InputError(f"its data has no image in the field {labelling.field!r}")
    return source
