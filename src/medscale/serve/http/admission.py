"""Admission of requests: a rate limit for each caller, and limits on unanswered requests."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import MB, Settings

CALLERS = 10_000  # whose rates are kept; the caller with the oldest request is forgotten first
RETRY_S = 2  # Retry-After when the service is full


class Admission:
    """Counts unanswered images and bytes, and limits each caller's rate (token bucket).

    Attributes:
        images: accepted and not yet answered; a request counts as one image until it is read.
        bytes: of the accepted requests that are not yet answered.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._now = settings, now
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.images = self.bytes = 0

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
    def enter(self, length: int) -> Iterator[Callable[[int], None]]:
        """Hold room for one image and ``length`` bytes until the request is answered.

        Yields:
            A function that holds room for further images of the request.

        Raises:
            Problem: 503 when there is no room.
        """
        held = 0

        def take(images: int) -> None:
            nonlocal held
            if self.images + images > self._settings.queue:
                raise Problem(503, f"{self.images} images are waiting; try again", "queue", RETRY_S)
            self.images += images
            held += images

        if self.bytes + length > self._settings.pending_megabytes * MB:
            raise Problem(
                503, "the memory for waiting requests is full; try again", "memory", RETRY_S
            )
        take(1)
        self.bytes += length
        try:
            yield take
        finally:
            self.images -= held
            self.bytes -= length
