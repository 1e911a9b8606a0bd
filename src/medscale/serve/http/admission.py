"""Who is let in: a rate for each caller, and a limit on what is accepted and not yet answered."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import MB, Settings

CALLERS = 10_000  # whose rates are kept; who came longest ago is forgotten first
RETRY_S = 2  # when the service is full


class Admission:
    """Accepted requests, their images and bytes, and each caller's rate (token bucket).

    Attributes:
        images: accepted and not yet answered; a request counts as one until it is read.
        bytes: of their requests.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._now = settings, now
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.images = self.bytes = 0

    def count(self, caller: str) -> None:
        """Count a request against its caller's rate.

        Raises:
            Problem: 429, saying when to come again.
        """
        rate, burst, now = self._settings.rate, self._settings.burst, self._now()
        if not rate:
            return
        left, since = self._callers.pop(caller, (float(burst), now))
        left = min(burst, left + (now - since) * rate)
        self._callers[caller] = (left - 1 if left >= 1 else left, now)
        if len(self._callers) > CALLERS:
            self._callers.popitem(last=False)
        if left < 1:
            raise Problem(
                429, f"more than {rate:g} requests a second", "rate", math.ceil((1 - left) / rate)
            )

    @contextmanager
    def enter(self, length: int) -> Iterator[Callable[[int], None]]:
        """Hold a place for a request of so many bytes; what is yielded takes places for further images.

        Raises:
            Problem: 503 when there is none.
        """
        held = 0

        def take(images: int) -> None:
            nonlocal held
            if self.images + images > self._settings.queue:
                raise Problem(
                    503, f"{self.images} images are waiting; come again", "queue", RETRY_S
                )
            self.images += images
            held += images

        if self.bytes + length > self._settings.pending_megabytes * MB:
            raise Problem(
                503,
                "requests that wait fill the memory that is set aside for them",
                "memory",
                RETRY_S,
            )
        take(1)
        self.bytes += length
        try:
            yield take
        finally:
            self.images -= held
            self.bytes -= length
