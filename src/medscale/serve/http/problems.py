"""What a caller is told when a request is refused: a status, what is wrong and what to do (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A refused request.

    Args:
        status: the HTTP status.
        detail: what is wrong, and what to do.
        reason: one word for the metrics.
        retry_after: seconds after which the same request may be taken.
    """

    def __init__(
        self, status: int, detail: str, reason: str, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.reason, self.retry_after = (
            status,
            detail,
            reason,
            retry_after,
        )


class Told(BaseModel):
    """A refusal as JSON (RFC 9457, problem details)."""

    type: str = "about:blank"
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what is wrong, and what to do")


def told(status: int, detail: str) -> dict[str, Any]:
    """The content of a refusal."""
    return Told(title=HTTPStatus(status).phrase, status=status, detail=detail).model_dump()


def answer(problem: Problem) -> JSONResponse:
    """A refusal as a response."""
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after is not None else {}
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(told(problem.status, problem.detail), problem.status, headers, MEDIA_TYPE)
