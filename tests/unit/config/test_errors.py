"""Each mistake is told with its line, its path, its value and what is expected: all at once."""

import re

import pytest

from headrace.config.document import ConfigError
from headrace.config.json_schema import json_schema
from headrace.config.load import load

GOOD_POOL = """\
pools:
  - name: main
    model: llama
    engine: vllm
    replicas: [http://10.0.0.1:8000]
"""


@pytest.fixture
def problems(tmp_path):
    """What is wrong with a text, as (path, message) pairs and lines."""

    def check(text, **options):
        file = tmp_path / "headrace.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(file, {}, **options)
        return [str(problem) for problem in caught.value.problems]

    return check


def test_unknown_key_names_path_value_and_nearest(problems):
    found = problems(GOOD_POOL.replace("engine:", "engin:"))
    assert found == [
        "line 4: pools[0].engin: unknown key (its value is 'vllm'); did you mean `engine`?"
    ]


def test_a_key_with_its_unit_is_led_to_the_one_without(problems):
    (found,) = problems(GOOD_POOL + "timeouts: {connect_s: 3}\n")
    assert "timeouts.connect_s" in found
    assert "did you mean `connect`?" in found


def test_a_key_like_no_other_gets_the_list(problems):
    (found,) = problems(GOOD_POOL + "listen: {zzz: 3}\n")
    assert "expected one of: " in found
    assert "port" in found.rpartition("expected one of: ")[2]


def test_everything_at_once_in_the_order_of_the_file(problems):
    text = """\
pools:
  - name: main
    model: llama
    engine: vlm
    replicas: [http://10.0.0.1:8000]
    media_tokens: many
limits:
  max_body: 64Mb
  max_in_flight: 0
timeouts: {connect: soon}
telemetry: {engine_gauges: yes}
listen: {port: 70000}
"""
    found = problems(text)
    assert [line.split(": ")[1] for line in found] == [
        "pools[0].engine",
        "pools[0].media_tokens",
        "limits.max_body",
        "limits.max_in_flight",
        "timeouts.connect",
        "telemetry.engine_gauges",
        "listen.port",
    ]
    assert found[0].endswith("is 'vlm'; did you mean `vllm`?")
    assert found[1].endswith("is 'many'; expected a whole number")
    assert "expected a size such as 64KiB" in found[2]
    assert found[3].endswith("is 0; must be at least 1")
    assert "expected a duration such as 500ms" in found[4]
    assert found[5].endswith("is 'yes'; expected true or false")
    assert found[6].endswith("is 70000; must be at most 65535")


def test_a_wrong_value_does_not_hide_what_is_wrong_between_the_parts(problems):
    found = problems(GOOD_POOL + "aliases: {chat: lama}\ngrace: never\n")
    assert any("aliases.chat" in line for line in found)
    assert any("grace" in line for line in found)


def test_missing_keys_are_named(problems):
    (found,) = problems("pools:\n  - model: llama\n    replicas: [http://a:1]\n")
    assert found.startswith("line 2: pools[0].name: is missing")


def test_no_pools_at_all(problems):
    (found,) = problems("")
    assert found.startswith("pools: is missing") or "pools: is missing" in found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("pools: {name: main}\n", "pools"),
        ("pools: [main]\n", "pools[0]"),
        (GOOD_POOL + "listen: 8080\n", "listen"),
        (GOOD_POOL + "aliases: [chat]\n", "aliases"),
        (GOOD_POOL + "listen: {port: [1]}\n", "listen.port"),
        (GOOD_POOL + "listen: {host: }\n", "listen.host"),
        (GOOD_POOL + 'listen: {port: "80"}\n', "listen.port"),
        (GOOD_POOL + "drain: .inf\n", "drain"),
        (GOOD_POOL + "drain: -1\n", "drain"),
        (GOOD_POOL + "routing: {retry: {budget_ratio: 1.5}}\n", "routing.retry.budget_ratio"),
        (GOOD_POOL + "health: {interval: 0}\n", "health.interval"),
        (GOOD_POOL + "timeouts: {connect: 0s}\n", "timeouts.connect"),
    ],
)
def test_values_of_the_wrong_kind(problems, text, path):
    (found,) = problems(text)
    assert f": {path}: is " in found


def test_a_key_given_twice(problems):
    (found,) = problems(GOOD_POOL + "drain: 1s\ngrace: 1s\ndrain: 2s\n")
    assert found == "line 8: drain: is given twice, first on line 6; keep one"


def test_text_that_is_not_yaml_has_a_line(problems):
    (found,) = problems(GOOD_POOL + "listen: {port: 1\n")
    assert found.startswith("line 7: not valid YAML")


def test_aliases_that_multiply_are_refused(problems):
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    for before, name in zip("abcdef", "bcdefg", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    (found,) = problems(bomb)
    assert "more than 100000 values" in found


def test_endless_nesting_is_refused(problems):
    assert "levels deep" in problems("a: " + "[" * 40 + "]" * 40)[0]
    assert problems("a: " + "[" * 5000 + "]" * 5000)
    assert "levels deep" in problems("a: &a [*a]")[0]


def test_a_file_of_another_kind(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "none.yaml", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary", {})
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="at most"):
        load(tmp_path / "large", {})


def test_names_that_yaml_would_take_for_something_else(tmp_path):
    file = tmp_path / "headrace.yaml"
    file.write_text(
        "pools:\n  - {name: no, model: 1.10, replicas: [http://a:1]}\n"
        "  - {name: 0x10, model: 2024-01-01, replicas: [http://b:1]}\n"
    )
    pools = load(file, {}).config.pools
    assert [(pool.name, pool.model) for pool in pools] == [("no", "1.10"), ("0x10", "2024-01-01")]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("secnds", "is 'secnds'; did you mean `seconds`?"),
        ("secnds:x=1", "is 'secnds:x=1'; did you mean `seconds`?"),
        (
            "dynamo_kv:overlap=4",
            (
                "is 'dynamo_kv:overlap=4': policy 'dynamo_kv': unknown parameter 'overlap', "
                "did you mean 'overlap_weight'? known: "
            ),
        ),
        ("seconds:x=1", "policy 'seconds' takes no parameters"),
    ],
)
def test_a_wrong_policy_names_what_there_is(problems, policy, said):
    (found,) = problems(GOOD_POOL + f"    policy: {policy}\n")
    assert found.startswith("line 6: pools[0].policy: ")
    assert said in found


def test_a_policy_may_have_parameters(tmp_path):
    file = tmp_path / "headrace.yaml"
    file.write_text(GOOD_POOL + "    policy: dynamo_kv:overlap_weight=4,temperature=0\n")
    policy = "dynamo_kv:overlap_weight=4,temperature=0"
    assert load(file, {}).config.pools[0].policy == policy
    schema = json_schema()["$defs"]["PoolSection"]["properties"]["policy"]
    names, written = schema["anyOf"]
    assert "dynamo_kv" in names["enum"]
    assert re.match(written["pattern"], policy)
    assert not re.match(written["pattern"], "dynamo:x=1")
