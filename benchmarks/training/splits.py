"""The published split that the cases run on, and a validation split cut from its train file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

VALIDATION_SHARE = 0.1


def data_folder() -> Path:
    """The folder of the data sets, as for every benchmark: BASKETWEAVE_DATA, else ../shared/data."""
    return Path(os.environ.get("BASKETWEAVE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def published_split(name: str) -> tuple[Path, Path]:
    """Train and test file.

    Raises:
        SystemExit: they are not there.
    """
    folder = data_folder() / name
    train, test = folder / "train.txt", folder / "test.txt"
    if not (train.is_file() and test.is_file()):
        raise SystemExit(
            f"{folder} holds no train.txt and test.txt. Set BASKETWEAVE_DATA to the folder of the data sets."
        )
    return train, test


def read_lists(path: Path) -> dict[int, list[int]]:
    """User -> items, from lines of `user item item …`."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {int(row[0]): [int(item) for item in row[1:]] for row in rows if row}


def write_lists(path: Path, lists: Mapping[int, Sequence[int]]) -> None:
    path.write_text("".join(f"{' '.join(map(str, (user, *items)))}\n" for user, items in lists.items()))


def cut_validation(train: Path, folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """A random tenth of the train items of users with ten or more goes to `test.txt`, the rest to `train.txt`."""
    generator = np.random.default_rng(seed)
    kept, hidden = {}, {}
    for user, items in read_lists(train).items():
        shuffled = generator.permutation(items).tolist()
        count = int(len(items) * VALIDATION_SHARE)
        kept[user] = shuffled[count:]
        if count:
            hidden[user] = shuffled[:count]
    folder.mkdir(parents=True, exist_ok=True)
    write_lists(folder / "train.txt", kept)
    write_lists(folder / "test.txt", hidden)
    return folder / "train.txt", folder / "test.txt"
