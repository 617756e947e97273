"""Validation errors as a user should read them: `spec.rules[0].backendRefs[1].weight: must be >= 0`."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from proxy.resources.fields import Spec, kind_of


class ResourceError(ValueError):
    """What a user wrote is not valid. `problems` names every fault found, one line each. Nothing was changed."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def problems_of(error: ValidationError, root: str) -> list[str]:
    """One line for each fault: `<path>: <what is wrong>`. `root` is the path of the validated value itself."""
    errors = error.errors(include_url=False)
    return [
        f"{_path(each['loc'], root)}: {_words(each)}"
        for each in errors
        # Entries that failed are not counted, so a list of faulty entries would also be called too short.
        if each["type"] != "too_short" or not any(_below(other["loc"], each["loc"]) for other in errors)
    ]


def _below(location: tuple[int | str, ...], above: tuple[int | str, ...]) -> bool:
    return len(location) > len(above) and location[: len(above)] == above


def _path(location: tuple[int | str, ...], root: str) -> str:
    path = root
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step == "[key]":
            path += " (key)"
        elif "." in step or "/" in step or "[" in step:
            path += f"[{step!r}]"
        else:
            path += f".{step}" if path else step
    return path


def _words(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    given = error["input"]
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown(str(error["loc"][-1]))
        case "value_error":
            return str(context["error"])
        case "string_type":
            return f"must be a string, not {kind_of(given)}"
        case "int_type" | "int_from_float":
            return f"must be a whole number, not {kind_of(given)}"
        case "float_type":
            return f"must be a number, not {kind_of(given)}"
        case "bool_type":
            return f"must be true or false, not {kind_of(given)}"
        case "tuple_type" | "list_type":
            return f"must be a list, not {kind_of(given)}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"must be a mapping, not {kind_of(given)}"
        case "literal_error":
            options = str(context["expected"]).replace(" or ", ", ").replace("'", "")
            return f"must be one of {options}, not {given!r:.80}"
        case "greater_than_equal":
            return f"must be >= {context['ge']}"
        case "greater_than":
            return f"must be > {context['gt']:g}"
        case "less_than_equal":
            return f"must be <= {context['le']}"
        case "too_long" if context.get("field_type") != "String":
            return f"must have at most {context['max_length']} entries"
        case "too_short" if context.get("field_type") != "String":
            return (
                "must not be empty"
                if context["min_length"] == 1
                else f"needs {context['min_length']} entries"
            )
        case "string_too_long":
            return f"must have at most {context['max_length']} characters"
        case "string_too_short":
            return "must not be empty"
        case _:
            return error["msg"][:1].lower() + error["msg"][1:]


def _unknown(name: str) -> str:
    close = get_close_matches(name, [each for each in _known_names() if each != name], 1, 0.75)
    return f"unknown field (did you mean {close[0]}?)" if close else "unknown field"


@cache
def _known_names() -> tuple[str, ...]:
    """Every field name of every schema as it is written, for suggestions."""

    def below(model: type[BaseModel]) -> Iterable[type[BaseModel]]:
        for each in model.__subclasses__():
            yield each
            yield from below(each)

    return tuple(
        sorted({_written(name, info) for model in below(Spec) for name, info in model.model_fields.items()})
    )


def _written(name: str, info: FieldInfo) -> str:
    alias = info.validation_alias
    first = alias.choices[0] if isinstance(alias, AliasChoices) else alias
    return first if isinstance(first, str) else name
