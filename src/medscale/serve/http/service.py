"""The service behind HTTP: its processes, its models, and the handling of accepted requests."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace

from medscale.base.limits import usable_cores
from medscale.serve.calibration import SENTENCES
from medscale.serve.http.admission import Admission
from medscale.serve.http.answers import Calibration, Limits, Models, Predictions, Refusal, Result
from medscale.serve.http.decisions import decisions
from medscale.serve.http.messages import (
    DecodedImage,
    EncodedImage,
    ModelOutput,
    Offer,
    RefusedImage,
    Task,
)
from medscale.serve.http.metrics import Metrics
from medscale.serve.http.pool import Lost, OverBudget, Pool, Work, together
from medscale.serve.http.problems import Problem
from medscale.serve.http.queue import Budget
from medscale.serve.http.settings import Settings
from medscale.serve.http.upload import Upload

KINDS = ["jpeg", "png", "tiff", "webp", "gif", "bmp", "dicom"]
UNCALIBRATED = Calibration(method="none", meaning=SENTENCES["none"])
RETRY_S = 10  # Retry-After when an accepted request could not be answered
UNDECODED = RefusedImage(422, "undecodable", "decoding it did not end well, or not in time")
OVER_BUDGET = RefusedImage(
    422, "over budget", "the request's other images took all of its time; send fewer at once"
)


class Service:
    """Models in predicting processes, and decoding processes.

    Attributes:
        settings: of the service.
        metrics: counters.
        admission: rate limits, and room for requests.
        offers: the models by name.
        stopping: accepted requests are still answered, but ``/readyz`` says not ready.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.metrics, self.admission = settings, Metrics(), Admission(settings)
        self.offers: dict[str, Offer] = {}
        self.stopping = False
        threads = settings.threads or max(1, usable_cores() // settings.workers)
        arguments = (settings.results, settings.seed, settings.device, threads)
        predicting = Work(
            "prediction",
            "medscale.serve.http.predicting",
            "start",
            "predict",
            settings.batch,
            settings.predict_seconds,
        )
        decoding = Work(
            "decoding",
            "medscale.serve.http.decoding",
            "start",
            "decode_all",
            1,  # a batch would delay the images behind a slow or hostile one
            settings.decode_seconds,
        )
        self.predictors = self._pool(predicting, [(n, *arguments) for n in range(settings.workers)])
        self.decoders = self._pool(decoding, [(settings.max_pixels,)] * settings.decoders)
        self.metrics.accepted.set_function(lambda: self.admission.images)

    async def start(self) -> None:
        """Start the processes and load the models.

        Raises:
            MedscaleError: when a model cannot be loaded.
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
        alive = self.predictors.alive and self.decoders.alive
        return bool(self.offers and alive and not self.stopping)

    def models(self) -> Models:
        """Return the models, and the limits of a request."""
        limits = Limits(
            megabytes=self.settings.megabytes,
            megapixels=self.settings.megapixels,
            images=self.settings.images,
            kinds=KINDS,
        )
        return Models(models=[offer.model for offer in self.offers.values()], limits=limits)

    def offer(self, name: str | None) -> Offer:
        """Return a model by its name; without one, the first.

        Raises:
            Problem: 404 for an unknown name.
        """
        if name is None:
            return next(iter(self.offers.values()))
        if name not in self.offers:
            raise Problem(
                404, f"there is no such model; there are {', '.join(self.offers)}", "model"
            )
        return self.offers[name]

    async def predict(
        self,
        upload: Upload,
        offer: Offer,
        caller: str = "",
        *,
        explain: bool = False,
        preview: bool = False,
        calibrated: bool = True,
    ) -> Predictions:
        """Return the predictions for all images of a request, in order.

        Args:
            upload: the request's images and facts.
            offer: the model.
            caller: who sent the request; callers are served in turn.
            explain: add heat maps, if the model has them.
            preview: add the displayed images.
            calibrated: use the temperatures of the model, if it has any.

        Raises:
            Problem: the first image's refusal if no image could be read; 503 when processes were
                lost or the time was up.
        """
        model, calibration = offer.model, offer.model.calibration
        if not calibrated and model.task == "classification":
            calibration = UNCALIBRATED
        task = Task(model.id, explain and model.explains, calibrated)
        budget = Budget(self.settings.request_decode_seconds)

        async def answer(number: int, data: bytes) -> Result:
            encoded = EncodedImage(data, offer.preprocessings, preview)
            image = await self._decode(encoded, caller, budget)
            result = await self._predict_image(number, image, upload, task, caller)
            decided = decisions(result.probabilities, model, calibration.temperature)
            return result.model_copy(update={"decisions": decided})

        try:
            async with asyncio.timeout(self.settings.answer_seconds), asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(answer(number, data))
                    for number, data in enumerate(upload.images, start=1)
                ]
        except TimeoutError:
            raise Problem(503, "the answer took too long; try again", "time", RETRY_S) from None
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        results = [task.result() for task in tasks]
        refusals = [result.error for result in results if result.error is not None]
        if len(refusals) == len(results):
            raise Problem(refusals[0].status, refusals[0].detail, "")
        return Predictions(
            model=model.id, mark=model.mark, calibration=calibration, results=results
        )

    async def _predict_image(
        self,
        number: int,
        image: DecodedImage | RefusedImage,
        upload: Upload,
        task: Task,
        caller: str,
    ) -> Result:
        """Predict one image without decisions; facts from the caller win over those in headers."""
        if isinstance(image, RefusedImage):
            self.metrics.refused.labels(f"image: {image.reason}").inc()
            refusal = Refusal(status=image.status, detail=f"{image.reason}: {image.detail}")
            return Result(number=number, error=refusal)
        model_input = replace(image, facts={**image.facts, **upload.facts}, preview=None)
        try:
            output: ModelOutput = await self.predictors.do(task, model_input, caller)
        except Lost:
            raise Problem(503, "the prediction failed; try again", "lost", RETRY_S) from None
        self.metrics.images.labels(task.model).inc()
        return Result(
            number=number,
            width=image.width,
            height=image.height,
            label=output.label,
            probabilities=output.probabilities,
            boxes=output.boxes,
            region=output.region,
            note=image.note,
            heatmap=_data_url(output.heatmap, "png"),
            preview=_data_url(image.preview, "jpeg"),
        )

    async def _decode(
        self, image: EncodedImage, caller: str, budget: Budget
    ) -> DecodedImage | RefusedImage:
        try:
            decoded: DecodedImage | RefusedImage = await self.decoders.do(
                None, image, caller, budget
            )
            return decoded
        except Lost:
            return UNDECODED
        except OverBudget:
            return OVER_BUDGET

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
    """Return an image file as text for JSON and web pages."""
    return None if data is None else f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
