"""The service as a FastAPI application: its addresses, and how they are described."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from medscale import __version__
from medscale.serve.http import upload
from medscale.serve.http.answers import NOTICE, Health, Models, Predictions
from medscale.serve.http.gate import Gate
from medscale.serve.http.problems import MEDIA_TYPE, Problem, Told, answer
from medscale.serve.http.service import Service

PAGE = Path(__file__).with_name("page")
FAULT = "the service has a fault; its log says more"
LOCAL = ("localhost", "127.0.0.1", "[::1]")
FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [upload.IMAGES],
                "properties": {
                    upload.IMAGES: {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "one or more images: JPEG, PNG, TIFF, WebP, GIF, BMP or DICOM",
                    },
                    upload.METADATA: {
                        "type": "string",
                        "description": 'what is known of the patient, as the model takes it: {"age": 61}',
                    },
                },
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Told, "description": says, "content": {MEDIA_TYPE: {}}}
    for status, says in {
        400: "the form cannot be read",
        401: "the key is missing or wrong",
        404: "there is no such model",
        408: "the request did not arrive in time",
        411: "the request has no Content-Length",
        413: "the request has too many bytes, or its image too many pixels",
        415: "what was sent is no image, or of a kind that is not taken",
        422: "the image is damaged, or the metadata do not fit the model",
        429: "more requests than the caller's rate allows; Retry-After says when to come again",
        503: "the service is full, or starting a process again; Retry-After says when to come again",
    }.items()
}


def create_app(service: Service) -> FastAPI:
    """The application; as its lifespan begins the models are loaded, unless they are already."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="medscale",
        version=__version__,
        description=NOTICE,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_predictions(app, service)
    _add_state(app, service)
    _add_page(app)
    _add_refusals(app, service)
    names = {*LOCAL, service.settings.host, *service.settings.hosts}
    if service.settings.on_loopback or service.settings.hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=sorted(names), www_redirect=False)
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics, router=app.router)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", summary="What can be asked")
    async def models() -> Models:
        return service.models()

    @app.post(
        "/v1/predict",
        summary="Classes and probabilities, or boxes, of images",
        response_model_exclude_none=True,
        responses=REFUSALS,
        openapi_extra={"requestBody": FORM},
    )
    async def predict(
        request: Request,
        model: Annotated[
            str | None, Query(description="its id; the first without one", max_length=200)
        ] = None,
        explain: Annotated[bool, Query(description="also heat maps (Grad-CAM)")] = False,
        preview: Annotated[
            bool, Query(description="also the images as they are shown, made small")
        ] = False,
    ) -> Predictions:
        """An image that cannot be read has an `error` in place of a prediction; where none can, that is the answer."""
        settings = service.settings
        service.admission.count(request.client.host if request.client else "")
        offer = service.offer(model)
        size = upload.length(request, settings)
        with service.admission.enter(size) as take:
            given = await upload.read(request, settings, offer.model)
            take(len(given.images) - 1)
            return await service.predict(given, offer, explain=explain, preview=preview)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Is the service there?")
    async def health() -> Health:
        return Health(status="there")

    @app.get("/readyz", summary="Would a request be answered?", responses={503: {"model": Health}})
    async def ready(response: Response) -> Health:
        response.status_code = 200 if service.ready else 503
        return Health(status="ready" if service.ready else "not ready")

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        text, kind = service.metrics.text()
        return Response(text, media_type=kind)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    app.mount("/static", StaticFiles(directory=PAGE), "static")


def _add_refusals(app: FastAPI, service: Service) -> None:
    def tells(
        problem: Callable[[Any], Problem],
    ) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
        async def handle(_: Request, error: Exception) -> JSONResponse:
            made = problem(error)
            if made.reason:
                service.metrics.refused.labels(made.reason).inc()
            return answer(made)

        return handle

    app.add_exception_handler(Problem, tells(lambda problem: problem))
    app.add_exception_handler(
        HTTPException, tells(lambda e: Problem(e.status_code, str(e.detail), "address"))
    )
    app.add_exception_handler(
        RequestValidationError, tells(lambda e: Problem(422, _first(e), "query"))
    )
    app.add_exception_handler(Exception, tells(lambda _: Problem(500, FAULT, "fault")))


def _first(error: RequestValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}"
