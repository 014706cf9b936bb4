"""Start from yesterday's bundle: what it had learnt, joined by item id and attribute value.

A bundle that may be started from keeps both trainings of its step. The first of them ended before its validation slice,
and alone may start the next first training: weights that have seen most of the slice would be judged by what they know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.core.artifact import MANIFEST, Artifact, ArtifactWriter, Manifest
from components.core.errors import ArtifactError
from components.core.step import StepContext
from components.model.attributes import ItemAttributes
from components.model.bundle import BUNDLE_VERSION
from components.model.recommender import Recommender
from components.train.world import World

FILE = "warm_start.safetensors"
Training = Literal["first", "second"]


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """What a bundle had learnt."""

    sha256: str
    item_ids: pa.StringArray  # (W,) of the rows of its id tables
    vocabularies: Mapping[str, Sequence[str]]  # attribute -> its values, in order of the content vectors
    network: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def refusal(self, model: Recommender) -> str | None:
        """Why the model cannot start from it; None: it can."""
        for name in ("dim", "encoder", "num_layers", "num_tables", "num_statistics", "user_pooling"):
            was, now = self.network.get(name), model.config.to_json()[name]
            if was != now:
                return f"it has {name} {was}, and this training {now}"
        return None

    @torch.no_grad()
    def into(
        self, model: Recommender, training: Training, *, item_ids: pa.StringArray, attributes: ItemAttributes
    ) -> int:
        """Put what fits into a started model -> items that it knew. `item_ids` (I,) are those of its id tables.

        New items keep their start, turned into the space of those that were known: a singular vector's sign and order
        are another every day.
        """
        place = pc.index_in(item_ids, value_set=self.item_ids)
        is_known = torch.from_numpy(place.is_valid().to_numpy(zero_copy_only=False).copy())
        was = torch.from_numpy(place.drop_null().to_numpy().astype(np.int64))
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        own = {
            name.removeprefix(f"{training}."): tensor.float()
            for name, tensor in self.tensors.items()
            if name.startswith(f"{training}.")
        }
        for name, tensor in state.items():
            before = own.get(name)
            if before is None:
                continue
            if name.startswith("id_tables."):
                known_KD = before[was].to(tensor.device)
                left, _, right = torch.linalg.svd(tensor[is_known].T @ known_KD)
                state[name] = tensor @ (left @ right)
                state[name][is_known] = known_KD
            elif name.startswith("content."):
                self._join_content(tensor, before, attributes.names[int(name.split(".")[1])], attributes)
            elif before.shape == tensor.shape and self._means_the_same(name, model):
                state[name] = before.to(tensor.device)
        model.load_state_dict(state)
        return int(is_known.sum())

    def _join_content(self, content_VD: Tensor, before: Tensor, name: str, attributes: ItemAttributes) -> None:
        row_of = {value: row for row, value in enumerate(self.vocabularies.get(name, ()), start=1)}
        values = attributes.vocabularies[attributes.names.index(name)]
        rows = [(row, row_of[value]) for row, value in enumerate(values, start=1) if value in row_of]
        if rows:
            now, was = (torch.tensor(side) for side in zip(*rows, strict=True))
            content_VD[now] = before[was].to(content_VD.device)

    def _means_the_same(self, name: str, model: Recommender) -> bool:
        """Weights by relation only fit the same relations in the same order."""
        return not name.startswith("encoder.") or tuple(self.network["relations"]) == model.config.relations


def write_warm_start(
    output: ArtifactWriter, *, first: Recommender, second: Recommender, warm: npt.NDArray[np.int64]
) -> None:
    """Both trainings of a step, id vectors in half precision. `warm` (W,) are their items' rows in the item table."""
    tensors = {"rows": torch.from_numpy(warm)}
    for training, model in (("first", first), ("second", second)):
        for name, tensor in model.state_dict().items():
            if name != "user_vector.item_degree_I":
                kept = tensor.half() if name.startswith("id_tables.") else tensor
                tensors[f"{training}.{name}"] = kept.cpu().contiguous()
    save_file(tensors, output.path(FILE))


def previous_bundle(context: StepContext) -> Manifest | None:
    """The newest bundle judged as of an earlier moment than this step.

    Of several of one moment one that may be started from, and of those the one of the highest content hash: which was
    made last is a clock's word, and a run that is repeated must find the same.
    """
    store = context.store
    found = []
    for key in store.list_dir("bundle"):
        name = f"bundle/{key}/{MANIFEST}"
        if not store.exists(name):
            continue
        try:
            manifest = Manifest.model_validate(store.read_json(name))
        except (ValueError, ValidationError):
            continue  # of another format, or torn: not to be started from
        if manifest.as_of < context.moment:
            found.append(manifest)
    return max(found, key=_preference, default=None)


def _preference(manifest: Manifest) -> tuple[datetime, bool, str]:
    return manifest.as_of, any(entry.path == FILE for entry in manifest.files), manifest.content_sha256


def warm_start_key(context: StepContext) -> str | None:
    """What the start adds to the step's key."""
    if not context.settings.train.warm_start:
        return None
    manifest = previous_bundle(context)
    return None if manifest is None else manifest.content_sha256


def read_warm_start(context: StepContext) -> WarmStart | str:
    """What may be started from, or the reason why this training starts cold."""
    manifest = previous_bundle(context)
    if manifest is None:
        return "there is no bundle of an earlier moment"
    try:
        bundle = Artifact.open(context.store, manifest.uri, sha256=manifest.content_sha256, kind="bundle")
        version = json.loads(bundle.path("bundle.json").read_text()).get("format_version")
        if version != BUNDLE_VERSION:
            return f"the bundle before is of format {version}, and this version reads {BUNDLE_VERSION}"
        if FILE not in bundle.file_names:
            return "the bundle before was made without train.warm_start"
        described = json.loads(bundle.path("encoder.json").read_text())
        tensors = load_file(bundle.path(FILE))
        item_ids = bundle.table("items.parquet")["item_id"].combine_chunks()
    except ArtifactError as error:
        return f"the bundle before cannot be read ({error})"
    return WarmStart(
        sha256=bundle.manifest.content_sha256,
        item_ids=item_ids.take(pa.array(tensors["rows"].numpy())),
        vocabularies=described["vocabularies"],
        network=described["network"],
        tensors=tensors,
    )


class Warming:
    """How the trainings of one step start, and what there is to say of it."""

    def __init__(self, start: WarmStart | None, note: str, *, item_ids: pa.StringArray, attributes: ItemAttributes):
        self._start, self.note = start, note
        self._item_ids, self._attributes = item_ids, attributes

    @classmethod
    def of(cls, context: StepContext, world: World) -> Warming:
        """By the settings: cold without a word, warm, or cold with the reason."""
        item_ids = world.item_ids.take(pa.array(world.warm))
        start: WarmStart | str | None = read_warm_start(context) if context.settings.train.warm_start else None
        note = f"; cold start: {start}" if isinstance(start, str) else ""
        return cls(None if isinstance(start, str) else start, note, item_ids=item_ids, attributes=world.attributes)

    def put(self, training: Training) -> Callable[[Recommender], None]:
        """What `train_recommender` calls with a started model."""

        def warm(model: Recommender) -> None:
            if self._start is None:
                return
            refusal = self._start.refusal(model)
            if refusal is not None:
                self.note = f"; cold start: {refusal}"
                return
            known = self._start.into(model, training, item_ids=self._item_ids, attributes=self._attributes)
            self.note = f"; warm start, {len(self._item_ids) - known:,} items new"

        return warm
