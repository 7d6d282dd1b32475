"""`headrace simulate scaling`: what it prints, and what it refuses."""

import json

import pytest

from headrace.cli import main
from tests.commands import runner
from tests.hash_seeds import printed

HEAD = "start_s,requests_per_s,mean_input_tokens,mean_output_tokens\n"
FEW = ("--scalers", "headrace,llmd_slo,oracle", "--jobs", "1")


@pytest.fixture
def run(capsys):
    return runner(capsys, "simulate", "scaling")


@pytest.fixture
def rates(tmp_path):
    file = tmp_path / "rates.csv"
    lines = [f"{600 * i},{rate},900,140" for i, rate in enumerate((40, 90, 160, 80, 30))]
    file.write_text(HEAD + "\n".join(lines) + "\n")
    return file


def test_json_has_a_run_for_each_scaler(run, rates):
    code, out, err = run("--rates", rates, *FEW, "--seed", 7, "--mode", "fluid", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["seed"] == 7
    assert document["mode"] == "fluid"
    assert [each["scaler"] for each in document["runs"]] == ["headrace", "llmd_slo", "oracle"]
    for each in document["runs"]:
        assert set(each) == {
            "scaler",
            "attainment",
            "token_attainment",
            "replica_hours",
            "peak",
            "changes",
        }
        assert 0.0 <= each["token_attainment"] <= 1.0
    assert "requests in 0.8 h, played as fluid" in err


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed(rates):
    command = ("-m", "headrace", "simulate", "scaling", "--rates", rates)
    flags = (*FEW, "--mode", "fluid", "--json")
    once, again = (printed(*command, *flags, hash_seed=seed) for seed in ("1", "2"))
    assert once == again


def test_a_trace_is_played_request_by_request(run, tmp_path):
    file = tmp_path / "trace.jsonl"
    lines = (
        json.dumps({"timestamp": i * 0.1, "input_length": 800, "output_length": 60})
        for i in range(3000)
    )
    file.write_text("\n".join(lines))
    report = tmp_path / "page.html"
    code, out, err = run("--trace", file, "--scalers", "llmd_slo", "--report", report)
    assert code == 0
    assert "played as events" in err
    assert "llmd_slo" in out
    assert report.read_text().startswith("<!doctype html>")


def test_the_table_is_there_though_a_report_cannot_be_written(run, rates):
    flags = ("--rates", rates, "--mode", "fluid", "--scalers", "static")
    code, out, err = run(*flags, "--report", "/dev/full")
    assert code == 2
    assert "static" in out
    assert err.splitlines()[-1] == "headrace: /dev/full: cannot write: No space left on device"


@pytest.mark.parametrize(("block_tokens", "told"), [(24, True), (32, False)])
def test_prefixes_that_engines_cannot_share_are_told_of(run, tmp_path, block_tokens, told):
    file = tmp_path / "blocks.jsonl"
    line = '{"timestamp":0,"input_length":96,"output_length":1,"block_tokens":%d,"hash_ids":%s}\n'
    file.write_text(line % (block_tokens, list(range(96 // block_tokens))))
    code, _, err = run("--trace", file, "--scalers", "static")
    assert code == 0
    assert (
        "block_tokens is 24, no multiple of 16, the engines': no prefix is shared" in err
    ) == told


def test_single_requests_are_dealt_out_as_asked(run, rates):
    # A jump: who sends by predicted seconds serves some of it in time until replicas are here.
    rates.write_text(HEAD + "0,4,4000,400\n120,40,4000,400\n160,4,4000,400\n280,4,4000,400\n")
    documents = []
    for policy in ((), ("--policy", "seconds"), ("--policy", "least_requests")):
        code, out, err = run(
            "--rates", rates, "--scalers", "static", "--mode", "events", "--json", *policy
        )
        assert code == 0
        documents.append(json.loads(out))
    assert [each["policy"] for each in documents] == ["least_requests", "seconds", "least_requests"]
    assert documents[0] == documents[2]
    assert documents[0]["runs"][0]["attainment"] < documents[1]["runs"][0]["attainment"]
    assert "dealt out by least_requests" in err


def test_a_fluid_can_be_played_behind_a_gateway_that_holds(run, rates):
    # A jump to more than a fleet of twice the mean bears.
    rates.write_text(HEAD + "0,20,1500,140\n600,200,1500,140\n720,20,1500,140\n1800,20,1500,140\n")
    said, told = {}, {}
    for policy in ("", "least_requests", "seconds"):
        flags = ("--policy", policy) if policy else ()
        _, out, err = run(
            "--rates", rates, "--scalers", "static", "--mode", "fluid", "--json", *flags
        )
        said[policy], told[policy] = out, err
    assert said[""] == said["least_requests"]
    plain, held = json.loads(said[""]), json.loads(said["seconds"])
    assert "policy" not in plain
    assert held["policy"] == "seconds"
    assert held["runs"][0]["replica_hours"] == plain["runs"][0]["replica_hours"]
    assert held["runs"][0]["attainment"] > plain["runs"][0]["attainment"] + 0.05
    assert ", behind seconds" in told["seconds"]
    assert "behind" not in told[""]


def test_a_rate_scale_multiplies_requests(run, rates):
    said = []
    for scale in ("1", "2.5"):
        _, out, _ = run(
            "--rates", rates, "--rate-scale", scale, "--scalers", "static", "--json", "--mode",
            "fluid",
        )  # fmt: skip
        said.append(json.loads(out)["runs"][0]["replica_hours"])
    assert said[1] == pytest.approx(2.5 * said[0], rel=0.15)


def test_a_sweep_shows_each_at_its_best_too(run, rates):
    code, out, _ = run(
        "--rates", rates, "--scalers", "static,headrace", "--sweep", "--json", "--mode", "fluid"
    )
    document = json.loads(out)
    assert code == 0
    assert len(document["swept"]) == 9
    assert [each["scaler"].partition(":")[0] for each in document["runs"]] == [
        "static",
        "static",
        "headrace",
    ]


def samples(pool: str, begin_s: float, *requests_per_s: float) -> str:
    """Lines as a scaler keeps them, one for each ten minutes."""
    return "".join(
        json.dumps(
            {
                "pool": pool,
                "sample": {
                    "begins_s": begin_s + 600.0 * place,
                    "lasts_s": 600.0,
                    "requests": 600.0 * rate,
                    "input_tokens": 600.0 * rate * 900,
                    "output_tokens": 600.0 * rate * 140,
                },
            }
        )
        + "\n"
        for place, rate in enumerate(requests_per_s)
    )


def test_what_came_before_is_learned_from_rates_or_from_the_file_that_a_scaler_keeps(
    run, rates, tmp_path
):
    # Every half hour it is four times as much for ten minutes; the demand begins with it.
    before = (160.0, 40.0, 40.0) * 12
    past = tmp_path / "past.csv"
    past.write_text(HEAD + "".join(f"{600 * i},{rate},900,140\n" for i, rate in enumerate(before)))
    kept = tmp_path / "history.jsonl"
    kept.write_text(samples("llama", 1_700_000_400.0, *before))
    flags = ("--rates", rates, "--mode", "fluid", "--scalers", "headrace,hpa_rps", "--json")
    _, plain, _ = run(*flags)
    code, learned, err = run(*flags, "--history", past)
    assert code == 0
    assert "in 0.8 h after a history of 6.0 h, played as fluid" in err
    own, other = json.loads(plain)["runs"]
    own_then, other_then = json.loads(learned)["runs"]
    assert own_then != own
    assert other_then == other
    _, from_kept, _ = run(*flags, "--history", kept)
    assert from_kept == learned
    lines = kept.read_text().splitlines(keepends=True)
    half = tmp_path / "half.jsonl"
    half.write_text("".join(lines[len(lines) // 2 :]))
    half.with_name("half.jsonl.1").write_text("".join(lines[: len(lines) // 2]))
    assert run(*flags, "--history", half)[1] == learned
    # A scaler has just renamed a full file, and its next minute is not over yet.
    kept.rename(kept.with_name("history.jsonl.1"))
    assert run(*flags, "--history", kept)[1] == learned
    kept.with_name("history.jsonl.1").rename(kept)
    _, scaled, err = run(*flags, "--history", kept, "--rate-scale", 2)
    assert scaled != run(*flags, "--rate-scale", 2)[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ": expected the columns start_s,requests_per_s"),
        (HEAD + "0,x,1,1\n", ":2: expected requests_per_s to be a number, found 'x'"),
        ('{"timestamp": 0, "input_length": 800}\n', " has no such line; give one pool's lines: "),
        (samples("a", 0.0, 1.0) + samples("b", 0.0, 1.0), " is of 2 pools (a, b); give one pool's"),
        (samples("a", 0.0, -1.0), " has no such line; give one pool's lines: "),
        (None, ": cannot read it: No such file"),
    ],
)
def test_a_history_that_cannot_be_used_is_one_line(run, rates, tmp_path, text, said):
    past = tmp_path / "past"
    if text is not None:
        past.write_text(text)
    code, out, err = run("--rates", rates, "--history", past, "--scalers", "static")
    assert (code, out) == (2, "")
    assert f"--history: {past}{said}" in err or f"{past}{said}" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--scalers", "llmd"), "--scalers: unknown scaler 'llmd'"),
        (("--scalers", "hadrace"), "unknown scaler 'hadrace', did you mean 'headrace'? known: "),
        (
            ("--slo", "ttft=1s", "--slo", "ttft=9s"),
            "--slo ttft=9s: the targets of all requests are given twice",
        ),
        (("--scalers", "static,static"), "--scalers: static is given twice"),
        (("--scalers", "static:x=1"), "scaler 'static:x=1': unknown parameter 'x'; known: margin"),
        (("--scalers", "hpa_cpu:target=0"), "target=0': target is 0; give 0.001 to 10"),
        (("--policy", "second"), "--policy: unknown policy 'second', did you mean 'seconds'?"),
        (
            ("--policy", "round_robin", "--mode", "fluid"),
            (
                "--policy round_robin: as a fluid only least_requests and seconds can be played; "
                "take one of them, or --mode events"
            ),
        ),
        (("--scalers", ""), "--scalers '' names none; leave it out for all of them"),
        (("--scalers", ",,"), "--scalers ',,' names none; leave it out for all of them"),
        (("--cold-start", "-1s"), "--cold-start: '-1s' is not a duration such as"),
        (("--cold-start", "25h"), "--cold-start is 90000 s; give 0 to 86400"),
        (("--cold-start", "soon"), "--cold-start: 'soon' is not a duration such as"),
        (("--lengths", "lognormal:sd=1"), "--lengths lognormal:sd=1: 'sd=1' is not cv=NUMBER"),
        (("--lengths", "normal:1"), "normal:1: expected lognormal:cv=NUMBER or a trace's file"),
        (("--lengths", "no.jsonl"), "--lengths: no.jsonl: cannot read it: No such file"),
        (("--min", "9", "--max", "4"), "--min 9 is more than --max 4"),
        (("--profile", "h100"), "--profile: no profile 'h100'"),
        (("--rate-scale", "0"), "--rate-scale: '0' is not a number above 0"),
        (("--slo", "ttft=1"), None),
        (
            ("--profile", "l4-llama-3.1-8b"),
            (
                "--slo tpot=50ms: a step of l4-llama-3.1-8b takes at least 62.0 ms, so that no "
                "number of replicas meets it; give a higher tpot or another --profile"
            ),
        ),
        (("--slo", "tpot=1ms"), "--slo tpot=1ms: a step of h100-llama-3.1-8b takes at least 7.0"),
        (("--slo", "ttft=6ms"), "--slo ttft=6ms: a step of h100-llama-3.1-8b takes at least 7.0"),
        (("--report", "no/where.html"), "no/where.html: cannot write: no is no directory"),
    ],
)
def test_what_cannot_be_used_is_one_line(run, rates, arguments, said):
    code, out, err = run("--rates", rates, "--mode", "fluid", "--scalers", "static", *arguments)
    if said is None:
        assert code == 0
        return
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("mode", ["fluid", "events"])
def test_what_fits_no_replica_is_told_and_missed(run, tmp_path, mode):
    file, report = tmp_path / "trace.jsonl", tmp_path / "page.html"
    lengths = [900_000 if place % 50 == 0 else 800 for place in range(1000)]
    lines = (
        json.dumps({"timestamp": place * 0.2, "input_length": length, "output_length": 60})
        for place, length in enumerate(lengths)
    )
    file.write_text("\n".join(lines))
    flags = ("--scalers", "headrace,static", "--mode", mode, "--report", report)
    code, out, err = run("--trace", file, *flags, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["too_long"] == 20
    # All others are easily in time.
    assert [each["attainment"] for each in document["runs"]] == [pytest.approx(0.98)] * 2
    tokens = 860 * 980 / (860 * 980 + 900_060 * 20)
    assert document["runs"][1]["token_attainment"] == pytest.approx(tokens, abs=1e-6)
    said = "20 requests of 1,000 do not fit in a replica's KV cache of 438,880 tokens"
    assert f"{said}: refused, and missed, so that nobody has more attainment than 98.00 %" in err
    assert "20 of them do not fit in a replica" in report.read_text()
    _, out, _ = run("--trace", file, *flags)
    assert "nobody has more" not in out  # beside the table, not in it


@pytest.mark.parametrize("mode", ["fluid", "events"])
def test_of_rates_too_what_fits_no_replica_is_told(run, rates, mode):
    rates.write_text(HEAD + "0,2,1000,100\n600,0.5,300000,100\n1200,2,1000,100\n")
    code, out, _ = run("--rates", rates, "--scalers", "static", "--mode", mode, "--json")
    assert code == 0
    # Of lognormal lengths with CV 1 and a mean of 300,000, 19 % are above 438,780; as a fluid they
    # are the upper three of seven classes, 30 %.
    assert 0.1 * 300 < json.loads(out)["too_long"] < 0.4 * 300


@pytest.mark.parametrize("mode", ["fluid", "events"])
@pytest.mark.parametrize("flag", ["--rates", "--trace"])
def test_where_nothing_fits_a_replica_nothing_is_played(run, tmp_path, mode, flag):
    file = tmp_path / "long"
    file.write_text(
        HEAD + "0,2,9000000,100\n"
        if flag == "--rates"
        else '{"timestamp": 0, "input_length": 900000, "output_length": 60}\n'
    )
    code, out, err = run(flag, file, "--scalers", "static", "--mode", mode)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"headrace: {file}: no request fits in a replica's KV cache of 438,880 tokens; "
        "take another --profile"
    )


def test_lengths_beside_a_trace_that_has_its_own_are_refused(run, tmp_path):
    file = tmp_path / "trace.jsonl"
    file.write_text('{"timestamp": 0, "input_length": 800, "output_length": 60}')
    code, out, err = run("--trace", file, "--lengths", "lognormal:cv=1")
    assert (code, out) == (2, "")
    assert "--lengths lognormal:cv=1 is for --rates; a trace has its own, so leave it out" in err
    code, _, err = run("--trace", file, "--scalers", "static", "--json")
    assert code == 0
    assert "1 request in" in err
    assert "1 run in" in err


@pytest.mark.parametrize("mode", ["fluid", "events"])
def test_rates_so_low_that_nothing_arrives_are_refused(run, rates, mode):
    rates.write_text(HEAD + "0,1e-12,500,200\n600,1e-12,500,200\n")
    code, out, err = run("--rates", rates, "--mode", mode)
    assert (code, out) == (2, "")
    assert err == f"headrace: {rates}: no request arrives; give a higher --rate-scale\n"


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ("1e-9", "{trace}: no request arrives; give a higher --rate-scale"),
        (
            "1e12",
            (
                "--rate-scale 1e+12: {trace} has 1e+12 requests then, and 5,000,000 copies can be "
                "made; give a lower one"
            ),
        ),
    ],
)
def test_a_scale_that_leaves_nothing_of_a_trace_or_more_than_fits_is_refused(
    run, tmp_path, scale, said
):
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 10, "output_length": 1}\n')
    code, out, err = run("--trace", trace, "--rate-scale", scale)
    assert (code, out, err) == (2, "", f"headrace: {said.format(trace=trace)}\n")


@pytest.mark.parametrize("scale", ["1e9", "1e308"])
def test_rates_beyond_what_can_be_played_are_refused(run, rates, scale):
    code, out, err = run("--rates", rates, "--rate-scale", scale)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "requests/s then, and 1e+07 can be played; give a lower one" in line


def test_a_file_that_is_no_rates_is_named_with_its_line(run, tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text(HEAD + "0,x,1,1\n")
    code, out, err = run("--rates", file)
    assert (code, out) == (2, "")
    assert err == f"headrace: {file}:2: expected requests_per_s to be a number, found 'x'\n"


def test_simulate_itself_needs_a_trace_or_traffic_as_before(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["simulate"])
    assert ended.value.code == 2
    assert "one of the arguments --trace --traffic is required" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag", [("--slo", "ttft=9s"), ("--seed", 4), ("--json",), ("--replicas", 3), ("--sweep",)]
)
def test_a_flag_before_scaling_is_refused(capsys, rates, flag):
    """It would be a flag of `headrace simulate`, whose value nobody reads here."""
    code, out, err = runner(capsys, "simulate")(*flag, "scaling", "--rates", rates, *FEW)
    assert (code, out) == (2, "")
    assert f"{flag[0]} before scaling would not be read" in err
