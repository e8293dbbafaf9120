"""The settings of a run: strict, read from TOML, written back as resolved."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serein.errors import UsageError


class Section(BaseModel):
    """Something read from a file; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Section):
    """A table of a recipe; a value of another kind is an error too: no true for 1, no "7" for 7."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Model(Settings):
    """The network. Changes results."""

    width: int = Field(384, ge=8, description="width of the adapter (D of the paper)")
    blocks: int = Field(3, ge=1, description="transformer blocks")
    heads: int = Field(6, ge=1, description="attention heads of a block")
    dropout: float = Field(0.0, ge=0, lt=1, description="inside the blocks")
    layer_mix: Literal["softmax", "joined"] = Field("softmax", description="average of the encoder's layers, or all")
    pooling_heads: int = Field(4, ge=1, description="heads of attentive statistics pooling")
    pooling_variance: Literal["corrected", "printed"] = Field("corrected", description="second line of eq. 7")

    pooled_norm: Literal["l2", "batch"] = Field("l2", description="of the pooled statistics; l2 is the paper's")
    talker_statistics: Literal["none", "z-norm"] = Field(
        "none", description="z-norm: standardise frames with audio of the same talker, test talkers too"
    )

    members: int = Field(1, ge=1, le=100, description="networks trained from different draws, and averaged")
    test_views: bool = Field(False, description="also judge a recording at each speed of the views, and average")

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "Model":
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self

    @model_validator(mode="after")
    def _batch_norm_gets_standard_deviations(self) -> "Model":
        if self.pooling_variance == "printed" and self.pooled_norm == "batch":
            raise ValueError(
                'pooling_variance = "printed" can be negative and so has no standard deviation for pooled_norm = '
                '"batch" to norm; set pooled_norm = "l2"'
            )
        return self


class Adapt(Settings):
    """Adapter training without labels. Changes results."""

    data: Literal["none", "inductive", "transductive", "elsewhere"] = Field(
        "inductive",
        description="none: a fresh adapter; inductive: training talkers' audio; transductive: all talkers', test too; "
        "elsewhere: only the stores given with --unlabelled, which the others hear as well",
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(96, ge=1, description="utterances of mean length in a batch")
    learning_rate: float = Field(1e-4, gt=0, description="at the start of its cosine")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0)
    mask_ratio: float = Field(0.4, gt=0, lt=1, description="share of frames hidden from the student")
    mask_span: float = Field(1.0, ge=1, description="mean length of a hidden stretch, frames")
    ema_decay: float = Field(0.999, ge=0, le=1, description="alpha of eq. 2, every step")
    target_norm: Literal["none", "layer"] = Field("none", description="of the teacher's frames; none is eq. 1's text")
    attributes: int = Field(1024, ge=2, description="K local attributes")
    attribute_decay: float = Field(0.99, ge=0, lt=1, description="forgetting of their counts")
    attribute_eta: float | None = Field(None, gt=0, le=1, description="a fixed eta_t of eq. 5")
    revive_below: float = Field(0.02, ge=0, lt=1, description="fraction of uniform usage")
    similarity: Literal["cosine", "distance"] = Field("cosine", description="the student's logits")
    temperature: float = Field(0.1, gt=0)
    reconstruction_start: float = Field(1.0, ge=0, le=1, description="lambda of eq. 6 at the first step")
    reconstruction_end: float = Field(0.5, ge=0, le=1, description="and at the last")
    hand_on: Literal["teacher", "student"] = Field("teacher", description="which branch is fine-tuned")

    @model_validator(mode="after")
    def _spans_leave_visible_frames(self) -> "Adapt":
        if self.mask_span > 1 and self.mask_span * (1 - self.mask_ratio) < self.mask_ratio:
            raise ValueError(f"mask_ratio = {self.mask_ratio} cannot be reached with mask_span = {self.mask_span}")
        return self


class Finetune(Settings):
    """Training with labels. Changes results."""

    epochs: int = Field(100, ge=1)
    min_steps: int = Field(
        0, ge=0, description="more epochs, where the utterances (not their copies) are too few for it"
    )
    batch_size: int = Field(96, ge=1, description="utterances of mean length in a batch")
    learning_rate: float = Field(1e-4, gt=0, description="of the adapter alone, at the start of its cosine")
    head_learning_rate: float = Field(1e-3, gt=0, description="of the layers after the adapter")
    baseline_learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-3, 3e-3, 1e-2),
        min_length=1,
        strict=False,  # TOML has lists only; what stands in them stays strict
        description="among which a baseline chooses on the validation talkers",
    )
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0)
    balance: Literal["masked-copies", "class-weights", "none"] = Field(
        "masked-copies", description="what makes minority classes count"
    )
    copy_mask_ratio: float = Field(0.4, gt=0, lt=1, description="share of frames hidden in a masked copy")
    frame_masking: float = Field(0.0, ge=0, lt=1, description="share of frames hidden in every training utterance")
    head_dropout: float = Field(0.0, ge=0, lt=1, description="on the adapter's pooled vector")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    label_share: float = Field(1.0, gt=0, le=1, description="share of each class's labels that are trained on")


class Speed(Settings):
    """Changes how long a run takes, not what it is (the last digits follow the precision)."""

    device: str = Field("auto", pattern=r"^[a-z]+(:\d+)?$", description="auto, cpu, cuda, cuda:1")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of matrix products")
    checkpoint_seconds: float = Field(
        60.0, ge=0, allow_inf_nan=True, description="time between checkpoints; 0: every step; inf: after a stage only"
    )
    frames: Literal["memory", "mapped"] = Field(
        "memory", description="mapped: left on disk, for a store that memory does not hold; without views"
    )


class Recipe(Section):
    """All settings of a run.

    Example:
        >>> Recipe().adapt.attributes
        1024
        >>> Recipe.from_toml("", ["adapt.attributes=256"]).adapt.attributes
        256
    """

    model: Model = Model()
    adapt: Adapt = Adapt()
    finetune: Finetune = Finetune()
    speed: Speed = Speed()

    @classmethod
    def from_toml(cls, text: str, changes: Sequence[str] = (), source: str = "recipe") -> "Recipe":
        """Parse a recipe.

        Args:
            text: TOML with the tables ``[model]``, ``[adapt]``, ``[finetune]``, ``[speed]``; what is not named has
                its default: the paper's sizes and epochs, see docs/decisions.md for where it departs.
            changes: ``table.key=value`` each, applied on top; the value is TOML, or else what
                Python reads in it, or text.
            source: what to call the text in an error.

        Raises:
            UsageError: no TOML, an unknown key, or a value out of its range; says which.
        """
        try:
            content: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{source}: is not TOML: {error}") from error
        for change in changes:
            _apply(content, change)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}{_known(cls, fault['loc'])}"
                for fault in error.errors()
            )
            raise UsageError(f"{source}: {faults}") from error

    @classmethod
    def read(cls, path: str | Path, changes: Sequence[str] = ()) -> "Recipe":
        """Read a recipe file; see :meth:`from_toml`."""
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UsageError(f"{path}: recipe cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: recipe cannot be read: it is not UTF-8 ({error.reason})") from error
        return cls.from_toml(text, changes, source=str(path))

    def to_toml(self) -> str:
        """The recipe as resolved, every key named."""
        lines: list[str] = []
        for name, table in self.model_dump(exclude_none=True).items():
            lines.append(f"[{name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
            lines.append("")
        return "\n".join(lines)


def _apply(content: dict[str, Any], change: str) -> None:
    path, separator, text = change.partition("=")
    table, dot, key = path.strip().partition(".")
    if not (separator and dot and table and key):
        raise UsageError(f"--set {change}: write table.key=value, for example --set adapt.attributes=256")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = _plain(text.strip())
    section = content.setdefault(table, {})
    if not isinstance(section, dict):
        raise UsageError(f"--set {change}: {table} is no table in the recipe")
    section[key] = value


def _plain(text: str) -> bool | float | str:
    """What is no TOML but plain enough to whoever types it: True, .3, 1.; else it is text."""
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def _known(recipe: type[Recipe], place: tuple[int | str, ...]) -> str:
    """For an unknown key: the keys that there are."""
    fields = recipe.model_fields
    if place[0] not in fields:
        return f" (tables: {', '.join(fields)})"
    section = fields[str(place[0])].annotation
    if len(place) > 1 and section is not None and place[1] not in section.model_fields:
        return f" (keys: {', '.join(section.model_fields)})"
    return ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
