"""When the environment is made again, and which uv is taken."""

import re
import tomllib
from pathlib import Path

import pytest

from tools import bootstrap


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose environment was made with the tools for tests."""
    for name in ("pyproject.toml", "uv.lock", "tools/bootstrap.py", ".venv/bin/headrace"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "stamp")
    bootstrap.STAMP.write_text(f"{bootstrap.fingerprint()} dev\n")
    return tmp_path


def test_nothing_is_done_twice(project: Path):
    assert bootstrap.is_current(dev=True)
    assert bootstrap.is_current(dev=False)


def test_what_up_needs_is_not_enough_for_tests(project: Path):
    bootstrap.STAMP.write_text(f"{bootstrap.fingerprint()} run\n")
    assert bootstrap.is_current(dev=False)
    assert not bootstrap.is_current(dev=True)


def test_an_extra_that_is_missing_is_installed_and_stays(project: Path, monkeypatch):
    monkeypatch.setattr(bootstrap, "index_setting", lambda: None)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: str(recording_uv(project)))
    for arguments in (["--extra", "keda"], ["--extra", "otel"], ["--extra", "keda"]):
        monkeypatch.setattr("sys.argv", ["bootstrap", *arguments])
        bootstrap.main()
    first, second = (project / "calls").read_text().splitlines()
    assert "--extra local --extra keda --no-default-groups" in first
    assert "--extra local --extra keda --extra otel --no-default-groups" in second
    assert bootstrap.is_current(dev=False, extras=["keda", "otel"])
    assert not bootstrap.is_current(dev=False, extras=["tokenizer"])
    (project / "uv.lock").write_text("changed")
    monkeypatch.setattr("sys.argv", ["bootstrap"])
    bootstrap.main()
    assert "--extra keda --extra otel" in (project / "calls").read_text().splitlines()[-1]


@pytest.mark.parametrize("name", ["pyproject.toml", "uv.lock", "tools/bootstrap.py"])
def test_a_changed_file_makes_it_again(project: Path, name: str):
    (project / name).write_text("changed")
    assert not bootstrap.is_current(dev=False)


def test_a_half_made_environment_is_made_again(project: Path):
    (project / ".venv" / "bin" / "headrace").unlink()
    assert not bootstrap.is_current(dev=False)


def test_every_pin_is_a_wheel_name_and_a_sha256():
    for tag, sha256 in bootstrap.UV_WHEELS.values():
        assert re.fullmatch(r"[a-z0-9_.]+", tag)
        assert re.fullmatch(r"[0-9a-f]{64}", sha256)


def test_the_pinned_uv_is_new_enough_for_the_project():
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["tool"]["uv"]["required-version"]
    oldest = tuple(map(int, wanted.removeprefix(">=").split(".")))
    assert tuple(map(int, bootstrap.UV_VERSION.split("."))) >= oldest


def fake_uv(folder: Path, code: int) -> str:
    uv = folder / "uv"
    uv.write_text(f"#!/bin/sh\necho ' + package==1.0'\nexit {code}\n")
    uv.chmod(0o755)
    return str(uv)


def test_an_installation_that_works_says_nothing(project: Path, monkeypatch, capfd):
    monkeypatch.setattr(bootstrap, "index_setting", lambda: None)
    bootstrap.install(fake_uv(project, 0), dev=False)
    assert capfd.readouterr() == ("", "")


def test_one_that_fails_shows_what_uv_said(project: Path, monkeypatch, capfd):
    monkeypatch.setattr(bootstrap, "index_setting", lambda: None)
    with pytest.raises(SystemExit, match="uv sync failed as it says above"):
        bootstrap.install(fake_uv(project, 2), dev=False)
    assert "+ package==1.0" in capfd.readouterr().err


def recording_uv(folder: Path) -> Path:
    """A uv that makes an environment where it is told, and writes down how it was called."""
    uv = folder / "uv"
    uv.write_text(
        '#!/bin/sh\necho "$UV_PROJECT_ENVIRONMENT $*" >> "$(dirname "$0")/calls"\n'
        f'[ "$1" = pip ] || {{ mkdir -p {folder}/new/bin; touch {folder}/new/bin/python; }}\n'
    )
    uv.chmod(0o755)
    return uv


@pytest.mark.parametrize("mirror", [None, "https://mirror.example/simple"])
def test_a_wheel_goes_with_all_extras_into_an_environment_of_its_own(
    project: Path, monkeypatch, mirror: str | None
):
    monkeypatch.setattr(bootstrap, "index_setting", lambda: mirror)
    before = (project / ".venv" / "stamp").read_text()
    bootstrap.install_wheel(str(recording_uv(project)), project / "a.whl", project / "new")
    calls = (project / "calls").read_text().splitlines()
    *_, last = calls
    assert "--all-extras --no-default-groups" in calls[0]
    assert f"{project}/a.whl" in last
    assert "--no-deps --reinstall" in last
    assert f"--python {project}/new/bin/python" in last
    assert not any(f"--python {project}/.venv" in call or " -e " in call for call in calls)
    assert all(call.startswith(f"{project}/new ") for call in calls if " sync " in call)
    assert (project / ".venv" / "stamp").read_text() == before


def test_an_environment_of_another_python_is_made_anew(project: Path, monkeypatch):
    monkeypatch.setattr(bootstrap, "index_setting", lambda: None)
    left = project / "new" / "lib" / "left"
    for path in (left, project / "new" / "bin" / "python"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    bootstrap.install_wheel(str(recording_uv(project)), project / "a.whl", project / "new")
    assert not left.exists()
