"""The service as a FastAPI application: its paths and their descriptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from medscale import __version__
from medscale.serve.http import upload
from medscale.serve.http.answers import NOTICE, Health, Models, Predictions
from medscale.serve.http.gate import Gate
from medscale.serve.http.problems import MEDIA_TYPE, Problem, ProblemDetails, to_response
from medscale.serve.http.service import Service
from medscale.serve.http.share import caller_of

PAGE = Path(__file__).with_name("page")
FAULT = "the service has a fault; its log says more"
NO_ADDRESS = "the service has no such address and method; /docs lists those that it has"
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
                        "description": "images: JPEG, PNG, TIFF, WebP, GIF, BMP or DICOM",
                    },
                    upload.METADATA: {
                        "type": "string",
                        "description": 'facts on the patient as JSON, such as {"age": 61}',
                    },
                },
            }
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDetails, "description": description, "content": {MEDIA_TYPE: {}}}
    for status, description in {
        400: "the form cannot be read",
        401: "the key is missing or wrong",
        404: "there is no such model",
        408: "the request did not arrive in time",
        411: "the request has no Content-Length",
        413: "the request has too many bytes, or its image too many pixels",
        415: "the file is no image, or of an unsupported format",
        422: "the image is damaged, or the metadata do not fit the model",
        429: "more requests than a caller may send; try again after Retry-After seconds",
        503: "the service is full, or restarts a process; try again after Retry-After seconds",
    }.items()
}


def create_app(service: Service) -> FastAPI:
    """Return the application; the caller starts and stops the service."""
    app = FastAPI(
        title="medscale",
        version=__version__,
        description=NOTICE,
        docs_url=None,
        redoc_url=None,
    )
    _add_predictions(app, service)
    _add_state(app, service)
    _add_page(app)
    _add_refusals(app, service)
    app.add_middleware(Gate, settings=service.settings, metrics=service.metrics, router=app.router)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", summary="Models and limits")
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
            str | None, Query(description="id of a model; without it, the first", max_length=200)
        ] = None,
        explain: Annotated[bool, Query(description="add heat maps (Grad-CAM)")] = False,
        preview: Annotated[
            bool, Query(description="add the displayed images, reduced in size")
        ] = False,
        calibrated: Annotated[
            bool,
            Query(description="false: probabilities before calibration, as those of thresholds"),
        ] = True,
    ) -> Predictions:
        """An unreadable image has an error; if no image is readable, the request is refused."""
        _check_query(request)
        settings = service.settings
        caller = caller_of(request.client.host) if request.client else ""
        service.admission.count(caller)
        offer = service.offer(model)
        size = upload.length(request, settings)
        with service.admission.enter(caller, size) as take:
            content = await upload.read(request, settings, offer.model)
            take(len(content.images) - 1)
            return await service.predict(
                content, offer, caller, explain=explain, preview=preview, calibrated=calibrated
            )


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", summary="Does the service run?")
    async def health() -> Health:
        return Health(status="ok")

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
    def handler(
        to_problem: Callable[[Any], Problem],
    ) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
        async def handle(_: Request, error: Exception) -> JSONResponse:
            problem = to_problem(error)
            if problem.reason:
                service.metrics.refused.labels(problem.reason).inc()
            response = to_response(problem)
            response.headers.update(getattr(error, "headers", None) or {})  # Allow, of 405
            return response

        return handle

    app.add_exception_handler(Problem, handler(lambda problem: problem))
    app.add_exception_handler(
        HTTPException,
        handler(
            lambda e: Problem(
                e.status_code, NO_ADDRESS if e.status_code in (404, 405) else e.detail, "address"
            )
        ),
    )
    app.add_exception_handler(
        RequestValidationError, handler(lambda e: Problem(422, _first(e), "query"))
    )
    app.add_exception_handler(Exception, handler(lambda _: Problem(500, FAULT, "fault")))


def _check_query(request: Request) -> None:
    """Refuse an option in the address that would be passed over: an unknown or a second one."""
    options = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    names = [name for name, _ in request.query_params.multi_items()]
    if not set(names) <= set(options):
        detail = f"the address has an unknown option; /v1/predict takes {', '.join(options)}"
        raise Problem(422, detail, "query")
    if len(names) > len(set(names)):
        raise Problem(422, "an option in the address has two values", "query")


def _first(error: RequestValidationError) -> str:
    fault = error.errors()[0]
    if fault["type"] == "bool_parsing":
        return f"{fault['loc'][-1]} must be true or false"
    return f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}"
