"""The operations pages: links lead somewhere, commands name what there is, Secrets are those that charts ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from documented import DOCS, shell_blocks
from typer.main import get_command

from components.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*DOCS.glob("*.md"), ROOT / "docs" / "kubernetes.md"])
CHART = ROOT / "charts" / "basketweave"
WANTED = {"install.md", "upgrade.md", "backup.md", "sizing.md", "security.md", "runbooks.md"}


def test_there_is_a_page_for_each_of_an_operators_tasks() -> None:
    assert {page.name for page in DOCS.glob("*.md")} >= WANTED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_what_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", text):
        if target and "://" not in target:
            assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([^)#\s]+\.md)#([^)]+)\)", text):
        headings = re.findall(r"^#+ (.+)$", (page.parent / target).read_text(), flags=re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_ours_exist(page: Path) -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]  # a group
    commands = "\n".join(shell_blocks(page.name)) if page.parent == DOCS else ""
    for name in re.findall(r"^basketweave ([a-z-]+)", commands, flags=re.MULTILINE):
        assert name in known, name


def test_the_secrets_that_install_makes_are_those_of_the_small_values() -> None:
    text = (DOCS / "install.md").read_text()
    made = set(re.findall(r"create secret generic (\S+)", text))
    values = yaml.safe_load((CHART / "ci" / "small-values.yaml").read_text())
    whole = yaml.safe_load((CHART.parent / "basketweave-with-airflow" / "values.yaml").read_text())
    asked = {
        values["apiKeys"]["existingSecret"],
        values["storage"]["credentialsSecret"],
        values["redis"]["existingSecret"],
        values["postgresql"]["existingSecret"],
        values["settings"]["orchestration"]["secret"],
        whole["airflow"]["data"]["metadataSecretName"],
    }
    assert made == asked
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for section in ("apiKeys", "redis", "postgresql"):
        assert f"--from-literal={defaults[section]['key']}=" in text


def test_variables_of_the_pipelines_secret_are_settings() -> None:
    from components.core.settings import Settings

    for section, field in re.findall(r"BASKETWEAVE_([A-Z_]+?)__([A-Z_]+)=", (DOCS / "install.md").read_text()):
        known = Settings.model_fields[section.lower()].annotation
        assert known is not None
        assert field.lower() in known.model_fields, field


def test_sizes_are_those_that_were_measured() -> None:
    text = (DOCS / "sizing.md").read_text()
    results = ROOT / "benchmarks" / "results"
    growth = json.loads((results / "training-growth.json").read_text())["sizes"]
    assert len(growth) == 4
    for size in growth:
        shown = [
            f"{size['interactions'] / 1e6:.1f} million",
            f"{size['users']:,}",
            f"{size['items']:,}",
            f"{size['cpu_seconds_an_epoch']:,.0f}",
            f"{size['peak_memory_mb']:,.0f}",
        ]
        assert f"| {' | '.join(shown)} |" in text
    measured = json.loads((results / "sizing.json").read_text())
    for step, figures in measured["steps"].items():
        shown = [f"{figures[key]:,.0f}" for key in ("cpu_seconds", "peak_memory_mb", "artifact_mb")]
        assert f"| {step} | {' | '.join(shown)} |" in text, step
    assert f"{measured['service']['memory_mb']:,.0f} MB with one worker" in text
    fresh, again = json.loads((results / "pipeline-small.json").read_text())["runs"]
    assert f"{fresh['orchestration']:.1f} beside {fresh['steps']:.1f} of the steps" in text
    assert f"{again['orchestration']:.1f} where every step is reused" in text
