"""Values as Feast's online store holds them, read without a Python object for each element of a list.

A value is a protobuf message `feast.types.Value`. A list in it is a message too: floats lie packed, least byte first;
strings are records of a tag, a length and the text. What is laid out otherwise is left to protobuf's own reader.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, overload

import numpy as np
import numpy.typing as npt

DOUBLE_TAG = 0x29  # field 5, double_val
INT64_TAG = 0x20  # field 4, int64_val
STRINGS_TAG = b"\x62"  # field 12 of a Value, string_list_val
FLOATS_TAG = b"\x82\x01"  # field 16, float_list_val
RECORD_TAG = b"\x0a"  # field 1 of either: one string, or all floats
DOUBLE_BYTES = 9
RECORD_HEAD = 2  # bytes before a text of less than 128: the tag and its length
ONE_BYTE = 128  # lengths below it take one byte
_DOUBLE = struct.Struct("<d")
PACKED = np.dtype("<f4")
_DOUBLES = np.dtype([("tag", "u1"), ("value", "<f8")])

Offsets = npt.NDArray[np.int64]
Decode = Callable[[bytes], Any]


class StoredStrings(Sequence[str]):
    """A stored list of strings, decoded when somebody looks at it."""

    __slots__ = ("_decode", "_decoded", "_value")

    def __init__(self, value: bytes, decode: Decode) -> None:
        """`decode`: protobuf's reader of a Value."""
        self._value, self._decode = value, decode
        self._decoded: list[str] | None = None

    def _strings(self) -> list[str]:
        if self._decoded is None:
            self._decoded = self._decode(self._value) or []
        return self._decoded

    def __len__(self) -> int:
        return len(self._strings())

    def __iter__(self) -> Iterator[str]:
        return iter(self._strings())

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        return self._strings()[at]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list

    def __repr__(self) -> str:
        return repr(self._strings())


def stored_floats(value: bytes, decode: Decode) -> npt.NDArray[np.float32]:
    """The elements of a stored list of floats; empty where nothing is stored. Read-only."""
    packed = packed_floats(value)
    return np.array(decode(value) or [], np.float32) if packed is None else np.frombuffer(packed, PACKED)


def packed_floats(value: bytes) -> bytes | None:
    """The elements of a stored list of floats, of PACKED; None where the value is laid out otherwise."""
    beginning = _beginning_of_floats(len(value))
    return value[len(beginning) :] if beginning and value.startswith(beginning) else None


def records_of(value: bytes) -> bytes | None:
    """The records of a stored list of strings; None where the value is laid out otherwise."""
    beginning = _beginning(STRINGS_TAG, len(value))
    return value[len(beginning) :] if beginning and value.startswith(beginning) else None


def stored_number(value: bytes, decode: Decode) -> Any:
    """As `decode`; most statistics are doubles or counts, which are read in a fifth of its time."""
    size = len(value)
    if size == DOUBLE_BYTES and value[0] == DOUBLE_TAG:
        return _DOUBLE.unpack_from(value, 1)[0]
    if 1 < size < DOUBLE_BYTES and value[0] == INT64_TAG:
        number = 0
        for at, byte in enumerate(value[1:], start=1):
            number |= (byte & 0x7F) << 7 * (at - 1)
            if (byte < ONE_BYTE) != (at == size - 1):  # a number ends with the first byte below, and the value with it
                break
        else:
            return number
    return decode(value)


def stored_numbers(values: Sequence[bytes | None], decode: Decode) -> npt.NDArray[np.float64]:
    """As `stored_number`, of each value; nan for None."""
    if all(value is not None and len(value) == DOUBLE_BYTES and value[0] == DOUBLE_TAG for value in values):
        doubles = np.frombuffer(b"".join(value for value in values if value is not None), _DOUBLES)
        return doubles["value"].astype(np.float64)
    # None is nan to numpy.
    return np.array([None if value is None else stored_number(value, decode) for value in values], np.float64)


def record_offsets(records: bytes) -> Offsets | None:
    """Where each record starts, and the end of the last -> (R + 1,).

    None where that is not plain to see: where a text of 128 bytes or more, or a line break in one, stands among them.
    """
    bytes_ = np.frombuffer(records, np.uint8)
    is_start = bytes_ == RECORD_TAG[0]
    is_start[1:] &= ~is_start[:-1]  # a text of ten bytes has a length that looks like the tag
    offsets = np.append(np.flatnonzero(is_start), len(records))
    if offsets[0] != 0 or len(records) < 2:
        return None if len(records) else np.zeros(1, np.int64)
    # Every start lies where the one before ends, so these are the records and no others.
    lengths = bytes_[np.minimum(offsets[:-1] + 1, len(records) - 1)]
    is_chain = bool((lengths < ONE_BYTE).all()) and bool(
        (np.diff(offsets) == lengths.astype(np.int64) + RECORD_HEAD).all()
    )
    return offsets if is_chain else None


@lru_cache(maxsize=8192)
def _beginning(tag: bytes, size: int) -> bytes:
    """Tag and length of the one field of a message of `size` bytes; empty where there is no such message."""
    for width in range(1, 6):
        length = _varint(max(size - len(tag) - width, 0))
        if len(length) == width and len(tag) + width <= size:
            return tag + length
    return b""


@lru_cache(maxsize=8192)
def _beginning_of_floats(size: int) -> bytes:
    """As `_beginning`, where the one field of the message is a message with all floats."""
    outer = _beginning(FLOATS_TAG, size)
    inner = _beginning(RECORD_TAG, size - len(outer))
    return outer + inner if outer and inner else b""


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= ONE_BYTE:
        found.append(number & 0x7F | ONE_BYTE)
        number >>= 7
    return bytes([*found, number])
