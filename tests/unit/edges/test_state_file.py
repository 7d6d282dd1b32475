"""The file in which a scaler keeps what it has learned."""

import errno
import os
from pathlib import Path

import pytest

from headrace.edges import state_file
from headrace.edges.state_file import StateFile, StateFileError


def test_what_was_written_is_read(tmp_path):
    file = StateFile(tmp_path / "state")
    assert file.read() == {}
    file.write({"a": [1]})
    assert file.read() == {"a": [1]}


def test_one_that_has_no_end_is_no_state(monkeypatch):
    monkeypatch.setattr(state_file, "MAX_STATE_BYTES", 1000)
    with pytest.raises(StateFileError, match="/dev/zero cannot be used: it is over 1000 bytes"):
        StateFile(Path("/dev/zero")).read()


def test_on_a_disk_that_is_full_the_old_state_stays_and_nothing_else(tmp_path, monkeypatch):
    file = StateFile(tmp_path / "state")
    file.write({"a": [1]})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateFileError, match="cannot be written: No space left on device"):
        file.write({"a": [2]})
    assert file.read() == {"a": [1]}
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
