"""The typed arguments of a picture search, as an LLM is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from .errors import SearchArgumentError

OPERATORS = (
    "==",
    "!=",
    ">",
    ">=",
    "<",
    "<=",
    "in",
    "nin",
    "any",
    "all",
    "contains",
    "text_match",
    "is_empty",
)
"""What filters may compare by: those of LlamaIndex that Milvus has."""

MAX_TEXT, MAX_NAME, MAX_FILTERS, MAX_VALUES = 2000, 1000, 10, 50
"""Longest text, longest path or id, in characters; most filters, and most values of one."""

_LISTS = {"in", "nin", "any", "all"}
_Value = str | int | float | bool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def arguments_model(
    *, paths: str | None, filter_fields: Mapping[str, str], default_top_k: int, max_top_k: int
) -> type[BaseModel]:
    """Return the schema of a search; what is not allowed is not in it.

    Args:
        paths: which pictures may be named, in words; None for none.
        filter_fields: metadata that may be filtered by, each with what it is.
        default_top_k: results where none are asked for.
        max_top_k: the most results that may be asked for.
    """
    fields: dict[str, Any] = {
        "text": (
            str | None,
            Field(
                default=None,
                max_length=MAX_TEXT,
                description="What to look for, in words; together with a picture, what the picture is to be "
                "changed to or found on, such as 'the same in red' or 'a mug with this'.",
            ),
        ),
        "image_id": (
            str | None,
            Field(
                default=None,
                max_length=MAX_NAME,
                description="The id of a result of an earlier search; its picture is the query picture.",
            ),
        ),
    }
    if paths is not None:
        fields["image_path"] = (
            str | None,
            Field(default=None, max_length=MAX_NAME, description=f"A query picture: {paths}"),
        )
    if filter_fields:
        known = "; ".join(f"{name}: {text}" if text else name for name, text in filter_fields.items())
        parts: dict[str, Any] = {
            "field": (Literal[tuple(filter_fields)], Field(description=f"One of: {known}")),
            "operator": (
                Literal[OPERATORS],
                Field(default="==", description="in, nin, any and all take a list; is_empty takes no value."),
            ),
            "value": (_Value | list[_Value] | None, Field(default=None)),
        }
        one = create_model("Filter", __base__=_Strict, **parts)
        fields["filters"] = (
            list[one] | None,  # type: ignore[valid-type]
            Field(default=None, max_length=MAX_FILTERS, description="Conditions that all results meet."),
        )
    fields["top_k"] = (
        int | None,
        Field(default=None, ge=1, le=max_top_k, description=f"How many results; {default_top_k} by default."),
    )
    return create_model("ImageSearchArguments", __base__=_Strict, **fields)


def checked(model: type[BaseModel], arguments: Mapping[str, Any]) -> Any:
    """Return the arguments of a call.

    Raises:
        SearchArgumentError: they do not fit; it names value, what is allowed, and what to do.
    """
    try:
        return model.model_validate(dict(arguments))
    except ValidationError as error:
        problems = []
        for each in error.errors()[:3]:
            place = ".".join(str(part) for part in each["loc"])[:80]
            if each["type"] == "extra_forbidden":
                problems.append(f"{place} is no argument; arguments are {', '.join(model.model_fields)}")
            else:
                problems.append(f"{place} is {shortened(each['input'], 80)!r}: {each['msg'][:300]}")
        raise SearchArgumentError(". ".join(problems)) from None


def metadata_filters(given: Iterable[Any] | None) -> list[MetadataFilter | MetadataFilters]:
    """Return LlamaIndex' filters for those of a call.

    Raises:
        SearchArgumentError: an operator and its value do not go together.
    """
    filters: list[MetadataFilter | MetadataFilters] = []
    for one in given or ():
        takes_list = one.operator in _LISTS
        if one.operator == FilterOperator.IS_EMPTY.value:
            if one.value is not None:
                raise SearchArgumentError(
                    f"the filter on {one.field} has the value {shortened(one.value, 80)!r}: leave it out "
                    "with is_empty"
                )
        elif one.value is None:
            raise SearchArgumentError(
                f"the filter on {one.field} has no value: give one, or use the operator is_empty"
            )
        elif isinstance(one.value, list) != takes_list:
            raise SearchArgumentError(
                f"the filter on {one.field} has the value {shortened(one.value, 80)!r}: "
                f"{one.operator} takes {'a list' if takes_list else 'a single value, no list'}"
            )
        elif takes_list and len(one.value) > MAX_VALUES:
            raise SearchArgumentError(
                f"the filter on {one.field} has {len(one.value)} values: give at most {MAX_VALUES}"
            )
        elif takes_list and len({isinstance(value, str) for value in one.value}) > 1:
            raise SearchArgumentError(
                f"the filter on {one.field} has the value {shortened(one.value, 80)!r}: the values of a list "
                "are texts or numbers, not both"
            )
        filters.append(
            MetadataFilter(key=one.field, operator=FilterOperator(one.operator), value=_comparable(one.value))
        )
    return filters


def _comparable(value: Any) -> Any:
    """Return a value as LlamaIndex' filters take it: True and False as 1 and 0, which match them."""
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    return int(value) if isinstance(value, bool) else value


def shortened(value: Any, length: int) -> str:
    """Return a value as text of at most so many characters."""
    text = str(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"
