"""What every request passes: names and keys are checked, headers set, and a refused body is let run out."""

from __future__ import annotations

import asyncio
import hmac
import time
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medscale.serve.http.metrics import Metrics
from medscale.serve.http.problems import Problem, answer
from medscale.serve.http.settings import Settings

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
GUARDED = ("/v1/", "/metrics")  # paths that need the key
DRAIN_BYTES, DRAIN_S = 256 * 10**6, 10.0


class Gate:
    """ASGI middleware around the whole service.

    A body that is refused unread is still received and thrown away, up to a limit: a caller that is busy sending would
    see its connection reset rather than the refusal. One that asks before it sends (Expect) is told at once.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, router: Any) -> None:
        self._app, self._settings, self._metrics, self._router = app, settings, metrics, router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, headers = time.monotonic(), Headers(scope=scope)
        body = Body(receive, asks_first="expect" in headers)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.run_out()
                MutableHeaders(scope=message).update(HEADERS)
                path = self._path(scope)
                self._metrics.requests.labels(path, str(message["status"])).inc()
                self._metrics.seconds.labels(path).observe(time.monotonic() - begun)
            await send(message)

        try:
            self._check(scope["path"], headers)
        except Problem as problem:
            self._metrics.refused.labels(problem.reason).inc()
            await answer(problem)(scope, body.receive, send_on)
            return
        await self._app(scope, body.receive, send_on)

    def _check(self, path: str, headers: Headers) -> None:
        """Whether a request may go on at all."""
        if not path.startswith(GUARDED):
            return
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise Problem(403, "pages of other sites may not ask", "site")
        key = self._settings.key
        if key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (given if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(given.encode(), key.get_secret_value().encode()):
            raise Problem(
                401, "send the service's key as X-API-Key, or as Authorization: Bearer", "key"
            )

    def _path(self, scope: Scope) -> str:
        """A route's path for the metrics, not what a caller makes up."""
        for route in self._router.routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(route.path)
        return "other"


class Body:
    """A request's body on its way in: whether it has all come, and what is done if nobody wants it."""

    def __init__(self, receive: Receive, *, asks_first: bool) -> None:
        self._receive, self._over = receive, asks_first

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        self._over = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def run_out(self) -> None:
        """Receive and forget what is left, up to a limit."""
        left = DRAIN_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self._over and left > 0:
                    left -= len((await self.receive()).get("body", b""))
