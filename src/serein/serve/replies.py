"""What the server may be asked, and what it answers: schemas with examples."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serein.serve.limits import LONGEST_WINDOW, MOST_OVERLAP, SHORTEST_HOP, SHORTEST_WINDOW

Seconds = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
SCORES = {"angry": 0.81, "happy": 0.12, "neutral": 0.05, "sad": 0.02}


def example(**values: Any) -> ConfigDict:
    """A schema's settings: this example."""
    return ConfigDict(json_schema_extra={"example": values})


def compact(reply: Any) -> str:
    """JSON as short as it can be."""
    return json.dumps(reply, separators=(",", ":"), ensure_ascii=False)


class PredictQuery(BaseModel, extra="forbid"):
    """How many labels to name."""

    top_k: int | None = Field(None, ge=1, le=1000, description="How many labels, best first; by default all.")


class Windows(BaseModel, extra="forbid"):
    """How a recording is cut into overlapping windows."""

    window: float = Field(
        4.0, ge=SHORTEST_WINDOW, le=LONGEST_WINDOW, allow_inf_nan=False, description="Seconds that are judged at once."
    )
    hop: float = Field(
        1.0,
        ge=SHORTEST_HOP,
        le=LONGEST_WINDOW,
        allow_inf_nan=False,
        description=f"Seconds between the starts of windows; at most `window`, at least its {MOST_OVERLAP:.0f}th part.",
    )

    @model_validator(mode="after")
    def _overlap(self) -> "Windows":
        if not self.window / MOST_OVERLAP <= self.hop <= self.window:
            raise ValueError(f"hop {self.hop:g} is not within {self.window / MOST_OVERLAP:g} and {self.window:g} s")
        return self


class TimelineQuery(Windows):
    """A timeline, and in which form."""

    format: Literal["json", "csv", "audacity", "rttm"] = Field("json", description="Of the answer.")


class StreamSettings(Windows):
    """The first message of a stream."""

    rate: int = Field(ge=4_000, le=384_000, description="Samples a second.")
    format: Literal["f32", "s16"] = Field("f32", description="Of the samples: float32, or 16-bit integers.")


class Finish(BaseModel, extra="forbid"):
    """The last message of a stream."""

    type: Literal["finish"]


class Score(BaseModel):
    """A label and its probability."""

    label: str
    score: Probability


class ModelName(BaseModel):
    """Which model spoke."""

    name: str
    labels: list[str]


class Prediction(BaseModel):
    """Scores of one recording."""

    model_config = example(
        scores=[{"label": label, "score": score} for label, score in SCORES.items()],
        label="angry",
        seconds=3.72,
        warnings=[],
        model={"name": "my-model", "labels": list(SCORES)},
    )

    scores: list[Score] = Field(description="Best first.")
    label: str | None = Field(description="The best one; null where its score is below the model's `abstain_below`.")
    seconds: Seconds
    warnings: list[str] = Field(description="What was wrong with the file and could be mended.")
    model: ModelName


class WindowReply(BaseModel):
    """What was heard in one window."""

    start: Seconds
    end: Seconds
    silent: bool = Field(description="Nobody spoke; the scores mean nothing.")
    scores: dict[str, Probability]


class SegmentReply(BaseModel):
    """A stretch with one emotion."""

    start: Seconds
    end: Seconds
    label: str = Field(description="An emotion, or `silence`.")
    score: Probability


class TimelineReply(BaseModel):
    """Emotions along a recording."""

    model_config = example(
        labels=list(SCORES),
        hop=1.0,
        seconds=4.0,
        windows=[{"start": 0.0, "end": 4.0, "silent": False, "scores": SCORES}],
        segments=[{"start": 0.0, "end": 4.0, "label": "angry", "score": 0.81}],
        warnings=[],
    )

    labels: list[str]
    hop: Seconds
    seconds: Seconds
    windows: list[WindowReply]
    segments: list[SegmentReply]
    warnings: list[str] = Field(
        description="What was wrong with the file and could be mended; how many windows could not be judged."
    )


class ModelReply(BaseModel):
    """The model that answers here, and how much it takes."""

    model_config = example(
        name="my-model",
        labels=list(SCORES),
        encoder="facebook/hubert-large-ls960-ft",
        temperature=1.3,
        abstain_below=0.4,
        limits={"body_bytes": 25_000_000, "audio_seconds": 600.0},
    )

    name: str
    labels: list[str]
    encoder: str
    temperature: float
    abstain_below: float
    limits: dict[str, float]


class Health(BaseModel):
    """The server is there."""

    model_config = example(status="ok")

    status: Literal["ok"] = "ok"
