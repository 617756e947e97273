"""The building blocks of every schema: the base model, names, durations, header names, references.

Scalars are strict: `"5"` is no number and `yes` no flag. Durations are Gateway API's (GEP-2257): up to four parts of
at most five digits with the units h, m, s, ms.
"""

import re
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)
from pydantic.alias_generators import to_camel

from proxy.regex import LinearRegex

LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_DURATION: Final = re.compile(r"(?:\d{1,5}(?:h|m|s|ms)){1,4}")
_DURATION_PART: Final = re.compile(r"(\d+)(h|ms|m|s)")
_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

LABELS_MAX: Final = 64


class Spec(BaseModel):
    """Base of every schema: unknown fields are errors, instances do not change, names are written in camelCase."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


def _refuse(value: Any) -> None:
    raise ValueError("is not supported yet")


# A field that the specification has and this version does not: giving it is an error, whatever its value.
Unsupported = Annotated[None, BeforeValidator(_refuse)]


def parse_duration_s(text: str) -> float:
    """Seconds of "1h30m", "5s", "100ms". Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"must be a duration such as 5s, 100ms or 1h30m, not {text!r}")
    return sum(int(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(text))


def _duration(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError(f"must be a duration such as 5s or 100ms, not {kind_of(value)}")
    return parse_duration_s(value)


def _label(text: str) -> str:
    if not LABEL.fullmatch(text):
        raise ValueError(f"must be a DNS label (a-z, 0-9, '-', at most 63 characters), not {_shown(text)}")
    return text


def _subdomain(text: str) -> str:
    if not _SUBDOMAIN.fullmatch(text) or max(map(len, text.split("."))) > 63:
        raise ValueError(f"must be DNS labels joined by dots (at most 253 characters), not {_shown(text)}")
    return text


def _header_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"must be a header name, not {_shown(text)}")
    return text.lower()


def _header_value(text: str) -> str:
    if not _HEADER_VALUE.fullmatch(text) or text != text.strip():
        raise ValueError("must not hold control characters, nor begin or end with a space")
    return text


_NUMBER_MAX: Final = 10**300


def check_regex(pattern: str) -> None:
    """Raises ValueError (RegexError) when the pattern is not one that matches in linear time."""
    LinearRegex(pattern)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 64 else text[:61] + "...")


def kind_of(value: Any) -> str:
    """What a value is, in the words of YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() if abs(value) >= _NUMBER_MAX:  # JSON has such, and no float holds them
            return "a number of hundreds of digits"
        case int() | float():
            return f"the number {value:.20g}"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


Seconds = Annotated[float, BeforeValidator(_duration)]
SomeSeconds = Annotated[Seconds, Field(gt=0)]
Label = Annotated[StrictStr, AfterValidator(_label)]
Subdomain = Annotated[StrictStr, AfterValidator(_subdomain)]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Percent = Annotated[StrictInt, Field(ge=0, le=100)]
Flag = StrictBool
HeaderName = Annotated[StrictStr, AfterValidator(_header_name)]
HeaderValue = Annotated[StrictStr, Field(max_length=4096), AfterValidator(_header_value)]
Labels = Annotated[
    dict[
        Annotated[StrictStr, Field(min_length=1, max_length=317)],
        Annotated[StrictStr, Field(max_length=1024)],
    ],
    Field(max_length=LABELS_MAX),
]


def _core(text: str) -> str:
    if text not in {"", "core"}:
        raise ValueError(f'must be "" or core (the group of Service), not {_shown(text)}')
    return ""


def _service_kind(text: str) -> str:
    if text != "Service":
        raise ValueError(f"must be Service ({_shown(text)} is not supported)")
    return text


CoreGroup = Annotated[StrictStr, AfterValidator(_core)]
ServiceKind = Annotated[StrictStr, AfterValidator(_service_kind)]


class TargetRef(Spec):
    """A service in the policy's own namespace (GEP-713 LocalPolicyTargetReference)."""

    group: CoreGroup = ""
    kind: ServiceKind
    name: Label
    section_name: Unsupported = None
