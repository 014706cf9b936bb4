"""Stored values read from their bytes, held against protobuf's own reader."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from feature_repo.online_rows import _VALUE, decode
from feature_repo.stored_values import StoredStrings, record_offsets, records_of, stored_floats, stored_number

LISTS = [
    [],
    ["jam"],
    ["jam", "tée", "jam 2"],
    [f"item {n}" for n in range(300)],
    ["0123456789"] * 30,  # as long as the tag's own number
    ["x" * 127, "x" * 128, "x" * 200],
    ["", "a"],
    ["line\nbreak", "next"],
    ["ends so\n", "next"],
    ["\n", "\n\n", "\n\x08i0000001"],
]


def stored(kind: str, values: list) -> bytes:
    message = _VALUE()
    getattr(message, kind).val.extend(values)
    getattr(message, kind).SetInParent()
    return message.SerializeToString()


def record(text: str) -> bytes:
    return _VALUE(string_list_val={"val": [text]}).string_list_val.SerializeToString()


@pytest.mark.parametrize("texts", LISTS)
def test_strings_are_protobufs_own(texts: list[str]) -> None:
    found = StoredStrings(stored("string_list_val", texts), decode)
    assert found == texts
    assert (len(found), list(found), found[:2]) == (len(texts), texts, texts[:2])
    assert records_of(stored("string_list_val", texts)) == b"".join(record(text) for text in texts)


@pytest.mark.parametrize("texts", LISTS)
def test_records_are_found_whole_or_not_at_all(texts: list[str]) -> None:
    records = b"".join(record(text) for text in texts)
    offsets = record_offsets(records)
    if any("\n" in text or len(text.encode()) >= 128 for text in texts):
        assert offsets is None
    else:
        assert offsets is not None
        assert [records[a:b] for a, b in itertools.pairwise(offsets)] == [record(text) for text in texts]


@pytest.mark.parametrize("records", [b"\n", b"\x0b\x01a", b"\n\x05ab", b"\n\x01a\n", b"\n\x01ab"])
def test_what_is_no_row_of_records_has_no_offsets(records: bytes) -> None:
    assert record_offsets(records) is None


@pytest.mark.parametrize("count", [0, 1, 31, 32, 5000])
def test_floats_are_protobufs_own(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).astype(np.float32)
    value = stored("float_list_val", values.tolist())
    found = stored_floats(value, lambda value: pytest.fail("protobuf was asked") if count else decode(value))
    assert found.dtype == np.float32
    assert found.tolist() == values.tolist() == (decode(value) or [])


def test_what_is_laid_out_otherwise_is_left_to_protobuf() -> None:
    doubles = stored("double_list_val", [0.5, 2.0])
    assert stored_floats(doubles, decode).tolist() == [0.5, 2.0]
    assert StoredStrings(b"", decode) == []
    assert records_of(b"") is None
    assert stored_floats(b"", decode).tolist() == []


@pytest.mark.parametrize(
    "fields", [{"double_val": -12.5}, {"double_val": math.inf}, {"int64_val": 2**40}, {"int64_val": 3}, {}]
)
def test_a_number_is_protobufs_own(fields: dict[str, float]) -> None:
    value = _VALUE(**fields).SerializeToString()
    found, expected = stored_number(value, decode), decode(value)
    assert (found, type(found)) == (expected, type(expected))
