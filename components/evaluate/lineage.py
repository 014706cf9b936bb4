"""Is this the bundle that we think it is, and has it not seen the hold-out? Checked before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from components.core.artifact import Artifact, ArtifactRef
from components.core.errors import BasketweaveError
from components.core.split import TimeSplit
from components.inputs.users import has_snapshot
from components.model.bundle import Bundle

# Kinds that a bundle is made from; graph is not an input of this step and is looked up.


@dataclass(frozen=True, kw_only=True)
class Check:
    """A yes-or-no condition; `sentence` says what holds, or what is wrong."""

    name: str
    passed: bool
    sentence: str


def check_lineage(
    bundle: Bundle, manifest_of: Artifact, *, clean: Artifact, features: Artifact, split: TimeSplit
) -> tuple[Check, ...]:
    """All checks, passed or not. `manifest_of` is the bundle's artifact."""
    inputs = {ref.kind: ref for ref in manifest_of.manifest.inputs}
    return (
        _same("bundle cutoff", bundle.cutoff, split.cutoff, what="the bundle's graph and weights end at the cutoff"),
        _same("bundle as-of", bundle.as_of, split.as_of, what="the bundle was made for this moment"),
        _same_input("trained on this log", inputs.get("clean"), clean),
        _same_input("trained on these features", inputs.get("features"), features),
        _known_graph(manifest_of, inputs.get("graph")),
        _snapshot(features, split.cutoff),
        _answers("golden request", lambda: bundle.golden.check(bundle.scorer), "the bundle answers its golden request"),
    )


def unreadable(error: BasketweaveError) -> tuple[Check, ...]:
    """The one check that is left when the bundle cannot be opened."""
    return (Check(name="bundle whole", passed=False, sentence=str(error)),)


def _same(name: str, found: datetime, expected: datetime, *, what: str) -> Check:
    if found == expected:
        return Check(name=name, passed=True, sentence=f"{what}, {expected.isoformat()}")
    return Check(
        name=name,
        passed=False,
        sentence=f"{name} is {found.isoformat()}, but the split of this run says {expected.isoformat()}. Train again.",
    )


def _same_input(name: str, used: ArtifactRef | None, given: Artifact) -> Check:
    kind, sha256 = given.manifest.kind, given.manifest.content_sha256
    if used is not None and used.sha256 == sha256:
        return Check(name=name, passed=True, sentence=f"the bundle's '{kind}' is the one judged on, {sha256[:12]}")
    said = f"was made from {kind} {used.sha256[:12]}" if used else f"does not say which {kind} it was made from"
    return Check(
        name=name, passed=False, sentence=f"The bundle {said}, but is judged on {kind} {sha256[:12]}. Train again."
    )


def _known_graph(bundle: Artifact, used: ArtifactRef | None) -> Check:
    name = "known graph"
    if used is None:
        return Check(name=name, passed=False, sentence="The bundle does not say which graph it was made from.")
    return _answers(
        name,
        lambda: Artifact.open(bundle.store, used.uri, sha256=used.sha256, kind="graph"),
        f"the bundle's graph is in the store, {used.sha256[:12]}",
    )


def _snapshot(features: Artifact, cutoff: datetime) -> Check:
    if has_snapshot(features, cutoff):
        return Check(name="features at the cutoff", passed=True, sentence=f"users are known as of {cutoff.isoformat()}")
    return Check(
        name="features at the cutoff",
        passed=False,
        sentence=f"The features hold no user as of {cutoff.isoformat()}. Run features with the split of this run.",
    )


def _answers(name: str, attempt: Callable[[], object], holds: str) -> Check:
    try:
        attempt()
    except BasketweaveError as error:
        return Check(name=name, passed=False, sentence=str(error))
    return Check(name=name, passed=True, sentence=holds)
