"""Refused requests as problem details (RFC 9457): status, what is wrong, what to do."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A refused request.

    Args:
        status: the HTTP status.
        detail: what is wrong, and what to do.
        reason: one word for the metrics.
        retry_after: seconds after which the same request may be accepted.
    """

    def __init__(
        self, status: int, detail: str, reason: str, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.reason, self.retry_after = reason, retry_after


class ProblemDetails(BaseModel):
    """A refusal as JSON (RFC 9457, problem details)."""

    type: str = "about:blank"
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="what is wrong, and what to do")


def to_response(problem: Problem) -> JSONResponse:
    """Return a problem as an HTTP response."""
    status = HTTPStatus(problem.status)
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after is not None else {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    details = ProblemDetails(title=status.phrase, status=status, detail=problem.detail)
    return JSONResponse(details.model_dump(), status, headers, MEDIA_TYPE)
