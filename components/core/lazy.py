"""A sequence whose elements are made where somebody looks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Made = TypeVar("Made", covariant=True)


class LazySequence(Sequence[Made]):
    """Who inherits says how many there are, and makes one."""

    @abstractmethod
    def make(self, at: int) -> Made: ...

    @overload
    def __getitem__(self, at: int) -> Made: ...
    @overload
    def __getitem__(self, at: slice) -> list[Made]: ...
    def __getitem__(self, at: int | slice) -> Made | list[Made]:
        if isinstance(at, slice):
            return [self.make(place) for place in range(*at.indices(len(self)))]
        return self.make(range(len(self))[at])
