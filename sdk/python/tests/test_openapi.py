"""Every path and field that the client uses is in the document of the server."""

import json
from typing import get_args, get_type_hints, is_typeddict

from lipstream import routes, types
from support import ROOT

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]
#: The client's type, the document's schema, and whether the client sends it.
PAIRS = [
    (types.SessionSpec, "Spec", True),
    (types.SessionChange, "Change", True),
    (types.SessionStatus, "Status", False),
    (types.SecondVoice, "SecondVoice", False),
    (types.Spoken, "Spoken", False),
    (types.RenderOptions, "Options", True),
    (types.RenderStatus, "Render", False),
    (types.Usage, "Usage", False),
]


def schema_types(schema):
    if "$ref" in schema:
        return schema_types(SCHEMAS[schema["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in schema:
        return set().union(*map(schema_types, schema["oneOf"]))
    kind = schema["type"]
    return {kind} if isinstance(kind, str) else set(kind)


def python_types(hint):
    if hint in (str, int, float, bool, type(None)):
        return {{str: "string", int: "integer", float: "number", bool: "boolean"}.get(hint, "null")}
    if is_typeddict(hint):
        return {"object"}
    origin = getattr(hint, "__origin__", None)
    if origin in (list, dict):
        return {"array" if origin is list else "object"}
    if all(isinstance(value, str) for value in get_args(hint)):
        return {"string"}
    return set().union(*map(python_types, get_args(hint)))


def test_paths_and_methods_exist():
    for path, methods in routes.METHODS.items():
        for method in methods:
            assert method in DOCUMENT["paths"][path], f"{method} {path}"
    written = {value for name, value in vars(routes).items() if name.isupper() and isinstance(value, str)}
    assert written == set(routes.METHODS)


def test_fields_exist_and_have_their_types():
    for own, name, _ in PAIRS:
        properties = SCHEMAS[name]["properties"]
        for field, hint in get_type_hints(own).items():
            assert field in properties, f"{name} has no {field}"
            # What may be null in the document may be left out by the client.
            assert python_types(hint) - {"null"} == schema_types(properties[field]) - {"null"}, f"{name}.{field}"


def test_all_that_a_client_may_send_can_be_sent():
    for own, name, sent in PAIRS:
        if sent:
            assert set(SCHEMAS[name]["properties"]) == set(get_type_hints(own)), name


def test_choices_are_those_of_the_document():
    hints = get_type_hints(types.SessionStatus)
    assert set(get_args(hints["phase"])) == set(SCHEMAS["Phase"]["enum"])
    assert set(get_args(get_type_hints(types.RenderStatus)["state"])) == set(SCHEMAS["RenderState"]["enum"])
    assert set(get_args(get_type_hints(types.RenderOptions)["container"])) == set(SCHEMAS["Container"]["enum"])


def test_events_are_those_of_the_document():
    known, fields = set(), set()
    for variant in SCHEMAS["Event"]["oneOf"]:
        known.add(variant["properties"]["type"]["enum"][0])
        fields |= set(variant["properties"])
    hints = get_type_hints(types.Event)
    assert set(get_args(hints["type"])) == known | {"error"}
    assert set(hints) == fields | {"message"}
    assert set(get_args(hints["cut"])) == set(SCHEMAS["Cause"]["enum"])
