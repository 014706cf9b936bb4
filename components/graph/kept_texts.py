"""Which texts are alike, kept between runs: a catalogue seldom changes, and all its texts are measured by each other.

Of the last catalogue only: its texts' hash and a file of three columns. Another catalogue's answer takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from components.core.artifact import write_parquet
from components.core.errors import ArtifactError
from components.core.hashing import code_sha256, file_sha256, json_sha256
from components.core.shortcut import read_shortcut, write_shortcut
from components.core.store import Store
from components.graph.similar_texts import text_cosines

TABLE = "tables/similar_texts"
_STATE = f"{TABLE}/state.json"


def kept_cosines(texts: Sequence[str], *, neighbours: int, store: Store | None) -> sp.csr_matrix:
    """`text_cosines` of distinct, sorted texts; read where `store` has those of these very texts."""
    if store is None:
        return text_cosines(texts, neighbours=neighbours)
    code = code_sha256(("components.graph.similar_texts", "components.graph.kept_texts", "components.model.ranking"))
    key = json_sha256({"texts": texts, "neighbours": neighbours, "code": code})
    before = read_shortcut(store, _STATE) or {}
    if before.get("key") == key:
        try:
            table = pq.read_table(store.fetch(before["path"], sha256=before["sha256"]))
        except ArtifactError:
            pass  # gone or damaged: made again
        else:
            row, column, cosine = (table[name].to_numpy() for name in ("row", "column", "cosine"))
            return sp.csr_matrix((cosine, (row, column)), shape=(len(texts), len(texts)))
    found = text_cosines(texts, neighbours=neighbours)
    _keep(found, key, store, instead_of=before.get("path"))
    return found


def _keep(cosines: sp.csr_matrix, key: str, store: Store, *, instead_of: str | None) -> None:
    entries = cosines.tocoo()
    with store.staging() as folder:
        local = Path(folder) / "cosines.parquet"
        columns = {"row": entries.row, "column": entries.col, "cosine": entries.data}
        write_parquet(pa.table(columns), local, dictionaries=())
        sha256 = file_sha256(local)
        path = f"{TABLE}/{sha256[:20]}.parquet"
        store.put_file(local, path)
    with store.lock("table-similar_texts", doing="writing the table 'similar_texts'", timeout_seconds=60):
        write_shortcut(store, _STATE, {"key": key, "path": path, "sha256": sha256})
    if instead_of is not None and instead_of != path:
        store.delete(instead_of)
