"""The chart and the code say the same: settings, metrics, runbooks, paths."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charts.settings_schema import SCHEMA, settings_schema
from components.core.errors import SettingsError
from components.core.settings import load_settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "basketweave"
Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]
OVERRIDES = (
    'settings.train={"seed": 20261124, "temperature": 0.15, "learning_rate": 1e-7}',
    'settings.graph={"relations": ["co_purchase", "same_brand"]}',
    'settings.tracking={"experiment": "a \\"quoted\\" name: yes"}',
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BASKETWEAVE_")]:
        monkeypatch.delenv(name)


def test_the_schemas_settings_are_the_codes_settings() -> None:
    written = json.loads(SCHEMA.read_text())["properties"]["settings"]
    assert written == settings_schema(), "stale: run python -m charts.settings_schema"
    assert written["additionalProperties"] is False
    assert "api_keys" not in written["properties"]["serve"]["properties"]


def test_the_rendered_toml_and_environment_load_as_equal_settings(
    render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifests = render("small", *OVERRIDES)
    config = tmp_path / "rendered.toml"
    config.write_text(manifests["ConfigMap", "shop-basketweave"]["data"]["basketweave.toml"])
    monkeypatch.setenv("BASKETWEAVE_CONFIG", str(config))
    from_file = load_settings()
    monkeypatch.delenv("BASKETWEAVE_CONFIG")
    for name, value in manifests["ConfigMap", "shop-basketweave-environment"]["data"].items():
        monkeypatch.setenv(name, value)
    assert from_file == load_settings()
    assert from_file.train.seed == 20_261_124
    assert from_file.train.learning_rate == 1e-7
    assert from_file.graph.relations == ("co_purchase", "same_brand")
    assert from_file.tracking.experiment == 'a "quoted" name: yes'
    assert from_file.artifact_root == "s3://shop-recommendations/basketweave/shop"
    assert from_file.deploy.start_service is False


def test_the_secrets_entry_is_a_list_of_keys(render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    [container] = render()["Deployment", "shop-basketweave"]["spec"]["template"]["spec"]["containers"]
    keys = {"name": "basketweave-api-keys", "key": "api-keys"}
    [variable] = [one["name"] for one in container["env"] if one.get("valueFrom", {}).get("secretKeyRef") == keys]
    monkeypatch.setenv(variable, '["one", "two"]')
    assert [key.get_secret_value() for key in load_settings().serve.api_keys] == ["one", "two"]


def test_variables_that_kubernetes_adds_for_a_service_are_no_misspelt_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR"):
        monkeypatch.setenv(f"BASKETWEAVE_{name}", "10.0.0.1")
        monkeypatch.setenv(f"BASKETWEAVE_CANARY_{name}", "10.0.0.1")
    load_settings()
    monkeypatch.setenv("BASKETWEAVE_DEPLOI__PORT", "3000")
    with pytest.raises(SettingsError, match="BASKETWEAVE_DEPLOY__PORT"):
        load_settings()
