"""Bundles with a planted fault, made from a sound one: every file but the spoilt one is the same, hashes are right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from components.core.artifact import Artifact, ArtifactRef
from components.core.command import load_step
from components.core.settings import Settings
from components.core.step import Step, StepContext, StepReport, execute
from components.core.store import Store
from components.model.bundle import _read_scorer
from components.model.golden import Golden
from components.model.score import Scorer


def plant(settings: Settings, sound: ArtifactRef, *, name: str, spoil: Callable[[Path], None]) -> ArtifactRef:
    """A bundle like `sound`, spoilt; committed by the project's own step execution, from the same inputs."""
    manifest = Artifact.open(Store(settings.artifact_root), sound.uri, sha256=sound.sha256).manifest

    def run(context: StepContext) -> StepReport:
        folder = Path(sound.uri)
        for entry in manifest.files:
            shutil.copyfile(folder / entry.path, context.output.path(entry.path, is_report=entry.is_report))
        spoil(context.output.folder)
        return StepReport(
            summary=f"{manifest.summary}; planted: {name}", rows=manifest.rows, statistics=manifest.statistics
        )

    real = load_step("train")
    step = Step(
        name="train", kind="bundle", inputs=real.inputs, sections=real.sections, rooms=real.rooms, run=run,
        fingerprint=lambda _: name,
    )  # fmt: skip
    inputs = {ref.kind: ref for ref in manifest.inputs}
    return execute(step, settings=settings, inputs=inputs, run_id=f"planted-{name}", as_of=manifest.as_of).ref


def shuffle_items(folder: Path) -> None:
    """What a bug of an index would do: every item has another item's vector, and its filter row. The golden answer is
    made anew, as the bug would have made it."""
    path = folder / "vectors.safetensors"
    tensors = load_file(path)
    order = torch.randperm(len(tensors["target"]), generator=torch.Generator().manual_seed(1))
    save_file({name: tensor[order].contiguous() for name, tensor in tensors.items()}, path)
    rewrite_golden(folder)


def hide_what_comes_again(folder: Path) -> None:
    """A sign error in one weight: what people buy again and again never comes, in lists where it may come. Lists of
    new items, which the gate looks at, are the same to the last digit, and the golden answer too."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    content["weights"]["repeat"] = -1e6
    path.write_text(json.dumps(content, indent=1, sort_keys=True))


def rewrite_golden(folder: Path) -> None:
    """The golden request's answer as the spoilt bundle gives it, so that only its quality is wrong."""
    scorer = _scorer(folder)
    popularity = torch.from_numpy(pq.read_table(folder / "items.parquet")["distinct_users"].to_numpy().copy())
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    content["golden"] = Golden.of(scorer, popularity=popularity).to_json()
    path.write_text(json.dumps(content, indent=1, sort_keys=True))


def _scorer(folder: Path) -> Scorer:
    """As `Bundle.load` reads it, without a manifest, which a bundle in the making does not have yet."""
    facts = json.loads((folder / "bundle.json").read_text())
    return _read_scorer(folder, facts, pq.read_table(folder / "items.parquet"))
