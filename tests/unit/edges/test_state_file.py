"""The file in which a scaler keeps what it has learned."""

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
