"""What is wrong between pools and how they are scaled is said with its place and its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.document import ConfigError
from headrace.config.load import Loaded, load

POOL = "pools:\n  - {name: p, model: m, replicas: ['http://a:1']%s}\n"


def loaded(tmp_path: Path, text: str, *, insecure: bool = False) -> Loaded:
    file = tmp_path / "headrace.yaml"
    file.write_text(text)
    return load(file, {}, insecure=insecure)


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    return str(caught.value)


def test_a_section_becomes_what_the_core_is_told(tmp_path: Path):
    text = POOL % ", wait_for_replica: 5m" + (
        "scaling:\n  pools: {p: {min_replicas: 0, max_replicas: 8, cold_start: 4m, tick: 5s, "
        "target: {ttft: 3s, tpot: 100ms, attainment: 0.95}}}\n"
    )
    config = loaded(tmp_path, text).config
    assert config.pools[0].wait_for_replica_s == 300.0
    assert config.scaling is not None
    told = config.scaling.pools["p"].settings()
    assert (told.min_replicas, told.max_replicas, told.tick_s) == (0, 8, 5.0)
    assert told.cold_start.expected_s == 240.0
    assert (told.target.ttft_s, told.target.tpot_s, told.target.attainment) == (3.0, 0.1, 0.95)


@pytest.mark.parametrize(
    ("section", "where", "said"),
    [
        ("pools: {q: {}}", "scaling.pools.q", "is the name of no pool; pools are: p"),
        ("pools: {p: {min_replicas: 9, max_replicas: 3}}", "min_replicas", "more than max_repl"),
        (
            *("pools: {p: {min_replicas: 5, max_replicas: 5, group_replicas: 2}}", "min_replicas"),
            "more than the 4 that whole groups of 2",
        ),
        ("pools: {p: {min_replicas: 0}}", "scaling.pools.p.min_replicas", "`wait_for_replica`"),
        ("pools: {p: {}}\n  gateways: [gw:9091]", "scaling.gateways[0]", "expected http://host"),
        ("pools: {p: {}}\n  gateways: ['http://a:b@c:1']", "gateways[0]", "holds credentials"),
        ("pools: {p: {}}\n  history: {}", "scaling.history", "give `prometheus` or `file`"),
        (
            *("pools: {p: {}}\n  history: {prometheus: 'x'}", "scaling.history.prometheus"),
            "expected http://host:port",
        ),
        (
            *("pools: {p: {}}\n  keda: {host: 0.0.0.0}", "scaling.keda.host"),
            "which other machines reach, without `tls`",
        ),
        (
            *("pools: {p: {}}\n  keda: {tls: {cert_file: a.pem, key_file: b.pem}}", "keda.tls"),
            "a.pem",
        ),
        ("pools: {p: {group_replicas: 0}}", "group_replicas", "must be at least 1"),
        ("pools: {p: {group_replicas: 8, max_replicas: 4}}", "group_replicas", "no whole group"),
        ("pools: {p: {kv_target: 75}}", "kv_target", "must be at most 1"),
        ("pools: {p: {kv_target: 0}}", "kv_target", "must be above 0"),
        ("pools: {p: {tick: 0s}}", "scaling.pools.p.tick", "must be above 0"),
        ("pools: {p: {tick: 10m}}", "scaling.pools.p.tick", "at most 2m"),
        ("pools: {p: {stale: 0s}}", "scaling.pools.p.stale", "must be above 0"),
        ("pools: {p: {stale: 400ms}}", "scaling.pools.p.stale", "every report would be too old"),
        ("pools: {p: {}}\n  gpus: 0", "scaling.gpus", "must be at least 1"),
        ("pools: {p: {}}\n  history: {file: a, days: 1e9}", "history.days", "must be at most 366"),
        (
            *("pools: {p: {}}\n  state_file: a\n  history: {file: a}", "scaling.history.file"),
            "give each a file of its own",
        ),
        (
            *("pools: {p: {}}\n  state_file: a.1\n  history: {file: a}", "scaling.history.file"),
            "keeps its older part in a.1, which is scaling.state_file",
        ),
        *(
            (f"pools: {{p: {{target: {{attainment: {given}}}}}}}", "target.attainment: ", said)
            for given, said in (
                ("1", "is 1; must be below 1"),
                ("1.5", "is 1.5; must be below 1"),
                ("0", "is 0; must be above 0"),
            )
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, section: str, where: str, said: str):
    told = problems(tmp_path, POOL % "" + f"scaling:\n  {section}\n")
    assert where in told
    assert said in told


def test_keda_beyond_loopback_without_tls_may_be_said_to_be_wanted(tmp_path: Path):
    text = POOL % "" + "scaling:\n  pools: {p: {}}\n  keda: {host: 0.0.0.0}\n"
    assert loaded(tmp_path, text, insecure=True).config.scaling is not None


@pytest.mark.parametrize(
    ("pool", "scaling", "said"),
    [
        ("start: {command: [headrace, engine, --port, '{port}']}", "", "needs `scaling.pools.p`"),
        (
            "start: {command: [headrace, engine]}",
            "scaling: {pools: {p: {}}}",
            "does not say {port}",
        ),
        ("start: {command: [none-such, '{port}']}", "scaling: {pools: {p: {}}}", "is not on PATH"),
        ("start: {command: []}", "scaling: {pools: {p: {}}}", "is empty"),
        (
            "replicas: ['http://a:1'], start: {command: [headrace, '{port}']}",
            *("scaling: {pools: {p: {}}}", "a pool has one or the other"),
        ),
        (
            "engine: llamacpp, start: {command: [headrace, '{port}'], sleep: {}}",
            *("scaling: {pools: {p: {}}}", "is for engines that can sleep (vllm), not 'llamacpp'"),
        ),
        (
            "engine: vllm, start: {command: [headrace, '{port}'], sleep: {level: 3}}",
            *("scaling: {pools: {p: {}}}", "must be at most 2"),
        ),
        (
            "replicas: ['http://a:1'], traffic: external",
            *("scaling: {pools: {p: {}}}", "whose traffic is external"),
        ),
    ],
)
def test_a_pool_that_cannot_be_started_or_scaled_is_named(
    tmp_path: Path, pool: str, scaling: str, said: str
):
    assert said in problems(tmp_path, f"pools:\n  - {{name: p, model: m, {pool}}}\n{scaling}\n")


def test_what_will_hardly_sleep_is_warned_of(tmp_path: Path):
    command = "[sh, -c, '{port}', vllm, serve]"
    text = (
        f"pools:\n  - {{name: p, model: m, engine: vllm, start: {{command: {command}, "
        "sleep: {}}}\nscaling: {pools: {p: %s}}\n"
    )
    told = "\n".join(loaded(tmp_path, text % "{}").warnings)
    assert "nobody to put to sleep: scaling.pools.p.standby_replicas is 0" in told
    assert "does not say --enable-sleep-mode" in told
    enough = text.replace("serve]", "serve, --enable-sleep-mode]")
    assert not loaded(tmp_path, enough % "{standby_replicas: 1}").warnings


def test_standbys_that_nobody_keeps_are_warned_of(tmp_path: Path):
    text = POOL % "" + "scaling: {pools: {p: {standby_replicas: 2}}}\n"
    [told] = loaded(tmp_path, text).warnings
    assert "standby_replicas is 2, and nobody keeps them" in told


def test_floors_that_something_else_cuts_or_that_cut_something_else_are_warned_of(tmp_path: Path):
    calendar = "{start: 0 8 * * *, end: 0 9 * * *, replicas: 12}"
    text = POOL % "" + (
        "scaling:\n  gpus: 4\n  pools: {p: {min_replicas: 2, gpus_per_replica: 4, "
        f"max_replicas: 8, calendar: [{calendar}]}}}}\n"
    )
    ceiling, budget = loaded(tmp_path, text).warnings
    assert ceiling.startswith("scaling.pools.p.calendar[0].replicas is 12, more than max_replicas")
    assert budget == "scaling.gpus is 4, and the pools' min_replicas take 8: floors hold"


@pytest.mark.parametrize(
    ("profile", "gpus_per_replica", "warned"),
    [("h100-llama-3.3-70b-tp4", 1, True), ("h100-llama-3.3-70b-tp4", 4, False)],
)
def test_a_budget_that_counts_too_few_gpus_of_a_replica_is_warned_of(
    tmp_path: Path, profile: str, gpus_per_replica: int, warned: bool
):
    text = POOL % f", profile: {profile}" + (
        f"scaling:\n  gpus: 16\n  pools: {{p: {{gpus_per_replica: {gpus_per_replica}}}}}\n"
    )
    told = "scaling.pools.p.gpus_per_replica is 1, and a replica of h100-llama-3.3-70b-tp4 has 4"
    assert [each.startswith(told) for each in loaded(tmp_path, text).warnings] == [True] * warned
