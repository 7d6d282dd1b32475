"""`headrace engine`: ports that there are."""

import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest

from headrace.compose import engine
from tests.commands import runner

PROFILE = ("--profile", "h100-llama-3.1-8b")


@pytest.fixture
def run(capsys, monkeypatch):
    """The command up to where it would listen."""
    monkeypatch.setattr(engine, "run_loop", lambda serving: serving.close() or 0)
    monkeypatch.setattr(engine, "_publisher", lambda: SimpleNamespace(publish=None))
    return runner(capsys, "engine")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--count", 5, "--port", 65534),
            (
                "--port 65534: 5 engines would take the ports 65534 to 65538, and 65535 is the "
                "last one; give 65531 or less, or 0 for free ones"
            ),
        ),
        (
            ("--count", 5, *PROFILE, "--port", 9000, "--kv-events", 65527),
            (
                "--kv-events 65527: 5 engines would take the ports 65527 to 65536, and 65535 is "
                "the last one; give 65526 or less, or 0 for free ones"
            ),
        ),
        ((*PROFILE, "--kv-events", 65535), "1 engine would take the ports 65535 to 65536, and"),
        (("--count", 70_000, "--port", 1), "ports 1 to 70000, and 65535 is the last one; give 0"),
    ],
)
def test_more_ports_than_there_are_are_refused(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--count", 5, "--port", 65531),
        ("--count", 5, "--port", 0),
        ("--count", 2, *PROFILE, "--port", 65534, "--kv-events", 65532),
        ("--count", 2, *PROFILE, "--kv-events", 0),
    ],
)
def test_the_last_ports_can_be_had(run, arguments):
    assert run(*arguments) == (0, "", "")


def test_more_engines_than_files_may_be_open_is_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "engine", "--count", "200", "--port", "0"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = "cannot listen: Too many open files; raise the limit (ulimit -n), or ask for fewer"
    assert (done.returncode, done.stderr) == (2, f"headrace: {said}\n")
