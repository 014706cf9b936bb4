"""A shortcut says what was written, or nothing."""

from __future__ import annotations

from pathlib import Path

from components.core.shortcut import read_shortcut, write_shortcut
from components.core.store import Store


def test_a_shortcut_says_what_was_written_last(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert read_shortcut(store, "tables/x/state.json") is None
    write_shortcut(store, "tables/x/state.json", {"b": [1, 2], "a": "ü"})
    write_shortcut(store, "tables/x/state.json", {"b": [3]})
    assert read_shortcut(store, "tables/x/state.json") == {"b": [3]}


def test_a_shortcut_with_any_bit_flipped_or_cut_anywhere_says_nothing_or_the_same(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    value = {"packs": [{"path": "p", "days": {"k": [0, 10, 20]}}]}
    write_shortcut(store, "state.json", value)
    path = tmp_path / "state.json"
    whole = path.read_bytes()
    silent = 0
    for place in range(len(whole)):
        for damaged in (
            whole[:place],
            bytes([*whole[:place], whole[place] ^ 1 << (place % 8), *whole[place + 1 :]]),
        ):
            path.write_bytes(damaged)
            # White space may change without a change of what is said.
            found = read_shortcut(store, "state.json")
            assert found in (None, value)
            silent += found is None
    assert silent > len(whole)
