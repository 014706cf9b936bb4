"""A training that is cut off goes on from its last whole epoch, and ends where it would have ended."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from random_shop import inputs, settings_in
from toy_windows import NUM_ITEMS, NUM_USERS, attributes, flat, loop_config, recommender, ring

from components.core.errors import StopError
from components.core.step import execute, latest
from components.core.store import Store
from components.model.recommender import Recommender
from components.train.checkpoint import Checkpoints
from components.train.loop import Epoch, LoopConfig, train
from components.train.step import STEP

VERDICTS = (1.0, 5.0, 3.0, math.nan, 4.0, 2.0)


class PowerCutError(Exception):
    pass


def config() -> LoopConfig:
    return loop_config(
        max_epochs=6, patience=4, history_dropout=0.3, weight_decay=0.01, loss="bpr", contrast_weight=0.1
    )  # type: ignore[arg-type]


def go(
    checkpoints: Checkpoints | None, *, cut_after: int | None = None
) -> tuple[Recommender, list[Epoch], torch.Tensor]:
    """Model, epochs, and what torch's own generator gives next."""
    torch.manual_seed(5)
    model = recommender()
    judged: Callable[[Recommender], float] = lambda model: VERDICTS[len(told)]  # noqa: E731
    told: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        told.append(epoch)
        if epoch.number == cut_after:
            raise PowerCutError

    epochs = train(
        model,
        [ring(), ring()],
        attributes(),
        config=config(),
        bases=flat(2),
        validate=judged,
        on_epoch=on_epoch,
        checkpoints=checkpoints,
    )
    assert [epoch.number for epoch in told] == [1, 2, 3, 4, 5, 6]
    return model, epochs, torch.rand(3)


@pytest.mark.parametrize("cut_after", [1, 2, 3, 5, 6])
def test_cut_off_after_any_epoch_it_ends_with_the_same_bits(cut_after: int, tmp_path: Path) -> None:
    """The best epoch is the second: cut before it, at it, after it, and after the last."""
    model, epochs, drawn = go(None)
    checkpoints = Checkpoints(Store(str(tmp_path)), "unfinished")
    with pytest.raises(PowerCutError):
        go(checkpoints, cut_after=cut_after)
    resumed, epochs_again, drawn_again = go(checkpoints)
    assert repr(epochs_again) == repr(epochs)  # nan among them
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(drawn, drawn_again)
    assert sorted(os.listdir(tmp_path / "unfinished"))[0] == "checkpoint.json"
    assert len(os.listdir(tmp_path / "unfinished")) == 2  # the last epoch's alone


@pytest.mark.parametrize("damage", ["torn", "gone", "no mark", "no JSON"])
def test_a_checkpoint_that_is_not_whole_is_left_aside(damage: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(Store(str(tmp_path)), "unfinished")
    with pytest.raises(PowerCutError):
        go(checkpoints, cut_after=3)
    (tensors,) = (tmp_path / "unfinished").glob("*.safetensors")
    mark = tmp_path / "unfinished" / "checkpoint.json"
    {
        "torn": lambda: tensors.write_bytes(tensors.read_bytes()[:-8]),
        "gone": tensors.unlink,
        "no mark": mark.unlink,
        "no JSON": lambda: mark.write_text("{"),
    }[damage]()
    assert checkpoints.load() is None
    model, _, _ = go(None)
    again, _, _ = go(checkpoints)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_no_number_keeps_the_epoch_before_and_says_where(tmp_path: Path) -> None:
    """The base of the second window is broken after the first epoch."""
    checkpoints = Checkpoints(Store(str(tmp_path)), "unfinished")
    bases = flat(1)

    def breaks(epoch: Epoch) -> None:
        bases[0][:] = torch.full((NUM_USERS, NUM_ITEMS), math.nan)

    sentence = (
        r"^The loss became nan in epoch 2, step 1: the base logits of its users, .* "
        rf"The state after epoch 1 is kept under {tmp_path}/unfinished\.$"
    )
    with pytest.raises(StopError, match=sentence):
        train(
            recommender(),
            [ring()],
            attributes(),
            config=loop_config(),
            bases=bases,
            validate=None,
            on_epoch=breaks,
            checkpoints=checkpoints,
        )
    found = checkpoints.load()
    assert found is not None
    assert len(found[1]["epochs"]) == 1
    assert all(torch.isfinite(tensor).all() for tensor in found[0].values() if tensor.is_floating_point())


KILLED_STEP = """
import os, signal, sys
from pathlib import Path
from random_shop import settings_in
from components.core.step import execute, latest
from components.core.store import Store
from components.train import fit
from components.train.step import STEP

settings = settings_in(Path(sys.argv[1]))
save = fit.Checkpoints.save

def save_and_die(self, tensors, facts, *, epoch):
    save(self, tensors, facts, epoch=epoch)
    if self.folder.endswith(sys.argv[2]) and epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

fit.Checkpoints.save = save_and_die
store = Store(settings.artifact_root)
execute(STEP, settings=settings, inputs={kind: latest(store, kind) for kind in STEP.inputs}, run_id="killed")
"""


@pytest.mark.parametrize("training", ["first", pytest.param("second", marks=pytest.mark.slow)])
def test_a_killed_step_goes_on_and_makes_the_same_bundle(
    training: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = settings_in(tmp_path / "undisturbed")
    whole = execute(STEP, settings=undisturbed, inputs=inputs(undisturbed), run_id="whole").ref
    settings = settings_in(tmp_path / "killed")
    refs = inputs(settings)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["tests/train", "tests", "."])}
    command = [sys.executable, "-c", KILLED_STEP, str(tmp_path / "killed"), training]
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    store = Store(settings.artifact_root)
    assert not store.exists("bundle/latest.json")

    # Another setting is another key: what was kept is not looked at.
    with caplog.at_level("INFO", logger="components.train.loop"):
        other = execute(
            STEP,
            settings=settings_in(tmp_path / "other", seed=9),
            inputs=inputs(settings_in(tmp_path / "other", seed=9)),
            run_id="other",
        )
        assert not any("goes on" in message for message in caplog.messages)
        resumed = execute(STEP, settings=settings, inputs=refs, run_id="resumed").ref
    assert any("goes on after epoch 2" in message for message in caplog.messages)
    assert resumed.sha256 == whole.sha256
    assert other.ref.sha256 != whole.sha256
    assert not store.exists(".unfinished/bundle")
    assert latest(store, "bundle").sha256 == whole.sha256
