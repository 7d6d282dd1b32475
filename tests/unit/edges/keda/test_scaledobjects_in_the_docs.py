"""The ScaledObject of docs/how-to/keda.md is one to KEDA's own schemas, and so are its triggers.

The schemas are in the folder `shared`, which is not part of the project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[4]
SCHEMAS = ROOT.parent / "shared" / "crds" / "keda"
PAGE = ROOT / "docs" / "how-to" / "keda.md"
OURS = {"pool", "tolerance"}
"""What a trigger of type external may say beside KEDA's own."""
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def examples() -> list[dict[str, Any]]:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [document for block in blocks if isinstance(document := yaml.safe_load(block), dict)]


def schema_file(name: str) -> str:
    if not (SCHEMAS / name).exists():
        pytest.skip(f"{SCHEMAS / name} is not there")
    return (SCHEMAS / name).read_text()


def faults(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """What Kubernetes would refuse or drop without a word."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{path}: neither a number nor text"
    elif type(value) is not TYPES[schema["type"]]:
        yield f"{path}: is {value!r}, not of type {schema['type']}"
    elif value not in schema.get("enum", [value]):
        yield f"{path}: is {value!r}, not one of {schema['enum']}"
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from faults(each, schema["items"], f"{path}[{place}]")
    elif isinstance(value, dict):
        yield from object_faults(value, schema, path)


def object_faults(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    required = schema.get("required", ())
    yield from (f"{path}.{name}: missing" for name in required if name not in value)
    for name, each in value.items():
        known = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        if known is not None:
            yield from faults(each, known, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown"


def spec_schema() -> dict[str, Any]:
    crd = yaml.safe_load(schema_file("keda.sh_scaledobjects.yaml"))
    [version] = crd["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def test_the_scaledobject_is_one_to_its_crd():
    found = [each["spec"] for each in examples() if each.get("kind") == "ScaledObject"]
    assert found
    schema = spec_schema()
    for spec in found:
        assert list(faults(spec, schema, "spec")) == []
        assert list(faults({**spec, "triggers": "x", "maxReplicas": 3}, schema, "spec"))


def test_each_trigger_says_what_keda_reads():
    document = json.loads(schema_file("scalers-schema.json"))
    scalers = {each["type"]: each["parameters"] for each in document["scalers"]}
    item = spec_schema()["properties"]["triggers"]["items"]
    triggers = [
        trigger
        for each in examples()
        for trigger in (*each.get("triggers", ()), *each.get("spec", {}).get("triggers", ()))
    ]
    assert {each["type"] for each in triggers} == {"external-push", "metrics-api", "prometheus"}
    for trigger in triggers:
        assert list(faults(trigger, item, trigger["type"])) == []
        parameters = {each["name"]: each for each in scalers[trigger["type"]]}
        given = set(trigger["metadata"])
        assert given - set(parameters) <= (OURS if "external" in trigger["type"] else set())
        needed = {
            name
            for name, each in parameters.items()
            if not each.get("optional")
            and "default" not in each
            and each.get("metadataVariableReadable")
        }
        assert needed <= given
