"""Values: small classes that a datagram or a step makes by the thousand, and that cost no more than they must.

To the type checker a `@value` is a frozen, keyword-only dataclass. At run time it is slotted and compares and hashes by
its fields, as a frozen one does; but nothing guards its attributes, because it is the guard that makes a frozen
dataclass two to three times as expensive to make (`object.__setattr__` for each field).

Invariant: nobody assigns to a field of a value; mypy refuses it.
"""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """See the module's theory."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
