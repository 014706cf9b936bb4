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
        *_graph(manifest_of, inputs.get("graph"), clean=clean, as_of=split.as_of),
        _snapshot(features, split.cutoff),
        _answers("golden request", lambda: bundle.golden.check(bundle.scorer), "the bundle answers its golden request"),
    )


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


def _graph(bundle: Artifact, used: ArtifactRef | None, *, clean: Artifact, as_of: datetime) -> tuple[Check, Check]:
    """Whether the bundle's graph is there, and whether it is of this log and moment: its manifest says both."""
    known, of_now = "known graph", "graph of this log and moment"
    if used is None:
        sentence = "The bundle does not say which graph it was made from."
        return Check(name=known, passed=False, sentence=sentence), Check(name=of_now, passed=False, sentence=sentence)
    try:
        graph = Artifact.open(bundle.store, used.uri, sha256=used.sha256, kind="graph")
    except BasketweaveError as error:
        return (
            Check(name=known, passed=False, sentence=str(error)),
            Check(name=of_now, passed=False, sentence="Its graph cannot be opened."),
        )
    is_there = Check(name=known, passed=True, sentence=f"the bundle's graph is in the store, {used.sha256[:12]}")
    logs = [ref.sha256 for ref in graph.manifest.inputs if ref.kind == "clean"]
    if graph.as_of != as_of:
        sentence = (
            f"The bundle's graph is as of {graph.as_of.isoformat()}, not {as_of.isoformat()}. Build the graph again, "
            "then train again."
        )
    elif logs != [clean.manifest.content_sha256]:
        sentence = "The bundle's graph was made from another log than this. Build the graph again, then train again."
    else:
        sentence = f"the bundle's graph is of this log, as of {as_of.isoformat()}"
        return is_there, Check(name=of_now, passed=True, sentence=sentence)
    return is_there, Check(name=of_now, passed=False, sentence=sentence)


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
