"""The outermost layer of the service: keys, security headers, and bodies of refused requests."""

from __future__ import annotations

import asyncio
import hmac
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medscale.serve.http.metrics import Metrics
from medscale.serve.http.problems import Problem, to_response
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
DISCARD_BYTES, DISCARD_S = 256 * 10**6, 10.0  # most of a refused body that is received


class Gate:
    """ASGI middleware around the whole service.

    The body of a refused request is received and discarded, up to a limit, before the refusal is
    sent: a caller that is still sending would see a broken connection instead of the refusal.
    A caller that waits for "100 Continue" (Expect header) has sent nothing yet and is refused at
    once.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, router: Any) -> None:
        self._app, self._settings, self._metrics, self._router = app, settings, metrics, router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, headers = time.monotonic(), Headers(scope=scope)
        body = Body(receive, complete="expect" in headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await body.discard()
                MutableHeaders(scope=message).update(HEADERS)
                path = self._path(scope)
                self._metrics.requests.labels(path, str(message["status"])).inc()
                self._metrics.seconds.labels(path).observe(time.monotonic() - start)
            await send(message)

        try:
            self._check(scope["path"], headers)
        except Problem as problem:
            self._metrics.refused.labels(problem.reason).inc()
            await to_response(problem)(scope, body.receive, send_with_headers)
            return
        # HEAD is answered as GET, wherever that is; the server leaves the body out.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._app({**scope, "method": method}, body.receive, send_with_headers)

    def _check(self, path: str, headers: Headers) -> None:
        """Raise a Problem for another host name, another site's page, or without the key."""
        if self._settings.names and _host(headers) not in self._settings.names:
            detail = "the service is not known by this host name; medscale serve --name adds one"
            raise Problem(400, detail, "host")
        if not path.startswith(GUARDED):
            return
        if not self._is_own_page(headers):
            raise Problem(403, "pages of other sites may not use this service", "site")
        if (key := self._settings.key) is None:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        caller_key = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
        if not hmac.compare_digest(caller_key.encode(), key.get_secret_value().encode()):
            raise Problem(
                401, "send the service's key as X-API-Key, or as Authorization: Bearer", "key"
            )

    def _is_own_page(self, headers: Headers) -> bool:
        """Return whether a request comes from no page of another site.

        Browsers say so by ``Sec-Fetch-Site``; older ones, and those that do not trust the
        connection, only by ``Origin``, which programs do not send.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:
            return site in ("none", "same-origin")
        if origin is None:
            return True
        try:
            page, service = urlsplit(origin), urlsplit(f"//{headers.get('host', '')}")
        except ValueError:
            return False
        # A proxy may put its own name into Host, so that the names that users know count as well.
        is_public_name = page.hostname in self._settings.hosts
        return bool(page.netloc) and (
            is_public_name or page.netloc.lower() == service.netloc.lower()
        )

    def _path(self, scope: Scope) -> str:
        """Return the path of a route: metrics must not have labels that a caller invents."""
        for route in self._router.routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(route.path)
        return "other"


def _host(headers: Headers) -> str | None:
    """Return the host that a request names, in lower case and without port; None without one."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None


class Body:
    """The incoming body of a request.

    Args:
        receive: the ASGI server's function.
        complete: whether nothing more is expected from the caller.
    """

    def __init__(self, receive: Receive, *, complete: bool) -> None:
        self._receive, self._complete = receive, complete

    async def receive(self) -> Message:
        """Return the next part."""
        message = await self._receive()
        more = message.get("more_body", False)
        self._complete = message["type"] == "http.disconnect" or not more
        return message

    async def discard(self) -> None:
        """Receive and discard the rest, up to ``DISCARD_BYTES`` and ``DISCARD_S`` seconds."""
        remaining = DISCARD_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                while not self._complete and remaining > 0:
                    remaining -= len((await self.receive()).get("body", b""))
