"""Today's training from yesterday's bundle: joined by id, and cold with a reason where there is nothing to join."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch
from hand_made_inputs import inputs_of_training
from random_shop import AS_OF, CATALOG, random_log, settings_in
from toy_windows import NUM_ITEMS, attributes, recommender

from components.core.artifact import MANIFEST, Artifact, FileEntry, Manifest
from components.core.settings import Settings
from components.core.step import Execution, execute
from components.core.store import Store
from components.train import warm_start
from components.train.step import STEP
from components.train.warm_start import WarmStart

YESTERDAY = AS_OF - timedelta(days=1)


def train_at(settings: Settings, as_of: datetime) -> Execution:
    refs = inputs_of_training(settings, random_log(until=as_of), CATALOG, as_of)
    return execute(STEP, settings=settings, inputs=refs, run_id="test", as_of=as_of)


def first_loss(settings: Settings, execution: Execution) -> float:
    bundle = Artifact.open(Store(settings.artifact_root), execution.ref.uri)
    loss: float = json.loads(bundle.path("training.json").read_text())["history"][0]["loss"]
    return loss


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home with yesterday's bundle, kept to be started from."""
    settings = settings_in(tmp_path_factory.mktemp("warm"), warm_start=True)
    yesterday = train_at(settings, YESTERDAY)
    assert yesterday.manifest.summary.endswith("; cold start: there is no bundle of an earlier moment")
    return settings


def test_what_yesterday_knew_is_not_learnt_again(warm: Settings, tmp_path: Path) -> None:
    today = train_at(warm, AS_OF)
    assert today.manifest.summary.endswith("; warm start, 0 items new")
    cold = settings_in(tmp_path)
    assert first_loss(warm, today) < first_loss(cold, train_at(cold, AS_OF)) - 0.01
    assert train_at(warm, AS_OF).is_reused  # today's own bundle is none to start today from


def test_a_cold_training_keeps_nothing_to_start_from_and_says_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    made = train_at(settings, YESTERDAY)
    assert "start" not in made.manifest.summary
    assert warm_start.FILE not in [entry.path for entry in made.manifest.files]
    after = train_at(settings_in(tmp_path, warm_start=True), AS_OF)
    assert after.manifest.summary.endswith("; cold start: the bundle before was made without train.warm_start")


def test_a_bundle_of_another_format_or_shape_gives_a_cold_start_with_the_reason(
    warm: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = settings_in(warm.home, warm_start=True, embedding_dim=4)
    reason = "; cold start: it has dim 8, and this training 4"
    assert train_at(other, AS_OF).manifest.summary.endswith(reason)
    monkeypatch.setattr(warm_start, "BUNDLE_VERSION", 99)
    again = dataclasses.replace(STEP, reusable=False)
    refs = inputs_of_training(warm, random_log(), CATALOG, AS_OF)
    summary = execute(again, settings=warm, inputs=refs, run_id="v99", as_of=AS_OF).manifest.summary
    assert summary.endswith("; cold start: the bundle before is of format 1, and this version reads 99")


@pytest.mark.parametrize("hours", [-5, 5])
def test_no_clock_says_which_of_two_bundles_of_a_moment_is_started_from(tmp_path: Path, hours: int) -> None:
    store, made_at = Store(str(tmp_path)), datetime(2024, 1, 1, tzinfo=UTC)

    def bundle(content: str, *, created_at: datetime, as_of: datetime = YESTERDAY, files: tuple[str, ...]) -> None:
        entries = [FileEntry(path=name, sha256="", size_bytes=1) for name in files]
        given = {"kind": "bundle", "uri": "", "rows": 1, "summary": "", "statistics": {}, "inputs": [], "step": "train"}
        hashes = {"content_sha256": content, "settings_sha256": "", "code_sha256": "", "run_id": content}
        manifest = Manifest(**given, **hashes, files=entries, created_at=created_at, as_of=as_of)
        store.write_json(f"bundle/{content}/{MANIFEST}", manifest.model_dump(mode="json"))

    bundle("b", created_at=made_at, files=(warm_start.FILE,))
    bundle("a", created_at=made_at + timedelta(hours=hours), files=(warm_start.FILE,))
    bundle("c", created_at=made_at + timedelta(hours=hours), files=())  # made without train.warm_start
    bundle("d", created_at=made_at, files=(warm_start.FILE,), as_of=YESTERDAY - timedelta(days=1))
    context = SimpleNamespace(store=store, moment=AS_OF)
    found = warm_start.previous_bundle(context)  # type: ignore[arg-type]
    assert found is not None
    assert found.content_sha256 == "b"


def test_items_are_joined_by_id_and_new_ones_turned_into_the_space_of_the_known() -> None:
    """Yesterday had items 1..11 and one that is gone; the start of today is that space, turned."""
    before = recommender()
    with torch.no_grad():
        for table in before.id_tables:
            table.normal_(generator=torch.Generator().manual_seed(1))
        before.content[0].weight.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr,operator]
        before.user_vector.readout[0].bias.fill_(3.0)  # type: ignore[union-attr]
    tensors = {f"first.{name}": tensor.clone() for name, tensor in before.state_dict().items()}
    order = torch.tensor([*range(11, 0, -1), 0])
    for table in (0, 1):
        tensors[f"first.id_tables.{table}"] = before.id_tables[table].detach()[order]
    start = WarmStart(
        sha256="",
        item_ids=pa.array([*(f"i{n}" for n in range(11, 0, -1)), "gone"]),
        vocabularies={"category": ("kind 2", "kind 0")},  # in another order, one value unknown then
        network=before.config.to_json(),
        tensors=tensors,
    )
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))
    today = recommender()
    with torch.no_grad():
        for table, known in zip(today.id_tables, before.id_tables, strict=True):
            table.copy_(known @ turn)
    content = today.content[0].weight.detach().clone()  # type: ignore[union-attr,operator]
    ids = pa.array([f"i{n}" for n in range(NUM_ITEMS)])
    assert start.refusal(today) is None
    assert start.into(today, "first", item_ids=ids, attributes=attributes()) == 11
    for table, known in zip(today.id_tables, before.id_tables, strict=True):
        torch.testing.assert_close(table, known, atol=1e-4, rtol=0)  # item 0, which was new, found its place too
    now, was = today.content[0].weight.detach(), before.content[0].weight.detach()  # type: ignore[union-attr,operator]
    assert torch.equal(now[3], was[1])
    assert torch.equal(now[1], was[2])
    assert torch.equal(now[[0, 2]], content[[0, 2]])
    assert (today.user_vector.readout[0].bias == 3).all()  # type: ignore[union-attr]
