"""A file of results is there whole or as it was."""

from __future__ import annotations

import os

import pytest

from headrace.compose.process.result_file import writing


class Refused(Exception):
    pass


def test_a_file_is_replaced_once_all_is_written(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    path.chmod(0o640)
    with writing(path, Refused) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_halfway_leaves_the_file_as_it_was(tmp_path, error):
    path = tmp_path / "page.html"
    path.write_text("old")

    def write():
        with writing(path, Refused) as draft:
            draft.write_text("ne")
            raise error

    with pytest.raises(Refused if isinstance(error, OSError) else KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_still_points_to_the_file(tmp_path):
    path, link = tmp_path / "page.html", tmp_path / "latest"
    link.symlink_to(path.name)
    with writing(link, Refused) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with writing(pipe, Refused) as draft:
            draft.write_text("new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_link_in_a_circle_is_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with (
        pytest.raises(Refused, match="cannot write: Too many levels"),
        writing(link, Refused) as draft,
    ):
        draft.write_text("new")
    assert link.is_symlink()
