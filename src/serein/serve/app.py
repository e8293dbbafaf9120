"""The routes: what may be asked over HTTP, and what is answered."""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from serein.answers import rank
from serein.recognizer import EmotionRecognizer
from serein.serve.door import Door
from serein.serve.leaving import while_there
from serein.serve.limits import BOUNDS, Limits
from serein.serve.live import converse
from serein.serve.refusals import Refusal, declared
from serein.serve.replies import Health, ModelReply, Prediction, PredictQuery, TimelineQuery, TimelineReply, compact
from serein.serve.service import Service
from serein.timeline import Timeline

PAGE = Path(__file__).parent / "static"
FILE = {"type": "string", "format": "binary"}
RECORDING = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a WAV, AIFF, CAF, FLAC, Ogg (Vorbis, Opus) or MP3 file.",
        "content": {
            "application/octet-stream": {"schema": FILE},
            "audio/*": {"schema": FILE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": FILE},
                    "required": ["file"],
                }
            },
        },
    }
}
"""OpenAPI's description of a body, which no parameter declares: it is read by the byte."""
KINDS = {"json": "application/json", "csv": "text/csv", "audacity": "text/plain", "rttm": "text/plain"}
"""What a timeline comes as, by format."""
DESCRIPTION = """
What emotion speech sounds like. Emotion labels are perceived, not felt: they must not decide about people.

`/v1/stream` is a WebSocket. Send the settings as text, `{"rate": 48000, "window": 4.0, "hop": 1.0, "format": "f32"}`
(or `s16`); the server answers `{"type": "ready", ...}`. Then send mono samples, little-endian, as binary messages;
each complete window comes back as `{"type": "window", "start", "end", "silent", "scores"}`. Send `{"type": "finish"}`
for the last windows and `{"type": "timeline", ...}` as from `/v1/timeline`. Before it hangs up on you, the server says
why: `{"type": "error", "code", "message"}`; a message that is too large may end in closing code 1009 alone.
"""
REFUSED = declared(400, 403, 408, 413, 415, 422, 429, 500, 503)
HEARD_OUT = 4  # a body so many times too large is read on, so that its sender comes to see the answer


def make_app(recognizer: EmotionRecognizer, limits: Limits, name: str = "serein") -> FastAPI:
    """The web application; its :class:`Service` is at ``app.state.service``.

    Args:
        recognizer: the model that answers.
        limits: how much it takes from anybody.
        name: the model's, in answers.
    """
    service = Service(recognizer, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = _Sealed(
        title="serein",
        version=version("serein"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    _add_speech(app, service, name)
    _add_facts(app, service, name)
    _add_page(app)
    _add_errors(app)
    return app


class _Sealed(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """With the door outermost, so that Starlette's answer to a fault is sealed and counted too."""
        service: Service = self.state.service
        routes = frozenset(route.path for route in self.routes if isinstance(route, Route))
        patience = HEARD_OUT * service.limits.body_bytes
        return Door(super().build_middleware_stack(), service.metrics, routes, patience)


def _add_speech(app: FastAPI, service: Service, name: str) -> None:
    recognizer = service.recognizer

    @app.post("/v1/predict", responses=REFUSED, openapi_extra=RECORDING)
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Prediction:
        """Scores of one recording."""
        async with service.recording(request) as heard:
            probabilities = await while_there(request, service.predict(heard.samples))
        scores = rank(recognizer.labels, probabilities.tolist())
        return Prediction(
            scores=scores[: query.top_k],
            label=scores[0]["label"] if recognizer.sure(scores) else None,
            seconds=heard.seconds,
            warnings=heard.warnings,
            model={"name": name, "labels": recognizer.labels},
        )

    texts: dict[int | str, dict[str, Any]] = {
        200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/csv", "text/plain")}}
    }

    @app.post("/v1/timeline", response_model=TimelineReply, responses=texts | REFUSED, openapi_extra=RECORDING)
    async def timeline(request: Request, query: Annotated[TimelineQuery, Query()]) -> Any:
        """Scores of overlapping windows along one recording, and the segments that they add up to."""
        async with service.recording(request) as heard:
            _check_work(heard.seconds, query, service.limits)
            found = await while_there(request, service.timeline(heard.samples, query.window, query.hop))
            text = await service.aside(partial(_written, found, query.format, heard.warnings))
        return Response(text, media_type=KINDS[query.format])

    @app.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await converse(websocket, service)


def _check_work(seconds: float, query: TimelineQuery, limits: Limits) -> None:
    window = min(query.window, seconds)
    least = seconds * window / limits.timeline_seconds
    if query.hop < least:
        wanted = f"{math.ceil(100 * least) / 100:g} s"
        raise Refusal("bad_query", f"hop: for {seconds:.0f} s in windows of {window:g} s at least {wanted}")


def _written(found: Timeline, form: str, warnings: Sequence[str]) -> str:
    match form:
        case "csv":
            return found.to_csv()
        case "audacity":
            return found.to_audacity()
        case "rttm":
            return found.to_rttm("recording")
    return compact(found.as_dict() | {"warnings": [*warnings, *found.warnings]})


def _add_facts(app: FastAPI, service: Service, name: str) -> None:
    config = service.recognizer.config

    @app.get("/v1/model")
    async def model() -> ModelReply:
        """The model that answers here, and how much it takes."""
        return ModelReply(
            name=name,
            labels=list(config.labels),
            encoder=config.encoder.without_folder().name,
            temperature=config.temperature,
            abstain_below=config.abstain_below,
            limits=asdict(service.limits) | BOUNDS,
        )

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> Health:
        """The server is there."""
        return Health()

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", responses=declared(503))
    async def readyz() -> Health:
        """The server takes new work."""
        if service.draining:
            raise Refusal("draining")
        return Health()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/static", StaticFiles(directory=PAGE))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> JSONResponse:
        return Refusal("failed").reply()  # Starlette then raises the fault again, for uvicorn's log

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> None:
        """Nobody is there to be answered."""

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> JSONResponse:
        return refusal.reply()

    @app.exception_handler(RequestValidationError)
    async def bad_query(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{fault['loc'][-1]}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()[:3]]
        return Refusal("bad_query", "; ".join(faults)).reply()

    @app.exception_handler(HTTPException)
    async def no_route(_: Request, error: HTTPException) -> JSONResponse:
        reply = Refusal("wrong_method" if error.status_code == 405 else "not_found").reply()
        reply.headers.update(error.headers or {})
        return reply
