"""ALS beside ours: like with like, and each of ours as a multiple of its cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.training import als
from benchmarks.training.measure import Cost, Finish
from benchmarks.training.ours import Ours


def finish(recall: float, cpu_seconds: float, **more: float) -> Finish:
    cost = Cost(cpu_seconds=cpu_seconds, wall_seconds=1.0, peak_memory_mb=1.0)
    return Finish(cost=cost, answer={"recall": recall, "ndcg": 0.1, **more})


def test_each_of_ours_is_a_multiple_of_als_and_leads_by_its_own_recall() -> None:
    recipe = Ours(recall=0.3, ndcg=0.2, cpu_seconds=200.0, wall_seconds=None, peak_memory_mb=1.0, source="test")
    fits = {0: finish(0.15, 20.0, epochs=0), 1: finish(0.25, 40.0, epochs=1)}
    result = als.compare(finish(0.2, 10.0), fits, recipe)
    rows = [*result["fits"], result["ours"]]
    assert [(row["times_als_cpu_seconds"], row["recall_lead"]) for row in rows] == [(2, -0.05), (4, 0.05), (20, 0.1)]


def test_a_fit_of_ours_answers_for_the_users_of_the_test_file(tmp_path: Path) -> None:
    """Two circles of friends; with one epoch and with none each is offered what its circle takes."""
    train = "".join(
        f"{user} {' '.join(str(user % 2 * 30 + (user + n) % 30) for n in range(12))}\n" for user in range(80)
    )
    test = "".join(f"{user} {user % 2 * 30 + (user + 12) % 30}\n" for user in range(80))
    (tmp_path / "train.txt").write_text(train)
    (tmp_path / "test.txt").write_text(test)
    for epochs in ("0", "1"):
        files = ["--train", str(tmp_path / "train.txt"), "--test", str(tmp_path / "test.txt"), "--epochs", epochs]
        command = [sys.executable, "-m", "benchmarks.training.fit_contestant", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        answer = json.loads(done.stdout.splitlines()[-1])
        assert (answer["users"], answer["epochs"]) == (80, int(epochs))
        assert answer["recall"] > 0.8
