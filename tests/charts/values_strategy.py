"""Values drawn from a JSON schema, as far as ours uses it: each draw is allowed, keys left out at will."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

# Patterns are searched for in the text, so what is drawn must be a match by itself.
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=20)
MAX_ITEMS = 2


def values(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return values(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of([values(choice, definitions) for choice in schema["anyOf"]])
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if isinstance(kind, list):
        return st.one_of([values({**schema, "type": one}, definitions) for one in kind])
    if kind == "object":
        return _object(schema, definitions)
    if kind == "array":
        least = schema.get("minItems", 0)
        most = max(least, min(schema.get("maxItems", MAX_ITEMS), MAX_ITEMS))
        return st.lists(values(schema.get("items", {"type": "string"}), definitions), min_size=least, max_size=most)
    if kind == "string":
        return _text(schema)
    if kind == "integer":
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        most = schema.get("maximum", schema.get("exclusiveMaximum", 10**7) - 1)
        return st.integers(least, max(least, most))
    if kind == "number":
        return _number(schema)
    if kind == "boolean":
        return st.booleans()
    if kind == "null":
        return st.none()
    raise AssertionError(f"no strategy for {schema}")


def _object(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    others = schema.get("additionalProperties")
    if "properties" not in schema and isinstance(others, dict):
        names = values({"type": "string", **schema.get("propertyNames", {})}, definitions)
        return st.dictionaries(names, values(others, definitions), max_size=MAX_ITEMS)
    if "properties" not in schema:
        return st.just({})
    required = set(schema.get("required", ()))
    drawn = {name: values(field, definitions) for name, field in schema["properties"].items()}
    fixed = st.fixed_dictionaries(
        {name: drawn[name] for name in drawn if name in required},
        optional={name: drawn[name] for name in drawn if name not in required},
    )
    return fixed.filter(lambda value: len(value) >= schema.get("minProperties", 0))


def _text(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    text = st.from_regex(schema["pattern"], alphabet=st.characters(max_codepoint=0x7E)) if "pattern" in schema else TEXT
    wanted = text.filter(lambda drawn: least <= len(drawn) <= most and not drawn.endswith("\n"))
    if "not" in schema:
        unwanted = re.compile(schema["not"]["pattern"])
        return wanted.filter(lambda drawn: not unwanted.search(drawn))
    return wanted


def _number(schema: dict[str, Any]) -> st.SearchStrategy[float]:
    return st.floats(
        min_value=schema.get("minimum", schema.get("exclusiveMinimum", -1e6)),
        max_value=schema.get("maximum", schema.get("exclusiveMaximum", 1e9)),
        exclude_min="exclusiveMinimum" in schema,
        exclude_max="exclusiveMaximum" in schema,
        allow_nan=False,
    )
