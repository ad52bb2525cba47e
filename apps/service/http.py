"""The HTTP service: pictures in, masks out, for programs; see docs/serve.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response

from ... import __version__
from ...models.embedding import ImageEmbedding
from ...pipeline.result import Result
from . import limits
from .answers import Answerer, Example, Ranking, UnknownEmbeddingError
from .bodies import RefusedBody, read_json
from .cache import embedding_bytes
from .errors import add_error_handlers
from .gate import Gate
from .lane import Lane
from .render import render
from .schemas import (
    FORMAT_NAMES,
    EmbeddingAnswer,
    EmbeddingRequest,
    ErrorAnswer,
    EverythingRequest,
    Health,
    PictureRequest,
    RankedRequest,
    Record,
    SegmentRequest,
    Usage,
    from_form,
)

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

# Fields of a form, and characters of one that is no file.
_MOST_FIELDS = 200
_MOST_PART = 2**20
_NEITHER = (
    "send a form (Content-Type: multipart/form-data) or JSON (Content-Type: application/json), as "
    "/openapi.json describes"
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 403, 404, 408, 413, 415, 422, 500, 503)
}


def make_app(title: str, host: str, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """Return an app without routes that answers only its own hosts, and errors as JSON.

    Args:
        title: For the OpenAPI document.
        host: Address that the server listens on.
        allowed_hosts: Further names under which it is reached.
    """
    app = FastAPI(
        title=title,
        version=__version__,
        # Their pages load scripts from other servers; /openapi.json is there.
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Gate, host=host, allowed=allowed_hosts)],
    )
    add_error_handlers(app)
    return app


def build_service(
    answerer: Answerer, *, host: str = "127.0.0.1", allowed_hosts: Sequence[str] = ()
) -> FastAPI:
    """Return the HTTP service.

    Args:
        answerer: Answers all requests.
        host: Address that the server listens on.
        allowed_hosts: Further names under which it is reached.
    """
    app = make_app("promptseg", host, allowed_hosts)
    lane = Lane(limits.MAX_WAITING)
    _add_questions(app, answerer, lane)
    _add_embeddings(app, answerer, lane)
    _add_facts(app, answerer, lane)
    return app


def _add_questions(app: FastAPI, answerer: Answerer, lane: Lane) -> None:
    @app.post("/segment", response_model=None, **_described(SegmentRequest, Record))
    async def segment(request: Request) -> Response:
        """Find what phrases, a reference, points or boxes name, show or mark in a picture."""
        asked = await read(request, SegmentRequest)

        def find(embedding: ImageEmbedding) -> Result:
            example = None
            if asked.reference is not None:
                example = Example(
                    asked.reference,
                    asked.reference_mask,
                    asked.reference_points,
                    asked.reference_box,
                    asked.reference_label,
                )
            query = answerer.query(
                asked.text,
                negative_text=asked.negative_text,
                points=asked.points,
                point_labels=asked.point_labels,
                boxes=asked.boxes,
                example=example,
                min_presence=asked.min_presence,
            )
            ranking = Ranking(asked.top_k, asked.min_score, asked.no_overlap)
            return answerer.segment(embedding, query, ranking)

        return await lane.run(lambda: _answer(answerer, asked, find), request.receive)

    @app.post("/everything", response_model=None, **_described(EverythingRequest, Record))
    async def everything(request: Request) -> Response:
        """Find masks all over a picture, without saying what to look for."""
        asked = await read(request, EverythingRequest)

        def find(embedding: ImageEmbedding) -> Result:
            result = answerer.everything(embedding, asked.points_per_side)
            result = result if asked.min_score is None else result[result.scores >= asked.min_score]
            return result[: asked.top_k]

        return await lane.run(lambda: _answer(answerer, asked, find), request.receive)


def _add_embeddings(app: FastAPI, answerer: Answerer, lane: Lane) -> None:
    @app.post("/embeddings", **_described(EmbeddingRequest, EmbeddingAnswer))
    async def encode(request: Request) -> EmbeddingAnswer:
        """Encode a picture once, for any number of questions, which name it by the id."""
        asked = await read(request, EmbeddingRequest)
        name, embedding = await lane.run(lambda: answerer.encode(asked.image), request.receive)
        return EmbeddingAnswer(
            embedding=name,
            image_size=embedding.original_size,
            bytes=embedding_bytes(embedding),
        )

    @app.delete("/embeddings/{name}", status_code=204, responses=_ERRORS)
    async def drop(name: str) -> None:
        """Let go of an encoded picture."""
        if not answerer.embeddings.drop(name):
            raise UnknownEmbeddingError(f"there is no encoded picture {name[:40]!r}")


def _add_facts(app: FastAPI, answerer: Answerer, lane: Lane) -> None:
    @app.get("/health")
    async def health() -> Health:
        """Tell whether requests are answered, and by what."""
        count, size = answerer.embeddings.size()
        return Health(
            status="ok",
            version=__version__,
            preset=answerer.preset,
            device=str(answerer.pipeline.segmenter.device),
            waiting=lane.waiting,
            embeddings=Usage(
                count=count,
                bytes=size,
                most=answerer.embeddings.most or 0,
                most_bytes=int(answerer.embeddings.values.maxsize),
            ),
        )

    @app.get("/limits")
    async def tell_limits() -> dict[str, int | float | list[str]]:
        """Tell what is refused."""
        return {
            "max_pixels": answerer.max_pixels,
            "max_file_bytes": limits.MAX_FILE_BYTES,
            "max_body_bytes": limits.MAX_BODY_BYTES,
            "max_held_bytes": limits.MAX_HELD_BYTES,
            "max_seconds": limits.MAX_SECONDS,
            "max_waiting": limits.MAX_WAITING,
            "max_phrases": limits.MAX_PHRASES,
            "max_phrase_characters": limits.MAX_LABEL,
            "max_points_and_boxes": limits.MAX_MARKS,
            "max_points_per_side": limits.MAX_POINTS_PER_SIDE,
            "formats": list(FORMAT_NAMES),
        }


async def read(request: Request, kind: type[ModelT]) -> ModelT:
    """Return a request's body, JSON or a form, as a checked value.

    Raises:
        RefusedBody: It is neither, or broke off.
        ValidationError: A field is wrong.
        TimeoutError: It takes too long to arrive.
    """
    content_type = request.headers.get("content-type", "").lower()
    with anyio.fail_after(limits.MAX_SECONDS):
        if content_type.startswith("multipart/form-data"):
            return kind.model_validate(await _read_form(request))
        if not content_type.startswith("application/json"):
            raise RefusedBody(415, _NEITHER)
        data, _ = await read_json(request.headers, request.receive, limits.MAX_BODY_BYTES)
    return kind.model_validate({} if data is None else data)


async def _read_form(request: Request) -> dict[str, Any]:
    fields: list[tuple[str, str | bytes]] = []
    try:
        async with request.form(
            max_files=4, max_fields=_MOST_FIELDS, max_part_size=_MOST_PART
        ) as form:
            for name, value in form.multi_items():
                content = await value.read() if isinstance(value, UploadFile) else value
                fields.append((name, content))
    except MultiPartException as error:
        raise RefusedBody(400, f"the form cannot be read: {error.message}") from error
    return from_form(fields)


def _answer(
    answerer: Answerer, asked: RankedRequest, find: Callable[[ImageEmbedding], Result]
) -> Response:
    """Answer a question; this runs in the lane's thread."""
    name, embedding = _picture(answerer, asked)
    result = find(embedding)
    picture = Path(asked.name.replace("\\", "/")).name or "image"
    if asked.format == "result":
        record = {"image": picture, "preset": answerer.preset, "embedding": name}
        return JSONResponse({**record, **result.to_dict()})
    return render(asked.format, picture, embedding.pixels(), result)


def _picture(answerer: Answerer, asked: PictureRequest) -> tuple[str, ImageEmbedding]:
    if asked.image is not None:
        return answerer.encode(asked.image)
    name = asked.embedding or ""
    return name, answerer.find(name)


def _described(asked: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """Describe an endpoint that reads its body itself: the same fields as JSON and as a form."""
    schema = asked.model_json_schema()
    form = {**schema, "properties": {**schema["properties"]}}
    for name, field in schema["properties"].items():
        if "base64" in str(field):
            form["properties"][name] = {
                "type": "string",
                "format": "binary",
                "description": field.get("description", ""),
            }
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {
        "responses": {200: {"model": answer}, **_ERRORS},
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }
