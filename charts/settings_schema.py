"""The `settings` part of the chart's values.schema.json, from the code's Settings: `python -m charts.settings_schema`.

Helm then refuses a misspelt setting before anything is installed. A test fails when the part is stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.core.settings import Settings

SCHEMA = Path(__file__).parent / "basketweave" / "values.schema.json"
# What the chart decides itself: None for a whole section, else its fields. Secrets are left out of their own accord.
CHART_OWN: dict[str, frozenset[str] | None] = {
    "home": None,
    "storage_root": None,
    "deploy": frozenset({"host", "port", "start_service"}),
    "serve": frozenset({"bundle"}),
}
KEPT_KEYWORDS = frozenset(
    {
        *("writeOnly", "type", "properties", "additionalProperties", "items", "anyOf", "enum", "const", "description"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
        *("minItems", "maxItems", "minLength", "maxLength", "pattern", "required", "propertyNames"),
    }
)


def settings_schema() -> dict[str, Any]:
    """JSON schema (draft 7) of what may stand under `settings` in the chart's values."""
    whole = Settings.model_json_schema()
    schema = _inline(whole, whole.get("$defs", {}))
    properties = schema["properties"]
    for section in properties.values():
        fields = section.get("properties", {})
        for name in [name for name, field in fields.items() if _holds_secret(field)]:
            del fields[name]
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
    if patterns := node.get("patternProperties"):
        # What keys match no pattern would be let through.
        [(pattern, values)] = patterns.items()
        node = {**node, "propertyNames": {"pattern": pattern}, "additionalProperties": values}
    kept = {key: value for key, value in node.items() if key in KEPT_KEYWORDS}
    for key, value in kept.items():
        if key == "properties":
            kept[key] = {name: _inline(field, definitions) for name, field in value.items()}
        elif key == "propertyNames" or key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            kept[key] = _inline(value, definitions)
        elif key == "anyOf":
            kept[key] = [_inline(choice, definitions) for choice in value]
    return kept


def _holds_secret(node: Any) -> bool:
    """Whether the value, or a part of it, is a secret: it comes from a Secret, never from values."""
    if isinstance(node, dict):
        return node.get("writeOnly") is True or any(map(_holds_secret, node.values()))
    return isinstance(node, list) and any(map(_holds_secret, node))


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """The chart's schema with a fresh `settings` part."""
    return {**schema, "properties": {**schema["properties"], "settings": settings_schema()}}


if __name__ == "__main__":
    current = json.loads(SCHEMA.read_text(encoding="utf-8"))
    SCHEMA.write_text(json.dumps(with_settings(current), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
