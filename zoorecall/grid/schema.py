"""What a grid file may hold: its sections, and its JSON Schema, for editors to check and complete.

The schema says no more than the configs and the registries do, from which it is made.
"""

import re
from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from ..config import PRESETS
from .settings import all_paths, choice_name, configs_at, parse_path, types_at

SECTIONS: dict[str, tuple[type, str]] = {
    "description": (str, "One sentence: what the grid is for."),
    "preset": (str, "The settings of a paper, laid under the base."),
    "base": (dict, "Settings of every run."),
    "axes": (dict, "What varies: the runs are the product of these, the first the slowest."),
    "exclude": (list, "Drops the runs of the axes that match every setting of an entry."),
    "include": (list, "Adds the runs of each entry, which is axes of its own on the base."),
}


def grid_schema() -> dict[str, Any]:
    """The JSON Schema of a grid file."""
    definitions, values = _values()
    keys = {path: {"$ref": f"#/$defs/settings/properties/{path}"} for path in values}
    # below a mapping of the user's own there may be any path
    free = [path for path in all_paths() if any(get_origin(t) is dict for t in types_at(path))]
    pattern = "|".join(rf"^{re.escape('.'.join(path))}\." for path in free)
    settings = {"$ref": "#/$defs/settings"}
    definitions |= {
        "settings": {
            "type": "object",
            "properties": values,
            "patternProperties": {pattern: {}},
            "additionalProperties": False,
        },
        "axes": {
            "type": "object",
            "propertyNames": {
                "anyOf": [{"enum": list(values)}, {"pattern": rf"^[^.]*$|{pattern}"}]
            },
            "properties": {path: _axis(path, ref) for path, ref in keys.items()},
            "patternProperties": {pattern: {}},
            "additionalProperties": _many(settings),
        },
        "space": {
            "type": "object",
            "properties": {
                "linspace": _ends_and_count({"type": "number"}),
                "logspace": _ends_and_count({"type": "number", "exclusiveMinimum": 0}),
                "log": _two_ends({"type": "number", "exclusiveMinimum": 0}),
                "float": _two_ends({"type": "number"}),
                "int": _two_ends({"type": "integer"}),
                "choices": {
                    "type": "array",
                    "description": "searched by zoorecall tune",
                    "minItems": 2,
                    "uniqueItems": True,
                },
            },
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    }
    axes = {"$ref": "#/$defs/axes"}
    sections: dict[str, dict[str, Any]] = {
        "description": {"type": "string"},
        "preset": {"enum": list(PRESETS)},
        "base": settings,
        "axes": axes,
        "exclude": {"type": "array", "items": axes},
        "include": {"type": "array", "items": axes},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A grid of zoorecall",
        "type": "object",
        "properties": {
            key: {"description": text, **sections[key]} for key, (_, text) in SECTIONS.items()
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def _axis(path: str, value: dict[str, Any]) -> dict[str, Any]:
    """One value, a list of values or, where a value is no mapping, a space of numbers."""
    space = [] if configs_at(parse_path(path)) else [{"$ref": "#/$defs/space"}]
    return {"anyOf": [value, _many(value), *space]}


def _ends_and_count(end: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "description": "first, last, count",
        "prefixItems": [end, end, {"type": "integer", "minimum": 1}],
        "minItems": 3,
        "maxItems": 3,
    }


def _two_ends(end: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "array",
        "description": "low, high: searched by zoorecall tune",
        "prefixItems": [end, end],
        "minItems": 2,
        "maxItems": 2,
    }


def _many(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": value, "minItems": 1}


def _values() -> tuple[dict[str, Any], dict[str, Any]]:
    """Definitions of the configs, and the schema of every path."""
    configs = list(dict.fromkeys(c for path in ((), *all_paths()) for c in configs_at(path)))
    inputs: list[tuple[type[BaseModel], JsonSchemaMode]] = [(c, "validation") for c in configs]
    refs, schema = models_json_schema(inputs, schema_generator=_Untitled)
    definitions = schema["$defs"]
    ref = {config: refs[config, "validation"] for config in configs}
    fields = {c: definitions[ref[c]["$ref"].rpartition("/")[2]]["properties"] for c in configs}

    values: dict[str, Any] = {}
    for path in all_paths():
        name = path[-1]
        owners = [fields[config] for config in configs_at(path[:-1]) if name in fields[config]]
        choices = configs_at(path)
        if len(choices) > 1:
            names = [choice for config in choices if (choice := choice_name(config))]
            own = [fields[config]["name"] for config in choices if not choice_name(config)]
            definitions[name] = {"anyOf": [{"enum": names}, *own, *(ref[c] for c in choices)]}
            owners[0][name] = {"$ref": f"#/$defs/{name}"}
        distinct = [owner[name] for owner in owners]
        distinct = [form for i, form in enumerate(distinct) if form not in distinct[:i]]
        values[".".join(path)] = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    return definitions, values


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False
