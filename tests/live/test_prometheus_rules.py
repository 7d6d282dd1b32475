"""The recording rules and alerts in deploy/, by a real promtool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from headrace.autoscaler.metrics import GATEWAY_UP
from headrace.autoscaler.metrics import METRICS as SCALING_METRICS
from headrace.gateway.metrics.catalogue import METRICS
from tools.debian_tools import Program

pytestmark = pytest.mark.prometheus

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "headrace-scaling.rules.yaml"


def promtool(program: Program, *arguments: str) -> str:
    done = subprocess.run(
        [str(program.path), *arguments],
        env=program.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_finds_nothing_wrong_with_the_rules(promtool_binary: Program):
    assert "SUCCESS" in promtool(promtool_binary, "check", "rules", "--lint-fatal", str(RULES))


def test_the_rules_give_one_series_per_pool_and_alert_when_they_should(
    promtool_binary: Program, tmp_path: Path
):
    ttft = 'llm_ttft_seconds_%s{pool="p",replica="r"%s}'
    tokens = 'llm_tokens_processed_total{pool="p",replica="%s",token_type="%s"}'
    series = {
        'headrace_scaling_published_replicas{pool="p",instance="a"}': "3+0x120",
        'headrace_scaling_published_replicas{pool="p",instance="b"}': "4+0x120",
        'headrace_scaling_known{pool="p",instance="a"}': "0+0x120",
        'headrace_scaling_gateway_up{gateway="gw-1"}': "1+0x120",
        'headrace_decisions_total{pool="p",replica="r"}': "0+60x120",
        'headrace_decisions_total{pool="p",replica="s"}': "0+60x120",
        'headrace_retries_total{pool="p",replica="s",outcome="unavailable"}': "0+30x120",
        tokens % ("r", "input"): "0+6000x120",
        tokens % ("s", "input"): "0+6000x120",
        tokens % ("r", "output"): "0+600x120",
        ttft % ("bucket", ',le="2.0"'): "0+40x120",
        ttft % ("count", ""): "0+50x120",
    }
    expected = {
        "headrace:scaling_published_replicas:max": 4,
        "headrace:requests:rate1m": 1.5,
        "headrace:input_tokens:rate1m": 200,
        "headrace:output_tokens:rate1m": 10,
        "headrace:ttft_misses:ratio_rate1h": 0.2,
    }
    late = "pool p: 20% of first tokens were late in the last"
    alerts = {
        "HeadraceTtftBudgetBurnsFast": ({"pool": "p", "severity": "page"}, f"{late} hour"),
        "HeadraceTtftBudgetBurns": ({"pool": "p", "severity": "ticket"}, f"{late} six hours"),
        "HeadraceScalerIsBlind": (
            {"pool": "p", "severity": "page"},
            "pool p: no scaler knows the demand; replicas are held, or KEDA's fallback is in force",
        ),
        "HeadraceScalerMissesGateway": None,
    }
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f"round({name}, 0.001)",
                        "eval_time": "100m",
                        "exp_samples": [{"labels": '{pool="p"}', "value": value}],
                    }
                    for name, value in expected.items()
                ],
                "alert_rule_test": [
                    {
                        "alertname": name,
                        "eval_time": "100m",
                        "exp_alerts": []
                        if told is None
                        else [{"exp_labels": told[0], "exp_annotations": {"summary": told[1]}}],
                    }
                    for name, told in alerts.items()
                ],
            }
        ],
    }
    file = tmp_path / "rules.test.json"
    file.write_text(json.dumps(test))  # JSON is YAML
    assert "SUCCESS" in promtool(promtool_binary, "test", "rules", str(file))


@pytest.mark.parametrize(
    ("known", "at", "fires"),
    [
        ("1+0x9 stale _x30", "16m", True),
        ("1+0x9 stale _x30", "12m", False),
        ("0+0x40", "30m", False),
    ],
    ids=["gone", "gone for a moment", "blind, but there"],
)
def test_a_scaler_that_is_not_there_is_told(
    promtool_binary: Program, tmp_path: Path, known: str, at: str, fires: bool
):
    summary = "no scaler has been scraped for 5 minutes: nobody decides how many replicas there are"
    told = {"exp_labels": {"severity": "page"}, "exp_annotations": {"summary": summary}}
    alert = {"alertname": "HeadraceScalerIsGone", "eval_time": at}
    series = {"series": 'headrace_scaling_known{pool="p",instance="a"}', "values": known}
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [series],
                "alert_rule_test": [alert | {"exp_alerts": [told] if fires else []}],
            }
        ],
    }
    file = tmp_path / "rules.test.json"
    file.write_text(json.dumps(test))
    assert "SUCCESS" in promtool(promtool_binary, "test", "rules", str(file))


def test_the_rules_ask_for_metrics_that_there_are():
    exported = {metric.name for metric in (*METRICS, *SCALING_METRICS)} | {GATEWAY_UP[0]}
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    asked = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for group in groups
        for rule in group["rules"]
        for name in re.findall(r"\b(?:llm|headrace)_[a-z0-9_]+", rule["expr"])
    }
    assert asked
    assert asked <= exported
