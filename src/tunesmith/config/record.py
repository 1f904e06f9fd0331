"""Plain, frozen, keyword-only data; the string under a field is its documentation."""

from dataclasses import dataclass
from typing import Annotated, TypeVar, dataclass_transform

from annotated_types import Ge, Gt, Le, Lt

T = TypeVar("T")

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Share = Annotated[float, Gt(0), Le(1)]
Beta = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    setattr(cls, "__pydantic_config__", {"extra": "forbid"})  # noqa: B010 - pydantic looks for it there
    return dataclass(frozen=True, kw_only=True)(cls)
