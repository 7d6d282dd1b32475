"""Messages: records that nobody changes once they are made.

The type checker holds everybody to that. At run time they are plain slotted dataclasses, because
setting the fields of a frozen one costs five times as much, and each request takes several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True)
def message(cls: type[Class]) -> type[Class]:
    """Make a slotted dataclass of `cls` whose instances are compared by value."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
