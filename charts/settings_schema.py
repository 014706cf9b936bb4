"""The `settings` part of the chart's values.schema.json, from the code's Settings: `python -m charts.settings_schema`.

Helm then refuses a misspelt setting before anything is installed. A test fails when the part is stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.core.settings import Settings

SCHEMA = Path(__file__).parent / "basketweave" / "values.schema.json"
# What the chart decides itself, or takes from a Secret: None for a whole section, else its fields.
CHART_OWN: dict[str, frozenset[str] | None] = {
    "home": None,
    "storage_root": None,
    "deploy": frozenset({"host", "port", "start_service"}),
    "serve": frozenset({"api_keys", "bundle"}),
}
KEPT_KEYWORDS = frozenset(
    {
        *("type", "properties", "additionalProperties", "items", "anyOf", "enum", "const", "description"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minItems", "maxItems", "minLength", "maxLength", "pattern"),
    }
)


def settings_schema() -> dict[str, Any]:
    """JSON schema (draft 7) of what may stand under `settings` in the chart's values."""
    whole = Settings.model_json_schema()
    schema = _inline(whole, whole.get("$defs", {}))
    properties = schema["properties"]
    for section, fields in CHART_OWN.items():
        if fields is None:
            del properties[section]
        else:
            for name in fields:
                del properties[section]["properties"][name]
    # Without it the chart could not say where a project's features are mounted.
    return {**schema, "description": "Settings of basketweave.toml.", "required": ["project"]}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    """The node with references replaced by what they name, and defaults and titles left out."""
    if "$ref" in node:
        named = definitions[node["$ref"].rpartition("/")[2]]
        node = {**named, **{key: value for key, value in node.items() if key != "$ref"}}
    kept = {key: value for key, value in node.items() if key in KEPT_KEYWORDS}
    for key, value in kept.items():
        if key == "properties":
            kept[key] = {name: _inline(field, definitions) for name, field in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            kept[key] = _inline(value, definitions)
        elif key == "anyOf":
            kept[key] = [_inline(choice, definitions) for choice in value]
    return kept


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """The chart's schema with a fresh `settings` part."""
    return {**schema, "properties": {**schema["properties"], "settings": settings_schema()}}


if __name__ == "__main__":
    current = json.loads(SCHEMA.read_text(encoding="utf-8"))
    SCHEMA.write_text(json.dumps(with_settings(current), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
