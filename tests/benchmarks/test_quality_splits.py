"""How the quality benchmarks read and cut logs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.quality.splits import Log, hide_share, read_sequences, read_split, sequence_log


def test_a_share_of_each_users_items_is_hidden_and_nothing_is_lost() -> None:
    known = sp.random(40, 60, density=0.4, format="csr", dtype=np.float32, random_state=1)
    known.data[:] = 1
    kept, hidden = hide_share(known, share=0.2, seed=0)
    assert np.diff(hidden.indptr).tolist() == [int(0.2 * count) for count in np.diff(known.indptr)]
    assert (kept + hidden != known).nnz == 0


def test_the_last_item_is_wanted_and_the_steps_count_from_the_end(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("1 3 1 2 5\n2 4 4 1\n")
    (tmp_path / "attributes.json").write_text(json.dumps({"1": [7], "5": [7, 9]}))
    sequences, attributes = read_sequences(tmp_path / "log.txt", tmp_path / "attributes.json")

    log, wanted = sequence_log(sequences, leave_out=1, attributes=attributes)

    assert attributes.toarray().tolist() == [[1, 0], [0, 0], [0, 0], [0, 0], [1, 1]]
    assert log.known.toarray().tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert log.steps_ago is not None
    # User 2 took item 4 twice: its last time counts.
    assert log.steps_ago.toarray().tolist() == [[2, 1, 3, 0, 0], [0, 0, 0, 1, 0]]
    assert wanted.nonzero()[1].tolist() == [4, 0]
    assert log.histories(np.array([0])).ages_days.tolist() == [1, 0, 2]


def test_two_left_out_want_the_first_of_them() -> None:
    log, wanted = sequence_log([[0, 1, 2, 3]], leave_out=2, attributes=sp.csr_matrix((4, 1), dtype=np.float32))
    assert log.known.nonzero()[1].tolist() == [0, 1]
    assert wanted.nonzero()[1].tolist() == [2]


def test_without_an_order_every_item_is_as_old() -> None:
    log = Log(known=sp.csr_matrix(np.array([[1, 0, 1]], dtype=np.float32)))
    assert log.histories(np.array([0])).ages_days.tolist() == [0, 0]


@pytest.mark.parametrize(("text", "sentence"), [("0 1 two", "line 1"), ("", "names no item")])
def test_a_file_of_another_form_is_refused_in_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(text)
    with pytest.raises(SystemExit, match=sentence):
        read_split(tmp_path / "train.txt")
