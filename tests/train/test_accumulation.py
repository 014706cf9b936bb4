"""Parts of a batch add up to the batch; memory that runs out makes the parts smaller and changes nothing else."""

from __future__ import annotations

import logging

import pytest
import torch
from test_losses_by_name import rated_ring
from toy_windows import attributes, flat, loop_config, recommender

from components.core.errors import StopError
from components.train import loop
from components.train.loop import train

LOSSES = ("full_softmax", "sampled_softmax", "bpr", "mse", "cross_entropy")


def trained(**changes: float) -> tuple[dict[str, torch.Tensor], float]:
    """Weights after two epochs, and the last loss. Users of unequal histories and targets."""
    model = recommender()
    given = {"max_epochs": 2, "precision": "float32", "contrast_weight": 0.1, "history_dropout": 0.3}
    config = loop_config(**given | changes)  # type: ignore[arg-type]
    epochs = train(model, [rated_ring()], attributes(), config=config, bases=flat(1), validate=None)
    return model.state_dict(), epochs[-1].loss


def assert_same(first: tuple[dict[str, torch.Tensor], float], second: tuple[dict[str, torch.Tensor], float]) -> None:
    assert first[1] == pytest.approx(second[1], rel=1e-5)
    for name, tensor in first[0].items():
        torch.testing.assert_close(second[0][name], tensor, atol=2e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("users", [1, 5, 32])
@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_a_batch_add_up_to_it(loss: str, users: int) -> None:
    assert_same(trained(loss=loss), trained(loss=loss, micro_batch_users=users))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_halves_the_parts_and_the_same_step_goes_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = trained()
    loss_of, seen = loop.part_loss, []

    def hungry(name, user_bD, *rest, **options):  # type: ignore[no-untyped-def]
        seen.append(len(user_bD))
        if len(user_bD) > 8 or len(seen) == 4:  # and once more in the middle of a batch
            raise error
        return loss_of(name, user_bD, *rest, **options)

    monkeypatch.setattr(loop, "part_loss", hungry)
    with caplog.at_level(logging.WARNING):
        assert_same(undisturbed, trained())
    assert seen[:6] == [32, 16, 8, 8, 4, 4]
    assert max(seen[4:]) == 4
    assert caplog.messages[0] == "Out of memory with 32 users at a time; going on with 16."


def test_one_user_that_does_not_fit_stops_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(loop, "part_loss", hungry)
    with pytest.raises(StopError, match=r"^One user at a time does not fit into memory\. Lower train\.embedding_dim"):
        trained()


def test_another_error_is_no_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(loop, "part_loss", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        trained()
