"""Errors as JSON: `{"error": {"code": "bad_input", "message": "..."}}`, one line each."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ...models.errors import InputError, PromptsegError
from ..console import describe_error
from .answers import UnknownEmbeddingError
from .bodies import RefusedBody
from .lane import BusyError, LeftError

logger = logging.getLogger(__name__)

# What each status is called; the message says more.
CODES = {
    400: "bad_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "bad_input",
    499: "client_left",
    500: "failed",
    503: "busy",
}


def error_response(status: int, message: str, code: str | None = None) -> JSONResponse:
    """Return an error as an answer."""
    content = {"error": {"code": code or CODES.get(status, "failed"), "message": message}}
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse(content, status, headers)


def describe_invalid(error: ValidationError | RequestValidationError) -> str:
    """Return what is wrong with the fields of a request, the first three of them, on one line."""
    lines = []
    for item in error.errors()[:3]:
        place = ".".join(str(part) for part in item["loc"][:6])
        words = str(item["msg"]).removeprefix("Value error, ")
        lines.append(f"{place}: {words}" if place else words)
    more = len(error.errors()) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more else "")


def add_error_handlers(app: FastAPI) -> None:
    """Have an app answer every exception in the same form."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return _response(error)

    for kind in (
        RefusedBody,
        BusyError,
        LeftError,
        TimeoutError,
        ValidationError,
        RequestValidationError,
        HTTPException,
        PromptsegError,
        Exception,
    ):
        app.add_exception_handler(kind, answer)


def _response(error: Exception) -> JSONResponse:
    if isinstance(error, RefusedBody):
        return error_response(error.status, str(error))
    if isinstance(error, BusyError):
        return error_response(503, "too many requests wait already; try again in a moment")
    if isinstance(error, LeftError):
        return error_response(499, "the request was cancelled")
    if isinstance(error, TimeoutError):
        return error_response(408, "the request took too long to arrive")
    if isinstance(error, (ValidationError, RequestValidationError)):
        return error_response(422, describe_invalid(error))
    if isinstance(error, HTTPException):
        words = str(error.detail)
        if error.status_code in (404, 405):
            words = f"{words}: /openapi.json lists the endpoints"
        return error_response(error.status_code, words)
    if isinstance(error, UnknownEmbeddingError):
        return error_response(404, str(error), "unknown_embedding")
    if isinstance(error, InputError):
        return error_response(422, describe_error(error))
    if isinstance(error, PromptsegError):
        return error_response(500, describe_error(error))
    logger.error("a request failed: %s", type(error).__name__, exc_info=error)
    # Not its text, which may name paths of the server.
    return error_response(500, "something went wrong here; the server's log says what")
