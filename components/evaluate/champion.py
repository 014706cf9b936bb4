"""The bundle that serves now, as the challenger's opponent: found by the deploy pointer, opened whole, ranked alike.

A champion is never passed by silently: where there is one that cannot be compared with, the gates are told why.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from components.core.artifact import MANIFEST, Artifact, ArtifactRef, Manifest
from components.core.errors import ArtifactError
from components.core.live import read_pointer
from components.core.split import TimeSplit
from components.core.store import Store
from components.evaluate.contest import CHAMPION, NEW_ITEMS
from components.evaluate.rules import ChampionState, Opponent
from components.evaluate.vectors import misplaced_in
from components.inputs.users import read_histories, read_statistics
from components.model.bundle import Bundle, verified_manifest
from components.model.histories import Histories


@dataclass(frozen=True, kw_only=True)
class Champion:
    """What the pointer names; `bundle` and `manifest` are None unless it can be compared with."""

    state: ChampionState
    sentence: str
    ref: ArtifactRef | None = None
    bundle: Bundle | None = None
    manifest: Manifest | None = None
    misplaced: float = float("nan")
    """Share of its items whose vector is not at home (components/evaluate/vectors.py)."""

    def opponent(self, beside: Mapping[str, float]) -> Opponent:
        return Opponent(state=self.state, sentence=self.sentence, beside=beside)


class ChampionEntrant:
    """The champion's score, over the challenger's items: an item that the champion lacks is never listed by it."""

    name = CHAMPION
    settings = (NEW_ITEMS,)

    def __init__(self, bundle: Bundle, *, item_ids: pa.StringArray, histories: Histories, statistics: Tensor) -> None:
        """`item_ids` (I,) are the challenger's; `histories` are over the champion's own items."""
        self._scorer = bundle.scorer
        self._histories = histories
        self._statistics = statistics
        place = pc.index_in(item_ids, value_set=pa.array(bundle.items.item_ids, pa.string()))
        is_known = place.is_valid().to_numpy(zero_copy_only=False)
        self._num_items = len(item_ids)
        self._target_N = torch.from_numpy(np.flatnonzero(is_known))
        self._source_N = torch.from_numpy(place.drop_null().to_numpy().astype(np.int64))
        same = len(self._source_N) == self._num_items == bundle.scorer.num_items
        self._is_same_table = same and bool((self._source_N == torch.arange(self._num_items)).all())

    def scores(self, rows: np.ndarray) -> Iterable[tuple[str, Tensor]]:
        chosen = torch.from_numpy(rows)
        scores_BJ = self._scorer.score(self._histories.rows(chosen), self._statistics[chosen])
        if self._is_same_table:
            yield NEW_ITEMS, scores_BJ
            return
        scores_BI = torch.full((len(rows), self._num_items), -torch.inf)
        scores_BI[:, self._target_N] = scores_BJ[:, self._source_N]
        yield NEW_ITEMS, scores_BI


def entrant_of(
    champion: Bundle, *, features: Artifact, split: TimeSplit, user_ids: pa.StringArray, item_ids: pa.StringArray
) -> ChampionEntrant:
    """The champion with what is known of users at the challenger's cutoff, as it would serve them then.

    Raises ArtifactError where the features hold nothing of what the champion reads.
    """
    own_ids = pa.array(champion.items.item_ids, pa.string())
    try:
        statistics = read_statistics(features, split.cutoff, user_ids=user_ids, names=champion.statistics_names)
    except (pa.ArrowInvalid, KeyError) as error:
        raise ArtifactError(f"The champion reads features that there are none of any more: {error}.") from error
    histories = read_histories(features, split.cutoff, user_ids=user_ids, item_ids=own_ids)
    return ChampionEntrant(champion, item_ids=item_ids, histories=histories, statistics=statistics)


def champion_ref(store: Store, *, challenger_sha256: str) -> ArtifactRef | None:
    """The bundle that serves; None before the first deploy, and where it is the challenger itself.

    Raises ArtifactError where the pointer cannot be read.
    """
    pointer = read_pointer(store)
    return None if pointer is None or pointer.bundle.sha256 == challenger_sha256 else pointer.bundle


def champion_key(store: Store, *, challenger_sha256: str) -> Any:
    """What of the champion decides a verdict: which it is, and whether it is whole. None without one."""
    ref = champion_ref(store, challenger_sha256=challenger_sha256)
    if ref is None:
        return None
    try:
        with local_folder(Artifact.open(store, ref.uri, sha256=ref.sha256, kind="bundle")) as folder:
            verified_manifest(folder)
    except ArtifactError as error:
        return [ref.sha256, str(error)]
    return [ref.sha256]


def open_champion(store: Store, *, challenger_sha256: str, split: TimeSplit, seed: int) -> Champion:
    """What serves now, opened and checked; never raises for a champion that is damaged or gone."""
    pointer = read_pointer(store)
    if pointer is None:
        return Champion(state="none", sentence="No bundle serves yet, so there is none to compare with.")
    ref = pointer.bundle
    short = ref.sha256[:12]
    if ref.sha256 == challenger_sha256:
        return Champion(state="same", sentence=f"It is the bundle that serves, {short}: equal to itself.", ref=ref)
    try:
        artifact = Artifact.open(store, ref.uri, sha256=ref.sha256, kind="bundle")
        with local_folder(artifact) as folder:
            bundle = Bundle.load(folder)
            misplaced = misplaced_in(folder, bundle.scorer.target_ID.numpy(), seed=seed)
        bundle.golden.check(bundle.scorer)
    except ArtifactError as error:
        return Champion(
            state="unreadable",
            sentence=f"The bundle that serves, {short}, cannot be compared with: {error} Put its files back or move "
            "the deploy pointer to a whole bundle, then evaluate again.",
            ref=ref,
        )
    start = split.holdout.start
    if bundle.cutoff > start:
        return Champion(
            state="has seen",
            sentence=f"The bundle that serves, {short}, has learnt until {bundle.cutoff.isoformat()} and so has "
            f"seen part of this hold-out, which starts at {start.isoformat()}. Judge on later days.",
            ref=ref,
        )
    return Champion(
        state="comparable",
        sentence=f"beside the bundle that serves, {short}, learnt until {bundle.cutoff.isoformat()}",
        ref=ref,
        bundle=bundle,
        manifest=artifact.manifest,
        misplaced=misplaced,
    )


@contextmanager
def local_folder(artifact: Artifact) -> Iterator[Path]:
    """A folder of this machine with the artifact's files and its manifest; their hashes are checked by who reads."""
    if artifact.store.is_local:
        yield Path(artifact.store.path(artifact.store.relative(artifact.manifest.uri)))
        return
    with tempfile.TemporaryDirectory(prefix="basketweave-") as name:
        for file in artifact.file_names:
            target = Path(name) / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path(file), target)
        (Path(name) / MANIFEST).write_text(artifact.manifest.model_dump_json())
        yield Path(name)


def size_bytes(manifest: Manifest) -> int:
    """Of all files that a worker loads or keeps; reports are left out."""
    return sum(entry.size_bytes for entry in manifest.files if not entry.is_report)
