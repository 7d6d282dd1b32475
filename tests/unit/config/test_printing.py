"""What `check` prints is a configuration again, and the reference and the schema are fresh."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
import yaml

from headrace.config.json_schema import json_schema, schema_text
from headrace.config.load import load
from headrace.config.render import as_json, as_yaml
from headrace.config.schema import Config
from headrace.config.shapes import Named, Section, Several, section_of
from tests.certificates import write_certificate
from tools import cli_reference, config_reference

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))
ENVIRON = {"LLAMA_API_KEY": "k", "HEADRACE_CONTROL_TOKEN": "t"}


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def example(request, tmp_path, ca):
    """An example as a user has it who followed the comments in it."""
    for file in EXAMPLES[0].parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "api-keys").write_text(f"alice sha256:{'0' * 64}\n")
    certificates = tmp_path / "tls"
    certificates.mkdir()
    write_certificate(ca, certificates, "example.test")
    for name in ("gateway", "client"):
        (certificates / f"{name}.pem").write_bytes((certificates / "cert.pem").read_bytes())
        (certificates / f"{name}-key.pem").write_bytes((certificates / "key.pem").read_bytes())
    (certificates / "engines-ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    return tmp_path / request.param.name


@pytest.mark.parametrize("printed", [as_yaml, as_json], ids=["yaml", "json"])
def test_what_is_printed_reads_back_as_the_same(example, printed):
    loaded = load(example, ENVIRON)
    again = example.with_name("again.yaml")
    again.write_text(printed(loaded))
    assert load(again, ENVIRON).config == loaded.config


def test_examples_are_numbered_without_gaps():
    numbers = [int(path.name.partition("-")[0]) for path in EXAMPLES]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_reference_page_is_fresh():
    assert config_reference.PAGE.read_text("utf-8") == config_reference.page(), (
        "run: python -m tools.config_reference"
    )


def test_the_reference_of_the_command_line_is_fresh():
    # Where lines are broken is a matter of Python's version.
    assert cli_reference.PAGE.read_text("utf-8").split() == cli_reference.page().split(), (
        "run: python -m tools.cli_reference"
    )


def test_the_shipped_schema_is_fresh():
    assert config_reference.SCHEMA.read_text("utf-8") == schema_text(), (
        "run: python -m tools.config_reference"
    )


def test_a_share_that_must_stay_below_one_says_so_in_the_schema_and_the_reference():
    attainment = json.loads(schema_text())["$defs"]["ScalingTarget"]["properties"]["attainment"]
    assert (attainment["exclusiveMinimum"], attainment["exclusiveMaximum"]) == (0, 1)
    assert "| `attainment` | number above 0 and below 1 |" in config_reference.page()


def test_a_bound_that_nobody_would_read_is_refused():
    @dataclass(frozen=True)
    class Settings:
        """Settings."""

        share: float = field(default=0.5, metadata={"beneath": 1})

    with pytest.raises(TypeError, match="share: nobody reads beneath"):
        section_of(Settings)


def sections(shape, seen):
    match shape:
        case Section() if shape not in seen:
            seen.append(shape)
            for entry in shape.entries.values():
                sections(entry.shape, seen)
        case Several(item) | Named(item):
            sections(item, seen)
    return seen


def test_every_key_is_described():
    bare = [
        f"{section.cls.__name__}.{entry.field}"
        for section in sections(section_of(Config), [])
        for entry in section.entries.values()
        if not entry.doc
    ]
    assert bare == []


class TestSchema:
    """A small reading of the schema, enough to see that it says what the loader does."""

    def accepts(self, schema, value, root):
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return any(self.accepts(each, value, root) for each in schema["anyOf"])
        kinds = {
            "string": str, "integer": int, "number": (int, float), "boolean": bool,
            "array": list, "object": dict, "null": type(None),
        }  # fmt: skip
        if not isinstance(value, kinds[schema["type"]]):
            return False
        if isinstance(value, str):
            fits = "pattern" not in schema or re.fullmatch(schema["pattern"], value)
            return bool(fits) and value in schema.get("enum", [value])
        if isinstance(value, list):
            return all(self.accepts(schema["items"], each, root) for each in value)
        if isinstance(value, dict):
            known = schema.get("properties", {})
            extra = schema["additionalProperties"]
            return all(name in value for name in schema.get("required", ())) and all(
                self.accepts(known[name], each, root)
                if name in known
                else extra is not False and self.accepts(extra, each, root)
                for name, each in value.items()
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return schema.get("minimum", value) <= value <= schema.get(
                "maximum", value
            ) and value > schema.get("exclusiveMinimum", value - 1)
        return True

    def test_examples_fit(self, example):
        schema = json_schema()
        assert self.accepts(schema, yaml.safe_load(example.read_text()), schema)

    def test_what_is_printed_fits(self, example):
        schema = json_schema()
        loaded = load(example, ENVIRON)
        assert self.accepts(schema, json.loads(as_json(loaded)), schema)
        assert self.accepts(schema, yaml.safe_load(as_yaml(loaded)), schema)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"listen": {"prot": 1}},
            {"listen": {"port": 70000}},
            {"limits": {"max_body": "64Mb"}},
            {"drain": "soon"},
            {"health": {"interval": 0}},
            {"telemetry": {"engine_gauges": "yes"}},
            {"tiers": {"gold": {"ttft": 0}}},
            {"tiers": {"gold": {"priority": 101}}},
            {"tiers": {"gold": {"name": "silver"}}},
            {"admission": {"max_held": 0}},
            {"routing": {"tiers": []}},
        ],
    )
    def test_mistakes_do_not(self, wrong):
        schema = json_schema()
        pools = {"pools": [{"name": "a", "model": "b", "replicas": ["http://h:1"]}]}
        assert self.accepts(schema, pools, schema)
        assert not self.accepts(schema, pools | wrong, schema)
        assert not self.accepts(schema, wrong, schema)
