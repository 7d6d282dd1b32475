"""Rules between the parts of a configuration."""

import pytest
import trustme

from headrace.compose.serving.plan import plan_of
from headrace.config.document import ConfigError
from headrace.config.load import load
from headrace.core.admission import AdmissionSettings, Tier
from headrace.core.latency import LatencyProfile
from tests.certificates import write_certificate

POOL = "  - {{name: {0}, model: {1}, replicas: [{2}]}}\n"


def pools(*rows):
    return "pools:\n" + "".join(POOL.format(*row) for row in rows)


ONE = pools(("main", "llama", "http://10.0.0.1:8000"))
TWO = pools(("main", "llama", "http://10.0.0.1:8000"), ("small", "smol", "http://10.0.0.2:8000"))


@pytest.fixture
def problems(tmp_path):
    def check(text, environ=None, **options):
        file = tmp_path / "headrace.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            load(file, environ or {}, **options)
        except ConfigError as error:
            return [str(problem) for problem in error.problems]
        return []

    return check


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("10.0.0.1:8000", "expected http://host:port"),
        ("https://10.0.0.1", "without a port"),
        ("unix:run/engine.sock", "absolute path"),
        ("unix:/run/engine.sock:8000", "no colon"),
        ("unix:/" + "x" * 103, "at most 103 characters"),
        ("http://10.0.0.1", "without a port"),
        ("http://10.0.0.1:8000/v1", "leave out `/v1`"),
        ("http://10.0.0.1:8000/llama/v1/", "leave out `/v1`"),
        ("http://10.0.0.1:8000/", "without a slash at its end"),
        ("http://10.0.0.1:8000/a/../b", "must be a plain path"),
        ("http://10.0.0.1:8000/a%2fb", "must be a plain path"),
        ("http://10.0.0.1:8000/a b", "must be a plain path"),
        ("'http://10.0.0.1:8000/a?b=c'", "leave out what follows the path"),
        ("http://10.0.0.1:99999", "expected http://host:port"),
        ("ftp://10.0.0.1:21", "expected http://host:port"),
        ("http://:8000", "expected http://host:port"),
        ("http://10.0.0.1:0", "expected http://host:port"),
        ("'http://a b:8000'", "with white space"),
        ('"http://10.0.0.1:8000\\n"', "with white space"),
    ],
)
def test_addresses_of_engines(problems, url, said):
    (found,) = problems(pools(("main", "llama", url)))
    assert found.startswith("line 2: pools[0].replicas[0]: ")
    assert said in found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://gpu-1:8000", "http://GPU-1:8000"),
        ("http://[::1]:8000", "http://[0:0:0:0:0:0:0:1]:8000"),
        ("http://10.0.0.1:8000/llama", "HTTP://10.0.0.1:8000/llama"),
        ("unix:/run/a", "unix:/run/a"),
    ],
)
def test_an_engine_that_is_named_twice_in_other_words(problems, one, other):
    (found,) = problems(pools(("main", "llama", f"'{one}', '{other}'")))
    assert found.endswith(f"is {other!r}, the same as pools[0].replicas[0]")


def test_engines_that_differ_in_their_path_alone_are_two(problems):
    assert problems(pools(("main", "llama", "'http://h:1/a', 'http://h:1/A', 'unix:/A'"))) == []


def test_a_model_that_no_request_could_name(problems):
    long = "m" * 513
    (found,) = problems(pools(("main", long, "http://10.0.0.1:8000")))
    assert "pools[0].model: has 513 characters; requests name a model by at most 512" in found
    (found,) = problems(f"{ONE}aliases: {{{long}: {{targets: [llama]}}}}\n")
    assert "has 513 characters" in found


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("collector:4318", "is 'collector:4318'; expected http://host:port"),
        ("http://", "expected http://host:port"),
        ("http://host:99999", "expected http://host:port"),
        ("grpc://host:4317", "expected http://host:port"),
        ("https://me:pass@host", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("https://host/v1/traces?key=pass", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://host:4318/#pass", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://ho st:4318", "expected http://host:port"),
    ],
)
def test_where_traces_go(problems, endpoint, said):
    (found,) = problems(f"{ONE}tracing:\n  endpoint: '{endpoint}'\n")
    assert found.startswith("line 4: tracing.endpoint: ")
    assert said in found
    assert "pass" not in found


def test_traces_need_an_address_and_a_share(problems):
    assert problems(f"{ONE}tracing: {{endpoint: 'http://c:4318', sample_ratio: 0.1}}\n") == []
    assert "endpoint" in problems(f"{ONE}tracing: {{}}\n")[0]
    assert (
        "sample_ratio"
        in problems(f"{ONE}tracing: {{endpoint: 'http://c:1', sample_ratio: 2}}\n")[0]
    )


@pytest.mark.parametrize(
    "url", ["http://[::1]:8000", "https://10.0.0.1:8000", "unix:/run/engine.sock"]
)
def test_addresses_that_are_fine(problems, url):
    assert problems(pools(("main", "llama", f'"{url}"'))) == []


class TestTls:
    @pytest.fixture
    def files(self, tmp_path):
        """A certificate, its key and its CA, beside the file."""
        write_certificate(trustme.CA(), tmp_path, "engine.test")

    def test_all_files_that_fit(self, problems, files):
        text = (
            "listen: {tls: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem}}\n"
            "control: {tls: {cert_file: cert.pem, key_file: key.pem}}\n"
            "pools:\n  - name: main\n    model: m\n    dns: {name: engines, port: 8000}\n"
            "    tls: {ca_file: ca.pem, cert_file: cert.pem, key_file: key.pem}\n"
        )
        assert problems(text) == []

    @pytest.mark.parametrize(
        ("tls", "said"),
        [
            ("cert_file: none, key_file: key.pem", "listen.tls.cert_file: is"),
            ("cert_file: cert.pem, key_file: other.pem", "the key of another certificate"),
            ("cert_file: ca.pem, key_file: ca.pem", "not a PEM certificate with its PEM key"),
            ("cert_file: cert.pem", "listen.tls.key_file: is missing"),
            (
                "cert_file: cert.pem, key_file: key.pem, client_ca_file: key.pem",
                "listen.tls.client_ca_file: is",
            ),
        ],
    )
    def test_files_of_a_listener_that_do_not_fit(self, problems, files, tmp_path, tls, said):
        other = trustme.CA().issue_cert("other.test")
        other.private_key_pem.write_to_path(tmp_path / "other.pem")
        (found,) = problems(f"listen: {{tls: {{{tls}}}}}\n{ONE}")
        assert said in found

    @pytest.mark.parametrize(
        ("rest", "said"),
        [
            ("replicas: ['https://h:1'], tls: {ca_file: none}", "pools[0].tls.ca_file: is"),
            ("replicas: ['http://h:1'], tls: {ca_file: ca.pem}", "write https://"),
            ("replicas: ['https://h:1'], tls: {key_file: key.pem}", "no `cert_file`"),
            (
                "replicas: ['https://h:1'], dns: {name: n, port: 1}, tls: {ca_file: ca.pem}",
                "say with `server_name`",
            ),
        ],
    )
    def test_what_is_wrong_with_tls_of_a_pool(self, problems, files, rest, said):
        (found,) = problems(f"pools:\n  - {{name: p, model: m, {rest}}}\n")
        assert said in found

    def test_blind_trust_is_warned_of(self, tmp_path):
        file = tmp_path / "headrace.yaml"
        text = "pools:\n  - {name: p, model: m, replicas: ['https://h:1'], tls: {verify: false}}\n"
        file.write_text(text)
        (warning,) = load(file, {}).warnings
        assert "pool p: tls.verify is false" in warning


class TestTiers:
    def test_the_default_one_is_there_in_any_case(self, tmp_path):
        file = tmp_path / "headrace.yaml"
        file.write_text(ONE)
        assert load(file, {}).config.tiers == {"default": Tier()}
        file.write_text(f"{ONE}tiers: {{gold: {{ttft: 500ms, tpot: 25ms, priority: 7}}}}\n")
        gold = Tier("gold", 0.5, 0.025, 7)
        assert load(file, {}).config.tiers == {"default": Tier(), "gold": gold}

    def test_the_default_one_can_be_changed(self, tmp_path):
        file = tmp_path / "headrace.yaml"
        text = "tiers: {default: {shed_after_factor: 5, ttl: 90s}}\n"
        text += "admission: {max_held: 9, hold_above: 50ms, starved_after: 3s}\n"
        file.write_text(f"{ONE}{text}")
        loaded = load(file, {})
        tier = Tier(shed_after_factor=5.0, ttl_s=90.0)
        assert loaded.config.tiers == {"default": tier}
        plan = plan_of(loaded)
        assert plan.routing.tiers == (tier,)
        assert plan.routing.admission == AdmissionSettings(9, 0.05, 4.0, 3.0)
        assert plan.gateway.tiers == ("default",)

    @pytest.mark.parametrize(
        ("tier", "said"),
        [
            ("gold: {ttft: 0}", "tiers.gold.ttft: is 0; must be above 0s"),
            ("gold: {tpot: 0ms}", "tiers.gold.tpot: is '0ms'; must be above 0s"),
            ("gold: {ttl: 0}", "tiers.gold.ttl: is 0; must be above 0s"),
            ("gold: {ttft: 5e-324}", "tiers.gold.ttft: is 4.94066e-324 seconds; give a target"),
            ("gold: {tpot: 1e-7}", "tiers.gold.tpot: is 1e-07 seconds; give a target that can"),
            ("gold: {priority: -101}", "tiers.gold.priority: is -101; must be at least -100"),
            ("gold: {priority: 101}", "tiers.gold.priority: is 101; must be at most 100"),
            ("gold: {priority: 1.5}", "tiers.gold.priority: is 1.5; expected a whole number"),
            ("gold: {shed_after_factor: -1}", "must be at least 0"),
            ("gold: {name: silver}", "tiers.gold.name: unknown key"),
            ("'g old': {}", "is no name for a tier; use at most 63 letters, digits"),
            (f"{'x' * 64}: {{}}", "is no name for a tier"),
        ],
    )
    def test_what_is_wrong_with_one(self, problems, tier, said):
        (found,) = problems(f"{ONE}tiers:\n  {tier}\n")
        assert found.startswith("line 4: tiers")
        assert said in found

    def test_there_may_be_64(self, problems):
        text = "".join(f"  t{number}: {{}}\n" for number in range(63))
        assert problems(f"{ONE}tiers:\n{text}") == []
        (found,) = problems(f"{ONE}tiers:\n{text}  one-more: {{}}\n")
        assert found == "line 4: tiers: are 65, with `default`; at most 64 can be told apart"

    def test_they_are_no_part_of_routing(self, problems):
        (found,) = problems(f"{ONE}routing: {{tiers: {{}}}}\n")
        assert "routing.tiers: unknown key" in found


def test_a_unix_socket_is_not_exposed_and_has_a_path(problems):
    listen = "listen: {{host: 0.0.0.0, unix: {0}}}\n"
    assert problems(listen.format("/run/headrace.sock") + ONE) == []
    (found,) = problems(listen.format("headrace.sock") + ONE)
    assert "listen.unix: is 'headrace.sock'" in found


@pytest.mark.parametrize(
    ("gpu_metrics", "said"),
    [
        ("url: '{host}:9400/metrics'", "url: is '{host}:9400/metrics'; expected a page, as"),
        ("url: 'http://{host}:9400'", "expected a page, as http://{host}:9400/metrics"),
        ("url: 'http://{host}:94000/metrics'", "expected a page"),
        ("url: 'http://{host}:metrics/'", "expected a page"),
        ("url: 'http://[{host}]:9400/metrics'", "expected a page"),
        ("url: 'http://{node}:9400/metrics'", "expected a page"),
        ("url: 'http://u:secret@{host}:9400/metrics'", "url: holds credentials"),
        ("url: 'http://{host}:9400/m', labels: [vllm]", "labels[0]: 'vllm' is not name=value"),
        ("url: 'http://{host}:9400/m', labels: ['a b=c']", "give one as container=vllm"),
        # Between two looks nothing would be known.
        ("url: 'http://{host}:9400/m', interval: 2m", "interval"),
    ],
)
def test_where_gpus_are_looked_at(problems, gpu_metrics, said):
    text = ONE.replace("}", f", gpu_metrics: {{{gpu_metrics}}}}}")
    (found,) = problems(text)
    assert said in found
    assert "secret" not in found


def test_pools_must_be_told_apart(problems):
    same = pools(("main", "a", "http://h:1"), ("main", "b", "http://h:1"))
    found = problems(same)
    assert "pools[1].name: is 'main', the name of pools[0] too" in found[0]
    assert "is 'http://h:1', the same as pools[0].replicas[0]" in found[1]


def test_a_pool_needs_replicas(problems):
    (found,) = problems("pools:\n  - {name: main, model: llama}\n")
    assert "give `replicas`" in found


@pytest.mark.parametrize("name", ["a b", "", "x" * 64, "-a", "a/b"])
def test_names_of_pools_are_plain(problems, name):
    (found,) = problems(pools((f'"{name}"', "llama", "http://h:1")))
    assert "pools[0].name: is" in found


def test_only_one_role_is_built(problems):
    (found,) = problems("pools:\n  - {name: a, model: b, role: decode, replicas: [http://h:1]}\n")
    assert "only `both`" in found


def test_dns_names_have_no_scheme(problems):
    text = "pools:\n  - {name: a, model: b, dns: {name: 'http://x', port: 80}}\n"
    assert "without scheme or port" in problems(text)[0]
    assert "must be at least 1" in problems(text.replace("http://x", "x").replace("80", "0"))[0]


class TestAliases:
    def test_short_and_long_forms(self, problems):
        text = TWO + (
            "aliases:\n"
            "  a: llama\n"
            "  b: [llama, {model: smol, weight: 3}]\n"
            "  c: {targets: [llama], fallbacks: [smol]}\n"
            "  d: {targets: smol}\n"
        )
        found = problems(text)
        assert len(found) == 1  # only the list of `targets` must be a list
        assert "aliases.d.targets: is 'smol'; expected a list" in found[0]

    def test_unknown_model_is_led_to_the_nearest(self, problems):
        (found,) = problems(TWO + "aliases: {chat: lama}\n")
        assert "aliases.chat.targets[0]: is 'lama', which no pool serves" in found
        assert "did you mean `llama`?" in found

    def test_unknown_fallback(self, problems):
        (found,) = problems(TWO + "aliases:\n  chat: {targets: [llama], fallbacks: [none]}\n")
        assert found.startswith("line 5: aliases.chat.fallbacks[0]:")
        assert "pools serve: llama, smol" in found

    def test_an_alias_like_a_model(self, problems):
        (found,) = problems(TWO + "aliases: {llama: smol}\n")
        assert "aliases.llama: is the name of a model too" in found

    def test_circles(self, problems):
        found = problems(TWO + "aliases: {a: b, b: a, c: c}\n")
        assert len(found) == 3
        assert all("aliases must not go in circles" in line for line in found)

    def test_the_same_model_twice(self, problems):
        (found,) = problems(TWO + "aliases:\n  a: {targets: [llama], fallbacks: [llama]}\n")
        assert "named in this alias before" in found

    def test_empty_targets(self, problems):
        (found,) = problems(TWO + "aliases: {a: []}\n")
        assert "aliases.a.targets: is empty" in found

    def test_weights_are_above_zero(self, problems):
        (found,) = problems(TWO + "aliases: {a: [{model: llama, weight: 0}]}\n")
        assert "must be above 0" in found

    def test_adapters_that_are_declared(self, problems):
        text = "pools:\n  - {name: a, model: m, replicas: [http://h:1], adapters: [lora]}\n"
        assert problems(text + "aliases: {x: lora}\n") == []
        assert "is the name of an adapter too" in problems(text + "aliases: {lora: m}\n")[0]
        assert len(problems(text.replace("[lora]", "[m]"))) == 1


class TestExposure:
    @pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
    def test_loopback_needs_no_keys(self, problems, host):
        assert problems(ONE + f"listen: {{host: '{host}'}}\n") == []

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gateway.example"])
    def test_beyond_loopback_does(self, problems, host):
        text = ONE + f"listen: {{host: '{host}'}}\n"
        (found,) = problems(text)
        assert "headrace keys new" in found
        assert "--insecure" in found
        assert problems(text, insecure=True) == []

    def test_keys_open_it(self, problems, tmp_path):
        (tmp_path / "keys").write_text(f"alice sha256:{'0' * 64}\n")
        assert problems(ONE + "listen: {host: 0.0.0.0}\napi_keys_file: keys\n") == []

    def test_the_control_plane_needs_a_token_beyond_loopback(self, problems):
        text = ONE + "control: {host: 0.0.0.0}\n"
        (found,) = problems(text)
        assert "control.host: is '0.0.0.0'" in found
        assert "`token_env`, or say --insecure" in found
        assert problems(text, insecure=True) == []
        told = ONE + "control: {host: 0.0.0.0, token_env: TOKEN}\n"
        assert problems(told, {"TOKEN": "x"}) == []

    @pytest.mark.parametrize("host", ["not a host", "", "http://h", "127.0.0.256", "-x", "h:80"])
    @pytest.mark.parametrize("section", ["listen", "control"])
    def test_hosts_that_cannot_be(self, problems, section, host):
        (found,) = problems(ONE + f"{section}: {{host: '{host}'}}\n", insecure=True)
        assert f"{section}.host: is '{host}'; expected an address of this machine" in found

    def test_two_listeners_one_port(self, problems):
        (found,) = problems(ONE + "listen: {port: 9091}\n")
        assert "control.port" in found
        assert problems(ONE + "listen: {port: 0}\ncontrol: {port: 0}\n") == []


class TestProfiles:
    def test_from_a_file_beside_it(self, tmp_path):
        (tmp_path / "gpu.json").write_text(
            '{"name": "gpu", "source": "s", "per_step_s": 0.01, "per_prefill_token_s": 4.0e-5}'
        )
        (tmp_path / "c.yaml").write_text(
            "pools:\n  - {name: a, model: m, replicas: [http://h:1], profile: gpu.json}\n"
        )
        (pool,) = load(tmp_path / "c.yaml", {}).config.pools
        assert isinstance(pool.profile, LatencyProfile)
        assert pool.profile.per_prefill_token_s == 4e-5

    def test_mistakes_in_it_name_the_file_and_the_line(self, problems, tmp_path):
        (tmp_path / "gpu.json").write_text('{"name": "gpu",\n "source": "s", "per_stap_s": 1}')
        found = problems(
            "pools:\n  - {name: a, model: m, replicas: [http://h:1], profile: gpu.json}\n"
        )
        assert any(
            "pools[0].profile: gpu.json: line 2: per_stap_s: unknown key" in f for f in found
        )

    def test_a_shipped_one_by_its_name(self, tmp_path):
        (tmp_path / "c.yaml").write_text(
            "pools:\n  - {name: a, model: m, replicas: [http://h:1], profile: h100-llama-3.1-8b}\n"
        )
        profile = load(tmp_path / "c.yaml", {}).config.pools[0].profile
        assert isinstance(profile, LatencyProfile)
        assert profile.name == "h100-llama-3.1-8b"

    def test_a_name_that_none_has(self, problems):
        found = problems(
            "pools:\n  - {name: a, model: m, replicas: [http://h:1], profile: h100-lama-3.1-8b}\n"
        )
        assert any(
            "pools[0].profile" in f and "h100-llama-3.1-8b" in f and "*.json" in f for f in found
        )

    def test_rules_of_the_profile_itself(self, problems):
        profile = "{name: p, source: s, per_step_s: 1, per_prefill_token_s: 0}"
        found = problems(
            f"pools:\n  - {{name: a, model: m, replicas: [http://h:1], profile: {profile}}}\n"
        )
        assert "per_prefill_token_s and per_attended_token_s are both 0" in found[0]


def test_an_origin_that_no_browser_sends_is_named_with_its_line(problems):
    (found,) = problems(f"{ONE}listen: {{cors_origins: ['https://a.example/']}}\n")
    assert found.startswith("line 3: listen.cors_origins[0]: ")


def test_the_control_plane_of_a_gateway_on_a_unix_socket_is_checked_too(problems):
    text = f"{ONE}listen: {{unix: /run/h.sock}}\ncontrol: {{host: 'no host'}}\n"
    assert any("control.host" in found for found in problems(text))
