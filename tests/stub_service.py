"""A service whose processes are played, for tests of what comes before them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from medscale.serve.http.answers import Calibration, Column, Model, Region
from medscale.serve.http.messages import DecodedImage, ModelOutput, Offer
from medscale.serve.http.service import Service
from medscale.serve.http.settings import Settings

MODEL = Model(
    id="made/one",
    name="made: one",
    study="made",
    run="one",
    task="classification",
    classes=["a", "b"],
    class_titles={},
    networks=1,
    folds=0,
    members=[],
    metadata=[Column(name="age", words=None), Column(name="grade", words=["1", "2"])],
    calibration=Calibration(method="none", meaning="not calibrated"),
    explains=False,
    scores=[],
    operating=[],
    examples=[],
    mark="",
)


class Stub:
    """A pool without processes."""

    def __init__(self, result: Any) -> None:
        self.result, self.alive, self.requests, self.free = result, 1, [], asyncio.Event()
        self.free.set()

    async def do(self, key: Any, content: Any, caller: str = "", budget: Any = None) -> Any:
        self.requests.append((key, content))
        await self.free.wait()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def stub_service(**settings: Any) -> Service:
    """A service whose processes are played."""
    service = Service(Settings(results=(Path(),), **({"rate": 0} | settings)))
    service.offers = {MODEL.id: Offer(MODEL, ())}
    service.decoders = Stub(DecodedImage([], 4, 3, {}, None))  # type: ignore[assignment]
    output = ModelOutput({"a": 0.25, "b": 0.75}, None, Region(x=0, y=0, width=4, height=3), None)
    service.predictors = Stub(output)  # type: ignore[assignment]
    return service
