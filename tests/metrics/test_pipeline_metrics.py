"""What the pipeline tells Prometheus: by a real Pushgateway, and by a file that promtool reads."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from metric_servers import Server, pushgateway, values
from needs import program

from components.core.artifact import Artifact
from components.core.errors import BasketweaveError, StopError
from components.core.pipeline_metrics import METRICS, Sample, check_samples, publish
from components.core.settings import Settings, load_settings
from components.core.step import Execution, Step, StepContext, StepReport, execute
from components.core.store import Store
from components.core.usage import KEPT_RUNS, Stopwatch, record_usage, usage_of_runs

PRICES = {"cpu_hour_price": 0.04, "gpu_hour_price": 2.5, "currency": "USD"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "textfiles"


@pytest.fixture
def shop(tmp_path: Path, folder: Path) -> Settings:
    return load_settings(home=tmp_path / "home", project="shop", metrics={"textfile_folder": folder, **PRICES})


@pytest.fixture(scope="module")
def gateway() -> Iterator[Server]:
    with pushgateway() as server:
        yield server


def sums(samples: tuple[Sample, ...] = (), *, error: Exception | None = None, num_gpus: int = 0) -> Step:
    """A step that uses some CPU, here and in a child process."""

    def run(context: StepContext) -> StepReport:
        if error is not None:
            raise error
        subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
        context.output.path("total.txt").write_text("6")
        return StepReport(summary="total 6", rows=3, samples=samples, num_gpus=num_gpus)

    return Step(name="sum", kind="total", inputs=(), sections=(), rooms=("components.core.errors",), run=run)


def run_once(step: Step, settings: Settings, *, run_id: str = "scheduled__1") -> Execution:
    return execute(step, settings=settings, inputs={}, run_id=run_id, as_of=datetime(2024, 5, 1, tzinfo=UTC))


def written(folder: Path) -> dict[str, float]:
    """Every sample of the folder: 'name{a=b}' -> value."""
    found: dict[str, float] = {}
    for path in sorted(folder.glob("*.prom")):
        found |= values(path.read_text())
    return found


def test_a_step_tells_what_it_made_and_used(shop: Settings, folder: Path) -> None:
    reasons = (Sample("basketweave_quarantined_rows", {"reason": "price is 0 or less"}, 7),)
    run_once(sums(reasons, num_gpus=2), shop)
    found = written(folder)
    own = "{project=shop,step=sum}"
    assert found["basketweave_step_rows" + own] == 3
    assert found["basketweave_step_reused" + own] == 0
    assert found["basketweave_step_failed" + own] == 0
    assert found["basketweave_step_as_of_timestamp_seconds" + own] == 1_714_521_600
    assert found["basketweave_quarantined_rows{project=shop,reason=price is 0 or less}"] == 7
    seconds, cpu = found["basketweave_step_seconds" + own], found["basketweave_step_cpu_seconds" + own]
    assert found["basketweave_step_gpu_seconds" + own] == pytest.approx(2 * seconds)
    price = (cpu * PRICES["cpu_hour_price"] + 2 * seconds * PRICES["gpu_hour_price"]) / 3600
    assert found["basketweave_step_cost{currency=USD,project=shop,step=sum}"] == pytest.approx(price)


def test_the_cpu_seconds_of_a_child_process_count(shop: Settings, folder: Path) -> None:
    run_once(sums(), shop)
    # The step itself does next to nothing: an interpreter's start and five million additions are the child's.
    assert written(folder)["basketweave_step_cpu_seconds{project=shop,step=sum}"] > 0.03


def test_a_reused_step_tells_its_figures_again_and_what_it_used_now(shop: Settings, folder: Path) -> None:
    step = sums((Sample("basketweave_checks", {"outcome": "passed"}, 28),))
    run_once(step, shop)
    for path in folder.iterdir():
        path.unlink()
    assert run_once(step, shop, run_id="scheduled__2").is_reused
    found = written(folder)
    assert found["basketweave_checks{outcome=passed,project=shop}"] == 28
    assert found["basketweave_step_rows{project=shop,step=sum}"] == 3
    assert found["basketweave_step_reused{project=shop,step=sum}"] == 1
    assert found["basketweave_run_steps{project=shop,state=reused}"] == 1


def test_a_run_sums_its_steps_and_another_run_begins_anew(shop: Settings, folder: Path) -> None:
    for name in ("first", "second"):
        run_once(dataclasses.replace(sums(), name=name, kind=name), shop)
    found = written(folder)
    cost = "basketweave_step_cost{currency=USD,project=shop,step=%s}"
    both = found[cost % "first"] + found[cost % "second"]
    assert found["basketweave_run_cost{currency=USD,project=shop}"] == pytest.approx(both)
    assert found["basketweave_run_steps{project=shop,state=done}"] == 2
    run_once(dataclasses.replace(sums(), name="first", kind="first"), shop, run_id="scheduled__2")
    assert written(folder)["basketweave_run_steps{project=shop,state=done}"] == 0


def test_a_failed_step_is_told_beside_what_it_made_before(shop: Settings, folder: Path) -> None:
    run_once(sums(), shop)
    broken = sums(error=StopError("no more"))
    with pytest.raises(StopError):
        # Another day is other work, so that the finished one is not reused.
        execute(broken, settings=shop, inputs={}, run_id="scheduled__2", options={"day": "2024-05-02"})
    found = written(folder)
    assert found["basketweave_step_failed{project=shop,step=sum}"] == 1
    assert found["basketweave_run_steps{project=shop,state=failed}"] == 1
    assert found["basketweave_step_rows{project=shop,step=sum}"] == 3


def test_without_a_setting_nothing_is_written(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", metrics=PRICES)
    run_once(sums(), settings)
    assert not list(tmp_path.rglob("*.prom"))
    # What was used is kept all the same, for the status page.
    assert [usage.step for usage in usage_of_runs(Store(settings.artifact_root))["scheduled__1"]] == ["sum"]


def test_without_a_price_there_is_no_cost(tmp_path: Path, folder: Path) -> None:
    run_once(sums(), load_settings(home=tmp_path / "home", metrics={"textfile_folder": folder}))
    assert not [name for name in written(folder) if "cost" in name]


def test_the_collectors_file_is_what_promtool_wants(shop: Settings, folder: Path) -> None:
    promtool = program("promtool", package="prometheus")
    run_once(sums(tuple(Sample(name, dict.fromkeys(METRICS[name].labels, "x"), 1.5) for name in METRICS)), shop)
    texts = [path.read_text() for path in sorted(folder.glob("*.prom"))]
    assert len(texts) == 3
    for text in texts:
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert [path.name for path in folder.iterdir() if path.suffix != ".prom"] == []


@pytest.mark.slow
def test_a_real_pushgateway_holds_what_was_published(tmp_path: Path, gateway: Server) -> None:
    settings = load_settings(home=tmp_path / "home", project="shop", metrics={"pushgateway": gateway.url, **PRICES})
    step = sums((Sample("basketweave_checks", {"outcome": "passed"}, 28),))
    run_once(step, settings)
    found = gateway.metrics()
    where = "group=step-sum,instance=,job=basketweave-pipeline"
    assert found[f"basketweave_checks{{{where},outcome=passed,project=shop}}"] == 28
    assert found[f"basketweave_step_rows{{{where},project=shop,step=sum}}"] == 3
    assert found["basketweave_run_steps{group=run,instance=,job=basketweave-pipeline,project=shop,state=done}"] == 1
    # What a group sent before is replaced, not kept beside.
    publish(settings, group="step-sum", samples=[Sample("basketweave_step_rows", {"step": "sum"}, 4)])
    found = gateway.metrics()
    assert found[f"basketweave_step_rows{{{where},project=shop,step=sum}}"] == 4
    assert f"basketweave_checks{{{where},outcome=passed,project=shop}}" not in found


def test_a_gateway_that_is_away_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(home=tmp_path / "home", metrics={"pushgateway": "http://127.0.0.1:9"})
    with caplog.at_level(logging.WARNING):
        assert run_once(sums(), settings).manifest.rows == 3
    assert "The metrics of 'step-sum' were not published" in caplog.text


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = load_settings(home=tmp_path / "home", metrics={"textfile_folder": tmp_path / "file"})
    with caplog.at_level(logging.WARNING):
        assert run_once(sums(), settings).manifest.rows == 3
    assert "were not published" in caplog.text


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (Sample("basketweave_users", {}, 1), "basketweave_users is not declared"),
        (Sample("basketweave_checks", {"user": "u1"}, 1), "basketweave_checks has the labels"),
    ],
)
def test_a_step_may_only_tell_what_is_declared(sample: Sample, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        StepReport(summary="", rows=0, samples=[sample])
    with pytest.raises(ValueError, match=sentence):
        check_samples([sample])


def test_a_figure_that_is_no_number_is_left_out(shop: Settings, folder: Path) -> None:
    execution = run_once(sums((Sample("basketweave_checks", {"outcome": "passed"}, float("nan")),)), shop)
    assert list(execution.manifest.samples) == []
    assert not [name for name in written(folder) if name.startswith("basketweave_checks")]


def test_labels_name_no_user_no_item_and_no_run() -> None:
    bounded = {"step", "currency", "state", "outcome", "reason"}
    assert {label for metric in METRICS.values() for label in metric.labels} <= bounded | set(BOUNDED_ELSEWHERE)


# Labels of other rooms' metrics, each with what bounds it.
BOUNDED_ELSEWHERE: dict[str, str] = {
    "verdict": "the gate's four verdicts",
    "gate": "the gates and checks that components/evaluate declares",
    "entrant": "the bundle, the champion and the baselines",
    "metric": "the ranking metrics that are published",
    "measure": "the measures that components/monitor declares",
    "family": "the families of those measures",
}


def test_an_artifact_without_samples_keeps_the_seal_of_before_there_were_any(shop: Settings) -> None:
    execution = run_once(sums(), shop)
    store = Store(shop.artifact_root)
    relative = store.relative(execution.ref.uri) + "/manifest.json"
    manifest = store.read_json(relative)
    del manifest["samples"]
    store.write_json(relative, manifest)
    assert Artifact.open(store, execution.ref.uri).manifest.rows == 3


def test_changed_samples_break_the_seal(shop: Settings) -> None:
    execution = run_once(sums((Sample("basketweave_checks", {"outcome": "passed"}, 1),)), shop)
    store = Store(shop.artifact_root)
    relative = store.relative(execution.ref.uri) + "/manifest.json"
    manifest = store.read_json(relative)
    manifest["samples"][0]["value"] = 2.0
    store.write_json(relative, manifest)
    with pytest.raises(BasketweaveError, match="not what was written"):
        Artifact.open(store, execution.ref.uri)


def test_the_usage_of_old_runs_is_swept_away(shop: Settings) -> None:
    store = Store(shop.artifact_root)
    for number in range(KEPT_RUNS + 3):
        record_usage(store, f"run-{number:03d}", Stopwatch("train").usage("done"))
    folders = store.list_dir("usage")
    assert len(folders) == KEPT_RUNS
    assert folders[0].endswith("run-003")


def test_a_later_try_of_a_step_takes_the_place_of_an_earlier(shop: Settings) -> None:
    store = Store(shop.artifact_root)
    record_usage(store, "manual__2024-05-01T00:00:00+00:00", Stopwatch("train").usage("failed"))
    steps = record_usage(store, "manual__2024-05-01T00:00:00+00:00", Stopwatch("train").usage("done"))
    assert [(step.step, step.state) for step in steps] == [("train", "done")]
