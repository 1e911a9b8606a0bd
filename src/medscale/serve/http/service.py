"""The service behind HTTP: its processes, its models, and what is done with an accepted request."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Sequence

from medscale.serve.http.admission import Admission
from medscale.serve.http.answers import Limits, Models, Predictions, Refusal, Result
from medscale.serve.http.messages import Asked, Decoded, Encoded, Offer, Refused, Said
from medscale.serve.http.metrics import Metrics
from medscale.serve.http.pool import Lost, Pool, Work, together
from medscale.serve.http.problems import Problem
from medscale.serve.http.settings import Settings
from medscale.serve.http.upload import Upload

HERE = __name__.rpartition(".")[0]
KINDS = ["jpeg", "png", "tiff", "webp", "gif", "bmp", "dicom"]
UNDECODED = Refused(422, "undecodable", "decoding it did not end well, or not in time")


class Service:
    """Models in processes of their own, and processes that decode; both are replaced when they die.

    Attributes:
        settings: what was set.
        metrics: what is counted.
        admission: who is let in.
        offers: by name, the models.
        stopping: accepted requests are still answered, but no balancer should send more.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics, self.admission = settings, Metrics(), Admission(settings)
        self.offers: dict[str, Offer] = {}
        self.stopping = False
        threads = settings.threads or max(1, len(os.sched_getaffinity(0)) // settings.workers)
        given = (settings.results, settings.seed, settings.device, threads)
        predict = Work(
            "prediction",
            f"{HERE}.predicting",
            "start",
            "predict",
            settings.batch,
            settings.predict_seconds,
        )
        decode = Work(
            "decoding", f"{HERE}.decoding", "start", "decode_all", 1, settings.decode_seconds
        )
        self.predictors = self._pool(
            predict, [(number, *given) for number in range(settings.workers)]
        )
        self.decoders = self._pool(decode, [(settings.most_pixels,)] * settings.decoders)
        self.metrics.accepted.set_function(lambda: self.admission.images)

    async def start(self) -> None:
        """Load the models.

        Raises:
            MedscaleError: when one cannot be loaded.
        """
        try:
            offers, _ = await together([self.predictors.start(), self.decoders.start()])
        except BaseException:
            await self.stop()
            raise
        self.offers = {offer.model.id: offer for offer in offers[0]}

    async def stop(self) -> None:
        """End all processes."""
        self.stopping = True
        await asyncio.gather(self.predictors.stop(), self.decoders.stop())

    @property
    def ready(self) -> bool:
        """Whether a request would be answered now."""
        return (
            bool(self.offers)
            and not self.stopping
            and bool(self.predictors.alive and self.decoders.alive)
        )

    def models(self) -> Models:
        """What is offered, and what a request may hold."""
        limits = Limits(
            megabytes=self.settings.megabytes,
            megapixels=self.settings.megapixels,
            images=self.settings.images,
            kinds=KINDS,
        )
        return Models(models=[offer.model for offer in self.offers.values()], limits=limits)

    def offer(self, name: str | None) -> Offer:
        """A model by its name; the first where none is named.

        Raises:
            Problem: 404 for one that is not here.
        """
        if name is None:
            return next(iter(self.offers.values()))
        if name not in self.offers:
            raise Problem(
                404, f"there is no such model; there are {', '.join(self.offers)}", "model"
            )
        return self.offers[name]

    async def predict(
        self, upload: Upload, offer: Offer, *, explain: bool, preview: bool
    ) -> Predictions:
        """What a model says of each image, in order.

        Raises:
            Problem: the first image's refusal where none could be read; 503 where processes were lost or time ran out.
        """
        try:
            async with asyncio.timeout(self.settings.answer_seconds), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._one(
                            number, data, upload, offer, explain and offer.model.explains, preview
                        )
                    )
                    for number, data in enumerate(upload.images, start=1)
                ]
        except TimeoutError:
            raise Problem(503, "the answer took too long; come again", "time", 10) from None
        except ExceptionGroup as group_of:
            raise group_of.exceptions[0] from None
        results = [task.result() for task in tasks]
        refusals = [result.error for result in results if result.error is not None]
        if len(refusals) == len(results):
            raise Problem(refusals[0].status, refusals[0].detail, "")
        model = offer.model
        return Predictions(
            model=model.id, mark=model.mark, calibration=model.calibration, results=results
        )

    async def _one(
        self, number: int, data: bytes, upload: Upload, offer: Offer, explain: bool, preview: bool
    ) -> Result:
        try:
            decoded: Decoded | Refused = await self.decoders.do(
                None, Encoded(data, offer.wanted, preview)
            )
        except Lost:
            decoded = UNDECODED
        if isinstance(decoded, Refused):
            self.metrics.refused.labels(f"image: {decoded.reason}").inc()
            refusal = Refusal(status=decoded.status, detail=f"{decoded.reason}: {decoded.detail}")
            return Result(number=number, error=refusal)
        asked = Asked(
            decoded.pixels, decoded.width, decoded.height, {**decoded.facts, **upload.facts}
        )
        try:
            said: Said = await self.predictors.do((offer.model.id, explain), asked)
        except Lost:
            raise Problem(503, "the prediction was lost twice; come again", "lost", 10) from None
        self.metrics.images.labels(offer.model.id).inc()
        return Result(
            number=number,
            width=decoded.width,
            height=decoded.height,
            label=max(said.probabilities, key=said.probabilities.__getitem__)
            if said.probabilities
            else None,
            probabilities=said.probabilities,
            boxes=said.boxes,
            seen=said.seen,
            heatmap=_data_url(said.heatmap, "png"),
            preview=_data_url(decoded.preview, "jpeg"),
        )

    def _pool(self, work: Work, arguments: Sequence[tuple[object, ...]]) -> Pool:
        sizes, busy = self.metrics.sizes.labels(work.name), self.metrics.busy.labels(work.name)

        def count(_: object, size: int, seconds: float) -> None:
            sizes.observe(size)
            busy.observe(seconds)

        pool = Pool(work, arguments, count, self.metrics.lost.labels(work.name).inc)
        self.metrics.alive.labels(work.name).set_function(lambda: pool.alive)
        self.metrics.waiting.labels(work.name).set_function(lambda: len(pool.waiting))
        return pool


def _data_url(data: bytes | None, kind: str) -> str | None:
    """A picture as it may stand in JSON and on a page."""
    return None if data is None else f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
