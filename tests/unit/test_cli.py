"""The command line: exit codes, one clear line on stderr, JSON where it reports."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace import cli
from headrace.cli import parser
from headrace.core.policies import POLICIES
from headrace.gateway.keys import KeyRing
from tests.commands import runner

GOOD = "pools:\n  - {name: main, model: llama, replicas: [http://10.0.0.1:8000]}\n"


@pytest.fixture
def run(capsys):
    return runner(capsys)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "headrace.yaml"
    file.write_text(GOOD)
    return file


def test_version(run):
    assert run("--version") == (0, f"headrace {headrace.__version__}\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line(tmp_path):
    command = [sys.executable, "-m", "headrace", "check", "--schema"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "headrace: cannot write the output: No space left on device\n"


def test_what_each_command_does_stands_beside_its_name(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    listed = parser().format_help().partition("  COMMAND\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) >= 10
    assert all(len(line.split("  ")) >= 4 for line in listed), listed


def test_what_was_said_before_another_disk_was_full_is_not_lost():
    script = """
import errno, headrace.cli as cli
def run(options):
    print("a report")
    raise OSError(errno.ENOSPC, "No space left on device")
cli.add_check = lambda commands: commands.add_parser("check").set_defaults(run=run)
raise SystemExit(cli.main(["check"]))
"""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environ
    )
    assert (done.returncode, done.stdout) == (1, "a report\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: COMMAND; see `headrace --help`"),
        (
            ("up", "--replicaz", "3"),
            "arguments: --replicaz 3; did you mean --replicas?; see `headrace up --help`",
        ),
        (("check", "a", "b"), "unrecognized arguments: b; see `headrace check --help`"),
        (("simulat",), "no command 'simulat', did you mean 'simulate'? known: up, serve, "),
        (("keys", "old"), "no command 'old'; known: new; see `headrace keys --help`"),
        (("simulate", "--trafic", "agentic"), ": --trafic; did you mean --traffic?; see"),
        (("simulate", "--trafic=agentic"), ": --trafic=agentic; did you mean --traffic?; see"),
        (("simulate", "scaling", "--ratez", "x"), ": --ratez; did you mean --rates?; see"),
        (("serve", "--confg", "x"), ": --confg; did you mean --config?; see"),
        (("up", "--replicas", "0"), "--replicas: '0' is not a whole number from 1 to 64"),
        (("up", "--replicas", "x"), "--replicas: 'x' is not a whole number from 1 to 64"),
        (("up", "--port", "70000"), "--port: '70000' is not a whole number from 0 to 65,535"),
        (("up", "--context", "1"), "--context: '1' is not a whole number from 256 to"),
        (("up", "--policy", "least"), "--policy: unknown policy 'least'"),
        (("up", "--policy", "dynamo_kv:x=1"), "policy 'dynamo_kv': unknown parameter 'x'; known: "),
        (("why", "--control", "foo"), "--control: 'foo' is not a URL; write it as http://host:po"),
        (("keys", "new", "me"), "required: --file; see `headrace keys new --help`"),
        (("up", "--max-tokens", "9"), "--max-tokens is about the answer to --prompt; give a promp"),
        (("engine", "--model", "a\udcff"), "--model: 'a\\udcff' is not UTF-8 text"),
        (("engine", "--model", " "), "--model: ' ' is no name; give one, or leave the flag out"),
        (
            ("calibrate", "http://x", "--check", "h100-llama-3.1-8b", "-o", "x.yaml"),
            "--output is of a profile that is written, and --check writes none",
        ),
        (
            ("simulate", "--traffic", "agentic:rate=2", "--duration", "0.01"),
            "--duration 0.01: no request of --traffic agentic:rate=2 arrives so soon; give a lon",
        ),
    ],
)
def test_what_is_wrong_with_the_flags_is_one_line(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("headrace: ")
    assert said in line


@pytest.mark.parametrize("policy", list(POLICIES))
def test_up_takes_every_policy_there_is(policy):
    assert parser().parse_args(["up", "--policy", policy]).policy == policy


class TestCheck:
    def test_prints_every_default(self, run, config):
        code, out, err = run("check", config)
        assert (code, err) == (0, "")
        assert "max_body: 64MiB" in out
        assert "drain: 30s" in out

    def test_as_json(self, run, config):
        code, out, _ = run("check", config, "--json")
        assert code == 0
        assert json.loads(out)["limits"]["max_body"] == 64 << 20

    def test_mistakes(self, run, config):
        config.write_text(GOOD + "grase: 1s\ndrain: x\n")
        code, out, err = run("check", config)
        assert (code, out) == (2, "")
        first, second = err.splitlines()
        assert first == (
            f"headrace: {config}: line 3: grase: unknown key (its value is '1s'); "
            "did you mean `grace`?"
        )
        assert second.startswith(f"headrace: {config}: line 4: drain: is 'x'; expected a duration")

    def test_mistakes_as_json(self, run, config):
        config.write_text(GOOD + "grase: 1s\n")
        code, out, _ = run("check", config, "--json")
        assert code == 2
        (problem,) = json.loads(out)["problems"]
        assert (problem["line"], problem["path"]) == (3, "grase")

    def test_warnings_go_to_stderr(self, run, config, tmp_path):
        run("keys", "new", "alice", "--file", tmp_path / "keys")
        (tmp_path / "keys").chmod(0o644)
        config.write_text(GOOD + "api_keys_file: keys\n")
        code, out, err = run("check", config)
        assert code == 0
        assert "warning" in err
        assert "# 1 API keys: ***" in out

    def test_exposure_needs_a_word(self, run, config):
        config.write_text(GOOD + "listen: {host: 0.0.0.0}\n")
        assert run("check", config)[0] == 2
        assert run("check", config, "--insecure")[0] == 0
        assert run("serve", "-c", config)[0] == 2

    def test_the_schema(self, run):
        code, out, _ = run("check", "--schema")
        assert code == 0
        assert json.loads(out)["title"] == "headrace.yaml"

    def test_a_file_or_the_schema(self, run):
        code, _, err = run("check")
        assert code == 2
        assert "FILE" in err


class TestKeys:
    def test_shown_once_and_stored_as_a_hash(self, run, tmp_path):
        file = tmp_path / "keys"
        code, out, err = run("keys", "new", "alice", "--file", file)
        assert code == 0
        assert "shown once" in err
        assert "SIGHUP" in err
        assert KeyRing.load(file).identify(out.strip().encode()) == "alice"
        assert out.strip() not in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_a_second_key_of_one_owner_is_told(self, run, tmp_path):
        file = tmp_path / "keys"
        assert "warning" not in run("keys", "new", "alice", "--file", file)[2]
        assert "warning" not in run("keys", "new", "ali", "--file", file)[2]
        code, _, err = run("keys", "new", "alice", "--file", file)
        assert code == 0
        assert "alice has 2 keys" in err

    def test_as_json(self, run, tmp_path):
        _, out, _ = run("keys", "new", "alice", "--file", tmp_path / "keys", "--json")
        assert json.loads(out)["name"] == "alice"

    def test_what_cannot_be(self, run, tmp_path):
        assert run("keys", "new", "a b", "--file", tmp_path / "keys")[0] == 2
        code, _, err = run("keys", "new", "alice", "--file", tmp_path / "no" / "keys")
        assert code == 2
        assert "No such file" in err


class TestWhy:
    def test_nobody_listens(self, run):
        code, _, err = run("why", "x", "--control", "http://127.0.0.1:9")
        assert code == 1
        assert "cannot reach the control plane at http://127.0.0.1:9" in err


def test_a_gguf_that_is_not_there(run, tmp_path):
    code, _, err = run("up", "--model", tmp_path / "no.gguf", "--port", "0", "--control-port", "0")
    assert code == 2
    assert "no.gguf does not exist" in err


def test_a_model_that_is_no_gguf(run, config):
    code, _, err = run("up", "--model", config)
    assert code == 2
    assert f"{config} is not a GGUF file" in err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"), [("check --schema", 0), ("check {}", 0), ("check no-such-file", 2)]
)
def test_a_closed_stream_is_as_if_it_led_nowhere(config, arguments: str, code: int, closed: str):
    command = f"{sys.executable} -m headrace {arguments.format(config)} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    told = code == 0 and ">&-" not in closed.replace("2>&-", "")
    assert bool(done.stdout) == told
    assert bool(done.stderr) == (code == 2 and "2>&-" not in closed)


def test_no_file_gets_the_number_of_a_closed_stream():
    """Else what a library writes to its stderr would be in a client's connection."""
    script = """
import os, sys
from headrace.cli.standard_streams import open_closed_streams
open_closed_streams()
raise SystemExit(os.open(os.devnull, os.O_RDONLY))
"""
    command = [sys.executable, "-c", script]
    shell = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", shell, "sh", *command], check=False)
    assert done.returncode > 2


def test_ctrl_c_while_flags_are_read_is_no_traceback(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert cli.main([]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_while_the_command_is_loaded_is_no_traceback():
    script = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'headrace.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import runpy\n"
        "runpy.run_module('headrace', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
