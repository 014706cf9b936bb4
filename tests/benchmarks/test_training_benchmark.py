"""What the cost benchmarks say follows from what they measured, and all that is compared computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from rich.console import Console
from test_quality_benchmark import write_split

from benchmarks.training import evaluation, gpu, growth, peers, propagation
from benchmarks.training.evaluation_contestant import Task, make_task, ours, torchmetrics
from benchmarks.training.growth_contestant import draw_graph, draw_histories, measure
from benchmarks.training.measure import ContestantError, Cost, Finish, run_contestant
from benchmarks.training.ours import Ours, our_recipe
from benchmarks.training.propagation_contestant import GATHERS, KERNELS
from benchmarks.training.splits import cut_validation, read_lists, write_lists

COST = Cost(cpu_seconds=8.0, wall_seconds=5.0, peak_memory_mb=100.0)
CPU = torch.device("cpu")


def finish(**answer: object) -> Finish:
    return Finish(cost=COST, answer=answer)


def test_a_contestants_children_count_and_its_last_object_is_its_answer() -> None:
    burn = "import time\nwhile time.process_time() < .3: pass"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('noise'); "
    script += "print('{\"a\": 1}')"
    finished = run_contestant(["-c", script], threads=1)
    assert finished.answer == {"a": 1}
    assert finished.cost.cpu_seconds >= 0.3
    assert finished.cost.peak_memory_mb > 1


def test_a_contestant_that_fails_is_quoted() -> None:
    with pytest.raises(ContestantError, match=r"ended with 1: no such kernel"):
        run_contestant(["-c", "raise SystemExit('no such kernel')"])
    with pytest.raises(ContestantError, match="printed no JSON object"):
        run_contestant(["-c", "print('done')"])


def test_a_hidden_tenth_and_the_rest_are_the_train_file(tmp_path: Path) -> None:
    lists = {0: list(range(25)), 3: [7, 8]}
    write_lists(tmp_path / "all.txt", lists)
    kept, hidden = (read_lists(path) for path in cut_validation(tmp_path / "all.txt", tmp_path / "cut"))
    assert {user: len(items) for user, items in hidden.items()} == {0: 2}
    assert sorted(kept[0] + hidden[0]) == lists[0]
    assert sorted(kept[3]) == [7, 8]


def test_a_peers_whole_cost_is_its_step_times_the_steps_of_its_recommended_epochs() -> None:
    peer = finish(
        cpu_seconds_of_steps=20.0, steps=10, steps_an_epoch=50, recommended_epochs=30, curve=[{"recall": 0.1}]
    )
    own = Ours(recall=0.2, ndcg=0.2, cpu_seconds=60.0, wall_seconds=None, peak_memory_mb=1.0, source="test")
    row = peers.compare({"pyg": peer}, own)["peers"]["pyg"]
    assert (row["cpu_seconds_an_epoch"], row["extrapolated_cpu_seconds"]) == (100.0, 3000)
    assert row["extrapolated_times_ours"] == 50.0


def test_an_earlier_result_of_ours_is_named_with_its_date(tmp_path: Path) -> None:
    result = {"recall": 0.2, "ndcg": 0.1, "cpu_seconds": 90.5, "peak_memory_mb": 800, "machine": {"date": "2026-01-02"}}
    (tmp_path / "quality.json").write_text(json.dumps(result))
    own = our_recipe(Path("train"), Path("test"), earlier=tmp_path / "quality.json")
    assert (own.recall, own.cpu_seconds, own.source) == (0.2, 90.5, "quality.json of 2026-01-02")


@pytest.mark.parametrize("kernel", [name for name in KERNELS if not name.startswith("PyG")])
def test_every_kernel_is_the_dense_product_forward_and_backward(kernel: str, tmp_path: Path) -> None:
    write_lists(tmp_path / "train.txt", {0: [0, 2], 1: [1], 2: [0, 1, 2]})
    matrix = propagation.user_item_graph(tmp_path / "train.txt")
    expected = torch.from_numpy(matrix.toarray())
    # User 0 has two items, item 2 two users.
    assert float(expected[0, 3 + 2]) == pytest.approx(0.5)
    dense = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    towards = torch.arange(48.0).view(6, 8)

    product = KERNELS[kernel](sp.csr_matrix(matrix), CPU)(dense)
    (grad,) = torch.autograd.grad((product * towards).sum(), dense)

    torch.testing.assert_close(product.detach(), expected @ dense.detach())
    torch.testing.assert_close(grad, expected.T @ towards)


def test_the_bandwidth_share_is_of_what_the_faster_gather_moved_in_the_same_run() -> None:
    kernels = {"ours": finish(cpu_ms=100.0, checks=[1.0]), "torch COO": finish(cpu_ms=700.0, checks=[1.0])}
    gathers = {GATHERS[0]: finish(cpu_ms=20.0, bytes=1e8), GATHERS[1]: finish(cpu_ms=10.0, bytes=1e8)}
    finished = {**gathers, **kernels}
    result = propagation.compare(finished, bytes_a_product=10**8, clock="cpu_ms")
    # 6 products of 0.1 GB in 0.1 s, beside 0.1 GB in 0.01 s by the faster gather
    assert list(result["gather_gb_per_second"].values()) == [5.0, 10.0]
    assert (result["ours_gb_per_second"], result["bandwidth_share"]) == (6.0, 0.6)
    assert (result["times_faster_than_coo"], result["is_fastest"]) == (7.0, True)

    finished["torch COO"] = finish(cpu_ms=700.0, checks=[1.1])
    with pytest.raises(ValueError, match="torch COO computed"):
        propagation.compare(finished, bytes_a_product=10**8, clock="cpu_ms")


def test_our_metrics_of_a_whole_evaluation_are_torchmetrics() -> None:
    task = make_task(60, 900)
    assert all(len(set(row)) == 34 for row in torch.cat([task.known_UN, task.wanted_UM], dim=1).tolist())
    own, independent = ours(task)["means"], torchmetrics(task)["means"]
    assert own == pytest.approx(independent, abs=1e-6)
    assert own["recall"] > 0.02  # something was found, so something was compared


def test_known_items_are_never_listed() -> None:
    task = make_task(5, 400)
    scores = Task(task.user_UD, task.item_ID, task.known_UN, task.wanted_UM).scores(0)
    assert scores.isneginf().sum().item() == task.known_UN.numel()
    assert scores.gather(1, task.known_UN).isneginf().all()


def test_an_evaluator_of_a_sample_is_extrapolated_and_compared_with_ours_of_that_sample() -> None:
    finished = {
        "ours": finish(judged=1000, evaluation_cpu_seconds=4.0, means={"ndcg": 0.3}),
        "ours, sample": finish(judged=100, evaluation_cpu_seconds=0.4, means={"ndcg": 0.2}),
        "torchmetrics": finish(judged=100, evaluation_cpu_seconds=6.0, means={"ndcg": 0.2}),
    }
    result = evaluation.compare(finished, users=1000)
    assert result["times_ours"]["torchmetrics"] == 15.0
    assert result["evaluators"]["torchmetrics"]["largest_difference"] == 0
    assert result["evaluators"]["torchmetrics"]["is_extrapolated"]


def test_generated_histories_hold_each_item_once_and_the_graph_is_symmetric() -> None:
    rng = np.random.default_rng(0)
    histories = draw_histories(6000, 500, rng=rng)
    rows = [histories.items[a:b].tolist() for a, b in zip(histories.indptr, histories.indptr[1:], strict=False)]
    assert len(rows) == 200
    assert all(len(set(row)) == len(row) for row in rows)
    assert 0.8 * 6000 < len(histories.items) <= 6000
    counts = np.sort(np.bincount(histories.items, minlength=500))[::-1]
    assert counts[:50].sum() > 0.2 * counts.sum()  # a tenth of the items is taken far more than a tenth of the time
    graph = draw_graph(500, rng=rng)
    assert abs(graph - graph.T).max() < 1e-6


def test_an_epoch_of_growth_is_its_steps_times_their_number() -> None:
    measured = measure(6000, 500, steps=2, device=CPU)
    assert measured["batch_users"] == 7  # 200 users in 32 steps
    assert measured["cpu_seconds_an_epoch"] == pytest.approx(32 * measured["cpu_seconds_a_step"])
    assert np.isfinite(measured["last_loss"])


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    assert growth.exponent([1e6, 3e6, 3e7], [2.0 * size**1.1 for size in (1e6, 3e6, 3e7)]) == pytest.approx(1.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_gpu_case_says_so_and_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    monkeypatch.setattr(gpu, "write_result", lambda name, result: written.update({name: result}))
    console = Console(record=True, width=80)
    gpu.run(console)
    assert written == {"training-gpu": {"device": "no CUDA device"}}
    assert console.export_text().startswith("no CUDA device")


def test_the_gpu_cases_recipe_tells_counting_training_and_ranking_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_split(tmp_path)
    monkeypatch.setattr(gpu, "published_split", lambda _: (tmp_path / "train.txt", tmp_path / "test.txt"))
    row = gpu.recipe(Console(quiet=True), devices=("cpu",), max_epochs=3, embedding_dim=16)["cpu"]
    assert row["fit_seconds"] == pytest.approx(row["counting_seconds"] + row["training_seconds"], abs=0.02)
    assert min(row["counting_seconds"], row["training_seconds"]) > 0
    # Of the 56 own items left 6 were taken: chance within a user's kind is 20 / 56, over all items 20 / 136.
    assert 0.25 < row["recall"] < 0.5
