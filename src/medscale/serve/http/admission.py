"""Admission of requests: a rate limit for each caller, and limits on unanswered requests."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import MB, Settings
from medscale.serve.http.share import Refusal, Room

CALLERS = 10_000  # whose rates are kept; the caller with the oldest request is forgotten first
RETRY_S = 2  # Retry-After when the service is full


class Admission:
    """Counts unanswered images and bytes, and limits each caller's rate (token bucket)."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._now = settings, now
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._images = Room(settings.queue)
        self._bytes = Room(int(settings.pending_megabytes * MB))

    @property
    def images(self) -> int:
        """Images accepted and not yet answered; a request counts as one until it is read."""
        return self._images.in_use

    @property
    def bytes(self) -> int:
        """Bytes of the accepted requests that are not yet answered."""
        return self._bytes.in_use

    def count(self, caller: str) -> None:
        """Count a request against its caller's rate.

        Raises:
            Problem: 429 with a Retry-After, when the caller's tokens are used up.
        """
        rate, burst, now = self._settings.rate, self._settings.burst, self._now()
        if not rate:
            return
        tokens, since = self._callers.pop(caller, (float(burst), now))
        tokens = min(burst, tokens + (now - since) * rate)
        self._callers[caller] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)
        if tokens < 1:
            wait = math.ceil((1 - tokens) / rate)
            raise Problem(429, f"more than {rate:g} requests a second", "rate", wait)

    @contextmanager
    def enter(self, caller: str, length: int) -> Iterator[Callable[[int], None]]:
        """Hold room for one image and ``length`` bytes until the request is answered.

        Yields:
            A function that holds room for further images of the request.

        Raises:
            Problem: 503 when there is no room, 429 when the caller holds its share of it.
        """
        count = 0

        def take(images: int) -> None:
            nonlocal count
            _check(self._images.take(caller, images), f"{self.images} images are waiting", "queue")
            count += images

        _check(self._bytes.take(caller, length), "the memory for requests is full", "memory")
        try:
            take(1)
            yield take
        finally:
            self._images.give_back(caller, count)
            self._bytes.give_back(caller, length)


def _check(refusal: Refusal | None, full: str, reason: str) -> None:
    """Raise the Problem for a refusal."""
    if refusal is Refusal.FULL:
        raise Problem(503, f"{full}; try again", reason, RETRY_S)
    if refusal is Refusal.SHARE:
        detail = "your waiting requests fill a caller's share; send more when some are answered"
        raise Problem(429, detail, "share", RETRY_S)
