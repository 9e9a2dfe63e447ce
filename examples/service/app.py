"""A web service that calls an agent: it knows the gateway's URL, and neither Kafka nor the agent's code.

headwater dev --app examples.desk.app:app &
uvicorn examples.service.app:app --port 8081 &
curl -d '{"customer": "ana", "text": "My card 4711 was stolen!"}' http://127.0.0.1:8081/letters
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import pydantic
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import headwater
from headwater.client import RefusedError

WAIT_S = 5.0
"""How long a visitor waits for the answer; the run goes on for as long as it takes."""


class Letter(pydantic.BaseModel):
    """What visitors post; its JSON is all that the agent's type must agree with."""

    customer: str
    text: str


class Answer(pydantic.BaseModel):
    """What this service needs of the agent's answer."""

    text: str


async def write(request: Request) -> Response:
    """Hand a letter to the desk: 200 with the answer, or 202 with where it will be."""
    hw: headwater.Client = request.state.hw
    try:
        letter = Letter.model_validate_json(await request.body())
    except pydantic.ValidationError as error:
        return JSONResponse({"error": error.errors(include_url=False)[0]["msg"]}, status_code=422)
    # A visitor who tries again with the same key gets the same run: nothing is done twice.
    key = request.headers.get("idempotency-key")
    try:
        task = await hw.submit("desk", letter, output=Answer, id=key)
    except RefusedError as error:
        return JSONResponse({"error": str(error)}, status_code=error.status)
    except headwater.TransientError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    try:
        answer = await task.result(timeout_s=WAIT_S)
    except TimeoutError:  # not a failure of the run: perhaps a person has to decide
        return JSONResponse({"letter": f"/letters/{task.id}"}, status_code=202)
    except headwater.AgentError as error:
        return JSONResponse({"error": f"the desk could not answer: {error}"}, status_code=502)
    return JSONResponse(answer.model_dump())


async def read(request: Request) -> Response:
    """Say how far a letter is."""
    hw: headwater.Client = request.state.hw
    try:
        run = await hw.get(f"/api/v1/runs/{request.path_params['task']}")
    except RefusedError as error:
        return JSONResponse({"error": str(error)}, status_code=error.status)
    except headwater.TransientError as error:
        return JSONResponse({"error": str(error)}, status_code=503)
    return JSONResponse({"status": run["status"], "answer": run.get("outcome")})


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, headwater.Client]]:
    """Share one client, and its connections, among all requests."""
    url = os.environ.get("HEADWATER_URL", "http://127.0.0.1:8080")
    async with headwater.Client(url, token=os.environ.get("HEADWATER_TOKEN", "")) as hw:
        yield {"hw": hw}


app = Starlette(
    routes=[
        Route("/letters", write, methods=["POST"]),
        Route("/letters/{task}", read),
    ],
    lifespan=lifespan,
)
