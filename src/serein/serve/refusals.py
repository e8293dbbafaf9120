"""What the server says when it does not answer: one status and one code for each reason."""

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse


class Reason(NamedTuple):
    """A status and the sentence that goes with it where there is no better one."""

    status: int
    message: str


REASONS = {
    "bad_multipart": Reason(400, "this multipart body cannot be read; send one file, in a part named `file`"),
    "foreign_origin": Reason(403, "pages of other sites may not ask this server"),
    "not_found": Reason(404, "there is nothing at this address; see /openapi.json"),
    "wrong_method": Reason(405, "this address does not take this method; see the Allow header"),
    "slow_body": Reason(408, "the body did not arrive in time; send it again, or send less"),
    "too_large": Reason(413, "the body is larger than this server takes"),
    "too_long": Reason(413, "the recording lasts longer than this server takes"),
    "unsupported_type": Reason(415, "send the bytes of an audio file (audio/*, application/octet-stream) or multipart"),
    "unsupported_audio": Reason(415, "this is not audio in a format that serein decodes"),
    "bad_query": Reason(422, "a parameter of the query is wrong"),
    "corrupt_audio": Reason(422, "the recording is damaged"),
    "too_short": Reason(422, "the recording is too short"),
    "non_finite_audio": Reason(422, "the recording holds samples that are no numbers"),
    "too_slow": Reason(422, "decoding took too long; convert the recording to WAV or FLAC, or cut it"),
    "busy": Reason(429, "as many requests as this server takes are waiting; try again"),
    "failed": Reason(500, "the server failed; this is a fault of the server, not of the request"),
    "draining": Reason(503, "this server is stopping; ask another one"),
}
RETRY_SECONDS = 2


class ErrorBody(BaseModel):
    """Why."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"code": "too_short", "message": REASONS["too_short"].message}}
    )

    code: str
    message: str


class ErrorReply(BaseModel):
    """What every status from 400 carries."""

    error: ErrorBody


class Refusal(Exception):  # an answer to a request, not a fault of ours
    """A request is not answered.

    Args:
        code: one of ``REASONS``.
        message: says more than the one there.
    """

    def __init__(self, code: str, message: str = "") -> None:
        self.code = code
        self.status, standard = REASONS[code]
        self.message = message or standard
        super().__init__(self.message)

    def reply(self) -> JSONResponse:
        """The response that says it."""
        headers = {"Retry-After": str(RETRY_SECONDS)} if self.status in (429, 503) else {}
        return JSONResponse({"error": {"code": self.code, "message": self.message}}, self.status, headers)


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entries for these statuses: the codes that come with each, and the schema."""
    return {
        status: {
            "model": ErrorReply,
            "description": ", ".join(f"`{code}`" for code, reason in REASONS.items() if reason.status == status),
        }
        for status in statuses
    }
