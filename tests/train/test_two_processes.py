"""Two processes under torchrun follow the path of one, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_shop import inputs, settings_in

from components.core.artifact import Artifact
from components.core.settings import child_environment
from components.core.step import execute, latest
from components.core.store import Store
from components.train.ranks import Ranks
from components.train.step import STEP

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_and_write_one_bundle(tmp_path: Path) -> None:
    alone = settings_in(tmp_path / "alone", contrast_weight=0.05)
    one = execute(STEP, settings=alone, inputs=inputs(alone), run_id="one").ref
    together = settings_in(tmp_path / "together", contrast_weight=0.05)
    inputs(together)
    environment = child_environment(together) | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "-m", "components.train"]

    def run() -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[2]
        return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("items trained") == 1
    store = Store(together.artifact_root)
    assert len([name for name in store.list_dir("bundle") if name != "latest.json"]) == 1

    def history(root: str, uri: str) -> list[list[float]]:
        facts = json.loads(Artifact.open(Store(root), uri).path("training.json").read_text())
        return [[epoch["loss"], epoch["validation"]] for epoch in facts["history"]]

    two = history(together.artifact_root, latest(store, "bundle").uri)
    for mine, theirs in zip(history(alone.artifact_root, one.uri), two, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4)
    assert not store.exists(".unfinished/bundle")

    again = run()
    assert again.returncode == 0, again.stderr
    assert "reused" in again.stdout


@pytest.mark.parametrize("count", [0, 1, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_user_of_a_batch_has_one_rank(count: int, size: int) -> None:
    users = list(range(count))
    shares = [users[Ranks(rank, size).share(count)] for rank in range(size)]
    assert [user for share in shares for user in share] == users
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_keeps_its_sums() -> None:
    ranks = Ranks.here()
    assert ranks == Ranks(0, 1)
    assert ranks.told({"a": 1}, torch.device("cpu")) == {"a": 1}
    assert ranks.sum(torch.tensor(3.0)).item() == 3
    assert "RANK" not in os.environ
