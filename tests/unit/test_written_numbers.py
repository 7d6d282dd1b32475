"""Numbers that people write, in flags and files: in plain digits.

Python's own reading takes `2_0` for 20, and the digits of other scripts. In a column of figures or
in a flag that is a slip, and whoever made it would not learn of it.
"""

from __future__ import annotations

import pytest

from headrace.core.quantities import parse_duration, parse_number, parse_size, parse_whole
from headrace.edges.keda.ports import WrongReference, read_reference
from tests.commands import runner

RATES = "start_s,requests_per_s,mean_input_tokens,mean_output_tokens\n"
CONFIG = "pools:\n  - name: a\n    model: m\n    engine: vllm\n    replicas: [http://h:1]\n"


@pytest.mark.parametrize("read", [parse_number, parse_whole, parse_duration, parse_size])
@pytest.mark.parametrize("text", ["2_0", "\u0662\u0660", "1_0s", ""])
def test_what_is_not_plain_is_refused(read, text):
    with pytest.raises(ValueError, match=r".+"):
        read(text)


def test_what_is_plain_is_read():
    assert parse_number("-2.5e-1") == -0.25
    assert parse_whole(" 20") == 20
    assert parse_duration("20") == 20.0
    assert parse_size("20") == 20


@pytest.mark.parametrize(
    "command",
    [
        "bench http://h:1 --rate 2_0",
        "bench http://h:1 --rates 2_0@60s",
        "bench http://h:1 --rates 2..1_0@60s",
        "bench http://h:1 --rates 2@6_0",
        "bench http://h:1 --users 1_0",
        "bench http://h:1 --duration 3_0",
        "bench http://h:1 --leave 0.0_1",
        "bench http://h:1 --lengths 25_6/128",
        "bench http://h:1 --lengths 256~0.2_5/128",
        "bench http://h:1 --arrivals gamma:cv=0_2 --rate 1",
        "bench http://h:1 --tiers a=1_0,b=1",
        "bench http://h:1 --shared-prefix 1_0",
        "bench http://h:1 --shared-prefix 10:0_2",
        "bench http://h:1 --slo share=0.9_9",
        "bench http://h:1 --traffic multi_turn:rate=2_0",
        "bench http://h:1 --traffic multi_turn:requests=2_0",
        "simulate --traffic agentic:rate=2_0",
        "simulate --traffic agentic:requests=2_0",
        "simulate --traffic agentic:requests=2 --mismatch 0.0_1",
        "simulate --traffic agentic:requests=2 --policies dynamo_kv:overlap_weight=1_0",
        "simulate --traffic agentic:requests=2 --slo ttft=1_0",
        "simulate --traffic agentic:requests=2 --speed 1_0",
        "simulate --traffic agentic:requests=2 --replicas 1_0",
        "simulate scaling --rates {rates} --lengths lognormal:cv=0_1",
        "simulate scaling --rates {rates} --scalers llmd_slo:up=0.4_5",
    ],
)
def test_a_flag_says_its_number_plainly(capsys, tmp_path, command):
    rates = tmp_path / "rates.csv"
    rates.write_text(RATES + "0,1,100,10\n60,1,100,10\n")
    code, out, err = runner(capsys)(*command.format(rates=rates).split())
    assert (code, out) == (2, "")
    assert "_" in err.splitlines()[0]


def test_so_does_a_line_of_rates(capsys, tmp_path):
    file = tmp_path / "rates.csv"
    file.write_text(RATES + "0,1,100,10\n60,2_0,100,10\n")
    code, out, err = runner(capsys)("simulate", "scaling", "--rates", file)
    assert (code, out) == (2, "")
    assert f"{file}:3: expected requests_per_s to be a number, found '2_0'" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("limits: { max_in_flight: 1_0 }", "max_in_flight: is '1_0'"),
        ("routing: { busy: 1_0 }", "busy: is '1_0'"),
        ("limits: { max_body: 1_000_000 }", "max_body: is '1_000_000'"),
        (
            "  - { name: b, model: n, engine: vllm, replicas: [http://h:2], media_tokens: 1_0 }",
            "'1_0'",
        ),
    ],
)
def test_so_does_a_configuration(capsys, tmp_path, line, said):
    file = tmp_path / "h.yaml"
    file.write_text(CONFIG + line + "\n")
    code, _, err = runner(capsys)("check", file)
    assert code == 2
    assert said in err


def test_so_does_a_trigger_of_keda():
    with pytest.raises(WrongReference, match="0_1"):
        read_reference({"pool": "a", "tolerance": "0.0_1"}, ["a"])
