"""Quantities of an experiment file as pydantic takes them: durations and shares; and the model all else is built on.

Invariant: a value that was read is finite and in range; whatever is not is refused with the field's name.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from peer.units import parse_duration_s, parse_percent

DURATION_S_MAX: Final = 30 * 86_400.0


class Model(BaseModel):
    """Unknown keys are refused: a fault that is misspelt is a fault that does not happen."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, str_strip_whitespace=True)


def _seconds(value: object) -> object:
    return round(parse_duration_s(value), 6) if isinstance(value, str | int | float) else value


def _share(value: object) -> object:
    """A share of "30%", or a number from 0 to 1."""
    if isinstance(value, str):
        return 0.0 if value.strip() in ("0%", "0") else parse_percent(value) / 100
    return value


def written_s(seconds: float) -> str:
    """The shortest way to write a duration that is read back as the same."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:g}h"
    milliseconds = round(seconds * 1000, 3)
    return f"{milliseconds:g}ms" if seconds < 1 and seconds else f"{round(seconds, 6):.10g}s"


Seconds: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(ge=0, le=DURATION_S_MAX),
    PlainSerializer(written_s, when_used="json"),
]
Share: TypeAlias = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
NodeName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
