"""The bundle: everything that serving needs of a model, in one immutable folder. docs/architecture.md lists its files.

No user is in it: histories come from the online store or the request.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.core.artifact import MANIFEST, ArtifactWriter, Manifest, content_sha256
from components.core.errors import ArtifactError
from components.core.hashing import file_sha256
from components.model.attributes import ItemAttributes
from components.model.encoders import ItemGraph
from components.model.golden import Golden
from components.model.linear_filter import FilterRows, strongest_per_row
from components.model.propagation import TwoHop
from components.model.recommender import Recommender
from components.model.rules import NO_LIST_RULES, ListRules
from components.model.score import Scorer, ScoreWeights
from components.model.terms import CountedTerms, Popularity
from components.model.user_vector import StatisticsScaling, UserVector

BUNDLE_VERSION = 1
NEIGHBOURS_SHOWN = 5
TEXTS_AT_ONCE = 512
PAUSE_SECONDS = 0.0005
ITEM_COLUMNS = (
    *("item_id", "title", "attribute:category", "attribute:brand"),
    *("price", "distinct_users", "recent_users"),
)
# The version of the features that the score reads: a name in feature_repo/.
FEATURE_SERVICE = "recommender_v1"


class Names(Sequence[str | None]):
    """Of each item, one of a few names, or None."""

    def __init__(self, column: pa.Array) -> None:
        coded = column.dictionary_encode()
        self.values: list[str | None] = [*coded.dictionary.to_pylist(), None]
        """The names, and None last."""
        self.codes: npt.NDArray[np.int32] = (
            coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int32)
        )
        """(I,) which of them."""

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[str | None]:
        return map(self.values.__getitem__, self.codes.tolist())

    def __getitem__(self, item: Any) -> Any:
        found = self.codes[item]
        return [self.values[code] for code in found] if isinstance(item, slice) else self.values[found]


class Texts(Sequence[str | None]):
    """Of each item, a text of its own, or None; a string is made where somebody looks."""

    def __init__(self, column: pa.Array) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, item: Any) -> Any:
        return self._column[item].to_pylist() if isinstance(item, slice) else self._column[item].as_py()


@dataclass(frozen=True)
class ItemTable:
    """Row n is item n of every vector and matrix."""

    item_ids: Sequence[str]
    index: dict[str, int]
    titles: Texts
    categories: Names
    brands: Names
    prices: npt.NDArray[np.float32]  # nan where unknown
    popularity: npt.NDArray[np.int64]  # distinct users at the cutoff

    def __len__(self) -> int:
        return len(self.item_ids)

    def display(self, item: int) -> str:
        """What a person should read: the title, or the id where there is none."""
        return self.titles[item] or self.item_ids[item]


class Bundle:
    """A loaded bundle."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        facts: dict[str, Any],
        items: ItemTable,
        scorer: Scorer,
        rules: ListRules = NO_LIST_RULES,
    ) -> None:
        self.sha256 = manifest.content_sha256
        self.run_id = manifest.run_id
        self.as_of = manifest.as_of
        self.cutoff = datetime.fromisoformat(facts["cutoff"])
        self.format_version: int = facts["format_version"]
        self.facts = facts
        self.items = items
        self.scorer = scorer
        self.rules = rules  # every list that is served or judged keeps them
        # How much of the retrieval's layout is looked at; a bundle that says nothing is exact.
        self.run_limit: int | None = facts.get("retrieval", {}).get("run_limit")
        self.statistics_names: tuple[str, ...] = scorer.scaling.names
        self.golden = Golden.from_json(facts["golden"])

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read a bundle after checking every file against its manifest. Who serves it checks `golden` as well.

        Raises:
            ArtifactError: missing, damaged, or of another format version.
        """
        manifest = verified_manifest(folder)
        facts = json.loads((folder / "bundle.json").read_text())
        if facts.get("format_version") != BUNDLE_VERSION:
            raise ArtifactError(
                f"{folder} is a bundle of format {facts.get('format_version')}; this version reads {BUNDLE_VERSION}. "
                "Train it again."
            )
        items_table = _read_items(folder / "items.parquet")
        scorer = _read_scorer(folder, facts, items_table)
        items = _item_table(items_table)
        # A bundle from before there were rules has none.
        known = folder / "rules.parquet"
        rules = ListRules.of(pq.read_table(known), items.index) if known.is_file() else NO_LIST_RULES
        return cls(manifest=manifest, facts=facts, items=items, scorer=scorer, rules=rules)


def verified_manifest(folder: Path) -> Manifest:
    """The folder's manifest, after every file's hash was compared with it."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(f"{folder} is no bundle: its {MANIFEST} is missing or cannot be read.") from error
    if manifest.kind != "bundle":
        raise ArtifactError(f"{folder} holds a '{manifest.kind}', not a bundle.")
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file() or file_sha256(path) != entry.sha256:
            raise ArtifactError(f"{path} is missing or damaged: its hash is not the manifest's. Use another bundle.")
    fits = content_sha256(manifest.kind, manifest.files, manifest.partitions) == manifest.content_sha256
    if not fits or manifest.seal != manifest.own_sha256():
        raise ArtifactError(f"{folder / MANIFEST} was changed: its content hash does not fit its files.")
    return manifest


def write_bundle(
    output: ArtifactWriter,
    *,
    items: pa.Table,
    attributes: ItemAttributes,
    scorer: Scorer,
    cutoff: datetime,
    facts: dict[str, Any],
) -> None:
    """Write every file of a bundle but the manifest.

    Args:
        items: item_id, title, price, price_band and `attribute:*` columns of I items.
        facts: what else should be known of it (recipe, validation scores); JSON-able.
    """
    counted = scorer.counted
    popularity = counted.popularity
    written = items.append_column("distinct_users", pa.array(popularity.ever_I.long().numpy()))
    written = written.append_column("recent_users", pa.array(popularity.recent_I.long().numpy()))
    output.write_table("items.parquet", written)
    save_file(
        {"history": scorer.history_ID.contiguous(), "target": scorer.target_ID.contiguous()},
        output.path("vectors.safetensors"),
    )
    rows = counted.filter_rows
    filter_tensors = {"indptr": rows.indptr, "indices": rows.indices, "values": rows.values}
    save_file(filter_tensors, output.path("filter.safetensors"))
    state = {name: tensor.contiguous() for name, tensor in scorer.user_vector.state_dict().items()}
    save_file(state, output.path("user_vector.safetensors"))
    save_file({"codes": attributes.codes_IA.contiguous()}, output.path("attributes.safetensors"))
    golden = Golden.of(scorer, popularity=popularity.ever_I)
    content = {
        "format_version": BUNDLE_VERSION,
        "cutoff": cutoff.isoformat(),
        "temperature": scorer.temperature,
        "feature_service": FEATURE_SERVICE,
        "dim": scorer.target_ID.shape[1],
        "user_half_life_days": scorer.user_vector.half_life_days,
        "user_pooling": scorer.user_vector.pooling,
        "counted_half_life_days": counted.half_life_days,
        "weights": asdict(scorer.weights),
        "statistics": asdict(scorer.scaling),
        "attributes": {
            "names": attributes.names,
            "sizes": attributes.sizes,
            "affinity_names": attributes.affinity_names,
        },
        "golden": golden.to_json(),
        **facts,
    }
    output.path("bundle.json").write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False))


def write_encoder(output: ArtifactWriter, *, model: Recommender, attributes: ItemAttributes, graph: ItemGraph) -> None:
    """What the item vectors were made with, so that an item that nobody knows yet can be embedded and explained.

    Args:
        model: whose content and encoder weights go along.
        graph: as of the cutoff, over the bundle's items.
    """
    kept = {
        name: tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(("content.", "encoder."))
    }
    save_file(kept, output.path("encoder.safetensors"))
    described = {
        "network": model.config.to_json(),
        "vocabularies": dict(zip(attributes.names, attributes.vocabularies, strict=True)),
    }
    output.path("encoder.json").write_text(json.dumps(described, ensure_ascii=False))
    output.write_table("neighbours.parquet", _strongest_neighbours(graph))


def _strongest_neighbours(graph: ItemGraph) -> pa.Table:
    """relation, item, neighbour, weight: the strongest few of each item and relation."""
    parts = []
    for name in sorted(graph):
        matrix = graph[name]
        if isinstance(matrix, TwoHop):
            continue  # its product is not written out, and users have no place in a bundle
        num_items = matrix.shape[0]
        square = sp.csr_matrix(
            (matrix.values.numpy(), matrix.indices.numpy(), matrix.indptr.numpy()), shape=(num_items, num_items)
        )
        strongest = strongest_per_row(square, count=NEIGHBOURS_SHOWN)
        item = np.repeat(np.arange(num_items, dtype=np.int32), np.diff(strongest.indptr))
        columns = [pa.repeat(pa.scalar(name), len(item)), item, strongest.indices.astype(np.int32), strongest.data]
        parts.append(pa.table(columns, names=["relation", "item", "neighbour", "weight"]))
    return pa.concat_tables(parts)


def _read_scorer(folder: Path, facts: dict[str, Any], items: pa.Table) -> Scorer:
    vectors = load_file(folder / "vectors.safetensors")
    rows = load_file(folder / "filter.safetensors")
    scaling = StatisticsScaling(**{name: tuple(value) for name, value in facts["statistics"].items()})
    user_vector = UserVector(
        num_items=len(items),
        dim=facts["dim"],
        num_statistics=len(scaling.names),
        half_life_days=facts["user_half_life_days"],
        pooling=facts.get("user_pooling", "decayed"),  # bundles from before there was a choice
    )
    user_vector.load_state_dict(load_file(folder / "user_vector.safetensors"))
    described = facts["attributes"]
    attributes = ItemAttributes(
        tuple(described["names"]),
        load_file(folder / "attributes.safetensors")["codes"],
        tuple(described["sizes"]),
        tuple(described["affinity_names"]),
    )
    popularity = Popularity(_float_tensor(items, "distinct_users"), _float_tensor(items, "recent_users"))
    return Scorer(
        history_ID=vectors["history"],
        target_ID=vectors["target"],
        user_vector=user_vector,
        scaling=scaling,
        temperature=facts["temperature"],
        counted=CountedTerms(
            filter_rows=FilterRows(rows["indptr"], rows["indices"], rows["values"]),
            attributes=attributes,
            popularity=popularity,
            half_life_days=facts["counted_half_life_days"],
        ),
        weights=ScoreWeights(**facts["weights"]),
    )


def _read_items(path: Path) -> pa.Table:
    """The columns that a bundle is read for; a catalogue may have many more."""
    there = set(pq.read_schema(path).names)
    return pq.read_table(path, columns=[name for name in ITEM_COLUMNS if name in there])


def _float_tensor(items: pa.Table, name: str) -> Tensor:
    return torch.from_numpy(items[name].to_numpy().astype(np.float32))


def _item_table(items: pa.Table) -> ItemTable:

    def column(name: str) -> pa.Array:
        if name not in items.column_names:
            return pa.nulls(len(items), pa.string())
        return pa.concat_arrays(items[name].chunks) if len(items) else pa.array([], pa.string())

    item_ids: list[str] = []
    index: dict[str, int] = {}
    # In turns, with pauses: a request needs the interpreter many times, and would wait for a turn's end each time.
    ids = column("item_id")
    for start in range(0, len(items), TEXTS_AT_ONCE):
        item_ids += ids.slice(start, TEXTS_AT_ONCE).to_pylist()
        index.update(zip(item_ids[start:], range(start, len(item_ids)), strict=True))
        time.sleep(PAUSE_SECONDS)
    return ItemTable(
        item_ids=item_ids,
        index=index,
        titles=Texts(column("title")),
        categories=Names(column("attribute:category")),
        brands=Names(column("attribute:brand")),
        prices=items["price"].to_numpy(zero_copy_only=False).astype(np.float32),
        popularity=items["distinct_users"].to_numpy().astype(np.int64),
    )
