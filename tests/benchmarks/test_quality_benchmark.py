"""The quality benchmark on a split whose right answer is plain: two kinds of users, two kinds of items."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

USERS, ITEMS = 80, 80  # users of a kind and items of a kind


def write_split(folder: Path) -> None:
    """Users take 30 of their own kind's 80 items, 24 of them in train; the other kind's items say nothing."""
    rng = np.random.default_rng(5)
    train, test = [], []
    for user in range(2 * USERS):
        own = rng.permutation(ITEMS)[:30] + (user % 2) * ITEMS
        train.append(" ".join(map(str, [user, *own[:24]])))
        test.append(" ".join(map(str, [user, *own[24:]])))
    (folder / "train.txt").write_text("\n".join(train))
    (folder / "test.txt").write_text("\n".join(test))


def test_it_ends_with_one_json_object_and_the_list_keeps_to_the_users_kind(tmp_path: Path) -> None:
    write_split(tmp_path)
    command = [sys.executable, "-m", "benchmarks.quality", "--train", "train.txt", "--test", "test.txt"]
    command += ["--seeds", "1", "--epochs", "4", "--dim", "16", "--out", "result.json"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}

    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)

    assert run.returncode == 0, run.stderr
    printed = json.loads(run.stdout.splitlines()[-1])
    # 20 of the 56 own items left, of which 6 were taken: chance within the kind is 20 / 56, over all items 20 / 136.
    assert 0.25 < printed["recall"] < 0.5
    assert printed["recall_spread"] == 0
    assert set(printed["weights"]) == {"filter", "similarity", "popularity"}
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["recall"] == printed["recall"]
    assert written["machine"]["cores"] >= 1
