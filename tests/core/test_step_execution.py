"""When a step runs, when it does not, and what it leaves."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
from test_artifacts import flip_one_bit
from two_steps import AS_OF, Steps

from components.core.artifact import Artifact
from components.core.errors import ArtifactError
from components.core.hashing import code_sha256
from components.core.settings import load_settings
from components.core.step import StepContext, StepReport, execute, latest
from components.core.store import Store


def test_finished_work_is_not_done_again(steps: Steps) -> None:
    numbers = steps.list_numbers()
    first, second = steps.sum(numbers), steps.sum(numbers, run_id="another")
    assert (first.is_reused, second.is_reused) == (False, True)
    assert steps.runs["sum"] == 1
    assert second.ref == first.ref
    assert second.manifest.summary == "total 6"


def test_other_inputs_are_other_work(steps: Steps) -> None:
    first = steps.sum(steps.list_numbers())
    second = steps.sum(steps.list_numbers(numbers=[1, 2, 4]))
    assert second.manifest.statistics == {"total": 7}
    assert second.ref.uri != first.ref.uri


def test_settings_of_the_steps_own_sections_are_other_work_and_others_are_not(steps: Steps) -> None:
    numbers = steps.list_numbers()
    home = steps.settings.home
    steps.sum(numbers)
    assert steps.sum(numbers, settings=load_settings(home=home, train={"seed": 1})).is_reused
    assert not steps.sum(numbers, settings=load_settings(home=home, split={"window_days": 7})).is_reused


@pytest.mark.parametrize(
    "difference",
    [
        {"as_of": AS_OF - timedelta(days=1)},
        {"options": {"day": "2024-03-01"}},
        {"changes": {"rooms": ("components.core.errors", "components.core.clock")}},
        {"changes": {"fingerprint": lambda _: "sources"}},
        {"changes": {"reusable": False}},
        {"changes": {"stands": lambda _: False}},
    ],
    ids=["as_of", "options", "code", "fingerprint", "never reused", "what it left elsewhere is gone"],
)
def test_what_else_makes_a_step_run_again(steps: Steps, difference: dict[str, object]) -> None:
    numbers = steps.list_numbers()
    steps.sum(numbers)
    assert not steps.sum(numbers, **difference).is_reused  # type: ignore[arg-type]  # one of several keywords
    assert steps.runs["sum"] == 2


def test_a_changed_source_file_is_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_room").mkdir()
    source = tmp_path / "some_room" / "__init__.py"
    source.write_text("A = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_sha256(("some_room",))
    (tmp_path / "some_room" / "notes.txt").write_text("no code")
    code_sha256.cache_clear()
    assert code_sha256(("some_room",)) == before
    source.write_text("A = 2\n")
    code_sha256.cache_clear()
    assert code_sha256(("some_room",)) != before


def test_a_damaged_artifact_is_made_anew(steps: Steps, store: Store) -> None:
    numbers = steps.list_numbers()
    first = steps.sum(numbers)
    flip_one_bit(Path(first.ref.uri) / "total.txt")
    second = steps.sum(numbers)
    assert not second.is_reused
    assert second.ref == first.ref
    assert Artifact.open(store, second.ref.uri).path("total.txt").read_text() == "6"


def test_a_half_written_folder_is_no_finished_work(steps: Steps) -> None:
    numbers = steps.list_numbers()
    first = steps.sum(numbers)
    (Path(first.ref.uri) / "manifest.json").unlink()
    assert not steps.sum(numbers).is_reused
    assert steps.sum(numbers).is_reused


def test_a_step_does_not_read_a_damaged_input(steps: Steps) -> None:
    numbers = steps.list_numbers()
    flip_one_bit(Path(numbers.uri) / "numbers.parquet")
    with pytest.raises(ArtifactError, match=r"numbers\.parquet is not what was written"):
        steps.sum(numbers)


def test_a_step_that_fails_leaves_nothing(steps: Steps, store: Store) -> None:
    def fails(context: StepContext) -> StepReport:
        context.output.path("total.txt").write_text("half")
        raise RuntimeError("no more")

    numbers = steps.list_numbers()
    with pytest.raises(RuntimeError, match="no more"):
        steps.sum(numbers, changes={"run": fails})
    assert store.list_dir("total") == []
    assert store.list_dir(".staging") == []


def test_a_missing_input_is_named(steps: Steps) -> None:
    with pytest.raises(ArtifactError, match=r"sum needs numbers\. Run the step that makes it first"):
        execute(steps.sum_step, settings=steps.settings, inputs={}, run_id="test")


def test_the_latest_of_a_kind_is_what_was_made_or_confirmed_last(steps: Steps, store: Store) -> None:
    with pytest.raises(ArtifactError, match=r"There is no 'numbers' yet under .*\. Run the step that makes it first"):
        latest(store, "numbers")
    first = steps.list_numbers()
    second = steps.list_numbers(numbers=[9])
    assert latest(store, "numbers") == second
    assert steps.list_numbers(numbers=[1, 2, 3]) == first
    assert steps.runs["list"] == 2
    assert latest(store, "numbers") == first


def test_time_is_inherited_from_the_inputs_unless_it_is_given(steps: Steps) -> None:
    numbers = steps.list_numbers()
    assert steps.sum(numbers).manifest.as_of == AS_OF
    earlier = AS_OF - timedelta(days=3)
    assert steps.sum(numbers, as_of=earlier).manifest.as_of == earlier


def test_a_step_without_any_time_says_what_to_give(steps: Steps) -> None:
    def needs_time(context: StepContext) -> StepReport:
        return StepReport(summary=f"{context.moment}", rows=0)

    step = dataclasses.replace(steps.list_step, run=needs_time)
    with pytest.raises(ArtifactError, match="needs --as-of"):
        execute(step, settings=steps.settings, inputs={}, run_id="test")
