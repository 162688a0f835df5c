#!/usr/bin/env python3
"""Writes the types of the API for TypeScript from the server's OpenAPI document.

    generate.py docs/openapi.json src/api.ts
"""
import json
import sys
from pathlib import Path

PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def of(schema):
    """The type of a schema."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    for key, glue in (("oneOf", " | "), ("anyOf", " | "), ("allOf", " & ")):
        if key in schema:
            return glue.join(dict.fromkeys(map(of, schema[key])))
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " | ".join(kind_of(kind, schema) for kind in kinds) or "unknown"


def kind_of(kind, schema):
    if kind == "array" and "prefixItems" in schema:
        return "[" + ", ".join(map(of, schema["prefixItems"])) + "]"
    if kind == "array":
        inner = of(schema.get("items", {}))
        return f"({inner})[]" if "|" in inner or "&" in inner else f"{inner}[]"
    if kind == "object":
        return fields(schema)
    return PRIMITIVES[kind]


def fields(schema):
    properties = schema.get("properties")
    if not properties:
        values = schema.get("additionalProperties")
        return f"Record<string, {of(values) if isinstance(values, dict) else 'unknown'}>"
    required = schema.get("required", [])
    items = [f"{name}{'' if name in required else '?'}: {of(inner)}" for name, inner in properties.items()]
    return "{ " + "; ".join(items) + " }"


def comment(schema, indent=""):
    """The first sentence of a description."""
    text = " ".join(schema.get("description", "").split())
    text = text.split(". ")[0].rstrip(".").replace("*/", "* /")
    return f"{indent}/** {text}. */\n" if text else ""


def declaration(name, schema):
    if schema.get("type") == "object" and "properties" in schema:
        required = schema.get("required", [])
        lines = "".join(
            f"{comment(inner, '  ')}  {field}{'' if field in required else '?'}: {of(inner)};\n"
            for field, inner in schema["properties"].items()
        )
        return f"{comment(schema)}export interface {name} {{\n{lines}}}\n"
    return f"{comment(schema)}export type {name} = {of(schema)};\n"


def main():
    document = json.loads(Path(sys.argv[1]).read_text())
    calls = [f"  {json.dumps(method.upper() + ' ' + path)}" for path, methods in document["paths"].items()
             for method in methods if method in ("get", "post", "put", "patch", "delete")]
    text = "// Written by generate.py from docs/openapi.json.\n\n"
    text += "/** Every method and path of the API. */\nexport type Call =\n" + "\n".join(f"  |{call[1:]}" for call in calls) + ";\n\n"
    text += "\n".join(declaration(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    Path(sys.argv[2]).write_text(text)


main()
