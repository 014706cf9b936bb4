"""Rows of the bundle by item id, for one history or for those of a batch.

By 64-bit hashes, side by side: a dictionary of all items fetches key, number and entry of each from all over the
memory. That an id of no item has an item's hash is one chance in 2^64 for each item; its user's history would then have
that item too. Legend of shape suffixes: I items of the bundle, R records of histories.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.model.bundle import PAUSE_SECONDS
from feature_repo.stored_values import RECORD_HEAD

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

NUMBERS_AT_ONCE = 512
WORD = 8  # bytes, 2^3
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: a product with it spreads what differs

_KEPT: Hashes = np.array([2 ** (8 * size) - 1 for size in range(WORD + 1)], np.uint64)  # the first bytes of a word


class ItemRows:
    """Rows of the bundle by item id. Safe to share between threads."""

    def __init__(self, index: Mapping[str, int]) -> None:
        """`index`: the items in the order of their rows."""
        self.index = index
        self._by_id = _Table(_in_turns(map(hash, index), len(index)).view(np.uint64))

    def of_ids(self, item_ids: Sequence[str]) -> Ints:
        """The row of each id, -1 where there is none."""
        if not self._by_id.are_distinct:
            return self._one_by_one(item_ids)
        return self._by_id.rows(np.fromiter(map(hash, item_ids), np.int64, len(item_ids)).view(np.uint64))

    def of_records(self, records: bytes, offsets_R: Ints) -> Ints:
        """The row of each record of feature_repo/stored_values.py, -1 where there is none; no string is made.

        Args:
            offsets_R: (R + 1,) as `record_offsets` finds them.
        """
        starts_R, lengths_R = offsets_R[:-1] + RECORD_HEAD, np.diff(offsets_R) - RECORD_HEAD
        if not self._by_text.are_distinct:
            texts = zip(starts_R.tolist(), (starts_R + lengths_R).tolist(), strict=True)
            return self._one_by_one([records[start:end].decode() for start, end in texts])
        return self._by_text.rows(text_hashes(records, starts_R, lengths_R))

    def _one_by_one(self, item_ids: Sequence[str]) -> Ints:
        return np.array([self.index.get(item_id, -1) for item_id in item_ids], np.int64)

    @cached_property
    def _by_text(self) -> _Table:
        texts = [item_id.encode() for item_id in self.index]  # by the first batch
        lengths_I = np.fromiter(map(len, texts), np.int64, len(texts))
        return _Table(text_hashes(b"".join(texts), np.cumsum(lengths_I) - lengths_I, lengths_I))


def text_hashes(joined: bytes, starts_R: Ints, lengths_R: Ints) -> Hashes:
    """(R,) a hash of each text of many that lie in one run of bytes; word by word, and all texts at once."""
    words = np.frombuffer(joined + bytes(3 * WORD - len(joined) % WORD), "<u8")
    hash_R = lengths_R.astype(np.uint64) * _ODD
    for at in range(0, int(lengths_R.max(initial=0)), WORD):
        first_R, left_R = starts_R + at, lengths_R - at
        # A text that has ended reads what it likes, and keeps nothing of it.
        word_R = np.minimum(first_R >> 3, len(words) - 2)
        bits_R = ((first_R & 7) << 3).astype(np.uint64)
        # No shift by 64: it would be one by 0.
        text_R = words.take(word_R) >> bits_R | words.take(word_R + 1) << np.uint64(1) << np.uint64(63) - bits_R
        text_R &= _KEPT.take(left_R, mode="clip")
        text_R ^= hash_R
        text_R *= _ODD
        text_R ^= text_R >> np.uint64(32)
        hash_R = text_R if left_R.min() > 0 else np.where(left_R > 0, text_R, hash_R)
    hash_R *= _ODD
    return hash_R


class _Table:
    """Which row has a hash."""

    def __init__(self, hashes_I: Hashes) -> None:
        self._row_of_hash: Ints = np.argsort(hashes_I)
        hashes = hashes_I[self._row_of_hash]
        self.are_distinct = not (hashes[1:] == hashes[:-1]).any()
        # Hashes are spread evenly, so their first bits say where to look, but for a step or two.
        bits = len(hashes_I).bit_length() + 1
        self._shift = np.uint64(64 - bits)
        firsts = np.arange(2**bits, dtype=np.uint64) << self._shift
        self._starts = np.searchsorted(hashes, firsts).astype(np.int32)
        self._hashes = np.append(hashes, np.uint64(2**64 - 1))  # the search ends here, if nowhere before
        self._row_of_hash = np.append(self._row_of_hash, -1)

    def rows(self, wanted_R: Hashes) -> Ints:
        """-1 where there is none. Hashes must be distinct."""
        at_R = self._starts.take((wanted_R >> self._shift).astype(np.intp))
        while (is_before_R := self._hashes.take(at_R) < wanted_R).any():
            at_R += is_before_R
        found_R: Ints = np.where(self._hashes.take(at_R) == wanted_R, self._row_of_hash.take(at_R), -1)
        return found_R


def _in_turns(numbers: Iterable[int], count: int) -> Ints:
    """(count,) With pauses, since others want the interpreter too."""
    found, rest = np.empty(count, np.int64), iter(numbers)
    for start in range(0, count, NUMBERS_AT_ONCE):
        size = min(NUMBERS_AT_ONCE, count - start)
        found[start : start + size] = np.fromiter(rest, np.int64, size)
        time.sleep(PAUSE_SECONDS)
    return found
