"""Nothing that the schema of values allows renders invalid manifests: values drawn from the schema itself."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from needs import missing
from values_strategy import values

from charts.check.checks import KUBERNETES, validate
from charts.check.helm import CHART, NoHelmError, helm_path, render

pytestmark = pytest.mark.slow

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Sentences of templates/_rules.tpl: what a schema cannot say.
RULES = (CHART / "templates" / "_rules.tpl").read_text()
STORAGE = ({"uri": "s3://shop/basketweave"}, {"existingClaim": "shop"})
FEATURES = ({}, {"redis": {"existingSecret": "redis"}}, {"features": {"existingClaim": "features"}})
# Shrinking would render hundreds of times for a smaller example.
PHASES = (Phase.explicit, Phase.generate)
DECIDED = ("apiKeys", "storage", "redis", "features", "global")


@st.composite
def chart_values(draw: st.DrawFn) -> dict[str, Any]:
    """Any values, but for the few that must go together."""
    drawn = {
        name: draw(values(field, SCHEMA["definitions"]))
        for name, field in SCHEMA["properties"].items()
        if name not in DECIDED and name != "settings" and draw(st.booleans())
    }
    sections = SCHEMA["properties"]["settings"]["properties"]
    chosen = draw(st.lists(st.sampled_from(sorted(set(sections) - {"project"})), max_size=3, unique=True))
    drawn["settings"] = {name: draw(values(sections[name], SCHEMA["definitions"])) for name in chosen}
    drawn["settings"]["project"] = draw(values(sections["project"], SCHEMA["definitions"]))
    drawn |= draw(st.sampled_from(FEATURES))
    return {**drawn, "apiKeys": {"existingSecret": "keys"}, "storage": draw(st.sampled_from(STORAGE))}


@pytest.fixture(scope="module", autouse=True)
def has_helm() -> None:
    try:
        helm_path()
    except NoHelmError as error:
        missing(f"no Helm: {error}")


def test_whatever_the_schema_allows_is_refused_in_a_sentence_or_renders_valid_manifests(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    outcomes = {"rendered": 0, "refused": 0}

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(given_values=chart_values(), version=st.sampled_from((KUBERNETES[0], KUBERNETES[-1])))
    def check(given_values: dict[str, Any], version: str) -> None:
        file.write_text(json.dumps(given_values))  # YAML too, and read alike by every version of it
        rendered = render([file])
        if rendered.error:
            assert is_a_rule(rendered.error), f"{rendered.error}\n{file.read_text()}"
            outcomes["refused"] += 1
            return
        outcomes["rendered"] += 1
        assert validate(rendered.manifests, versions=[version]) == [], file.read_text()
        for manifest in rendered.manifests:
            assert len(manifest["metadata"]["name"]) <= 63
            # What Go writes as 1e+06 is an integer to a validator, and none to Kubernetes.
            whole = [number for number in numbers(manifest) if isinstance(number, float) and number.is_integer()]
            assert whole == [], file.read_text()
            if "basketweave.toml" in manifest.get("data", {}):
                tomllib.loads(manifest["data"]["basketweave.toml"])

    check()
    assert outcomes["rendered"] >= 10, outcomes


def numbers(node: Any) -> list[float]:
    """Every number in a manifest."""
    if isinstance(node, dict):
        return [number for value in node.values() for number in numbers(value)]
    if isinstance(node, list):
        return [number for value in node for number in numbers(value)]
    return [node] if isinstance(node, int | float) and not isinstance(node, bool) else []


def is_a_rule(error: str) -> bool:
    """Whether the error is a sentence of _rules.tpl; each begins with the key that it is about."""
    found = re.match(r"Error: execution error at \(basketweave/templates/[^)]*\): (\S+) [^\n]*\.$", error, re.MULTILINE)
    return found is not None and found[1] in RULES


def test_the_check_sees_a_schema_that_is_too_wide(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    base = {"apiKeys": {"existingSecret": "keys"}, "storage": {"uri": "s3://shop/b"}, "settings": {"project": "shop"}}
    file.write_text(json.dumps(base))
    [deployment] = [one for one in render([file]).manifests if one["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["affinity"] = {"nodeAffinity": {"required": True}}
    assert "nodeAffinity" in "".join(validate([deployment], versions=["1.33"]))
