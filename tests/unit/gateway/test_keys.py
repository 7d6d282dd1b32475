"""API keys: only hashes are stored, and only the right key is known."""

import hashlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway import keys as key_files
from headrace.gateway.keys import KeyFileError, KeyRing, add_key, new_key


@pytest.fixture
def ring(tmp_path):
    """A ring with alice's made key and a plain hash of ci's."""
    file = tmp_path / "keys"
    key = add_key(file, "alice")
    digest = hashlib.sha256(b"a-key-from-elsewhere").hexdigest()
    with file.open("a") as stream:
        stream.write(f"\n# comment\nci sha256:{digest}  # plain\n")
    return key.encode(), KeyRing.load(file)


def test_known_keys_give_their_owner(ring):
    key, keys = ring
    assert keys.identify(b"Bearer " + key) == "alice"
    assert keys.identify(b"bearer   " + key + b" ") == "alice"
    assert keys.identify(key) == "alice"  # x-api-key
    assert keys.identify(b"Bearer a-key-from-elsewhere") == "ci"


def test_all_else_gives_nobody(ring):
    key, keys = ring
    changed = key[:-1] + (b"0" if key[-1:] != b"0" else b"1")
    other_id = b"hr-000000000000" + key[15:]
    for presented in (b"", b"Bearer ", changed, other_id, key[:-1], key + b"0", b"Basic " + key):
        assert keys.identify(presented) is None
    assert keys.identify(b"x" * 10_000) is None


def test_more_keys_than_a_file_may_hold_are_refused_with_the_line(tmp_path, monkeypatch):
    monkeypatch.setattr(key_files, "MAX_KEYS", 2)
    file = tmp_path / "keys"
    for name in ("alice", "bob"):
        add_key(file, name)
    assert len(KeyRing.load(file)) == 2
    with file.open("a") as stream:
        stream.write(new_key("carol").line + "\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(KeyFileError, match=f":{line}: more than 2 keys"):
        KeyRing.load(file)


@given(st.binary(max_size=80))
def test_no_bytes_are_a_key_by_chance(presented):
    made = new_key("alice")
    ring = KeyRing()
    ring._add(made.line.split())
    assert ring.identify(presented) is None


def test_the_file_holds_no_key(tmp_path):
    file = tmp_path / "keys"
    keys = [add_key(file, name) for name in ("a", "b", "a")]
    text = file.read_text()
    assert len(text.splitlines()) == 3
    for key in keys:
        assert key not in text
        assert key.rpartition("-")[2] not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [KeyRing.load(file).identify(key.encode()) for key in keys] == ["a", "b", "a"]


def test_a_line_without_an_end_is_not_continued(tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"ci sha256:{'0' * 64}")
    add_key(file, "alice")
    assert len(KeyRing.load(file)) == 2


def test_a_file_of_something_else_stays_as_it_is(tmp_path):
    file = tmp_path / "headrace.yaml"
    file.write_text("pools:\n  - name: a\n")
    with pytest.raises(KeyFileError, match=r"headrace.yaml:1: .* nothing was added: name a file"):
        add_key(file, "alice")
    assert file.read_text() == "pools:\n  - name: a\n"


def test_every_bad_line_is_named_and_none_is_shown(tmp_path):
    file = tmp_path / "keys"
    good = new_key("alice").line
    secret = new_key("bob").key
    file.write_text(
        f"{good}\n{good}\nbob {secret}\nbob\n{secret} sha256:{'0' * 64}x\n"
        f"b/b sha256:{'0' * 64}\nbob 12 sha256:{'0' * 64}\n"
    )
    with pytest.raises(KeyFileError) as caught:
        KeyRing.load(file)
    lines = str(caught.value).splitlines()
    assert [line.partition("keys:")[2].partition(":")[0] for line in lines] == list("234567")
    assert "is in the file twice" in lines[0]
    assert secret not in str(caught.value)


def test_a_file_that_cannot_be_used(tmp_path):
    with pytest.raises(KeyFileError, match="make one: headrace keys new NAME --file"):
        KeyRing.load(tmp_path / "none")
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(KeyFileError, match="headrace keys new"):
        KeyRing.load(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="UTF-8"):
        KeyRing.load(tmp_path / "binary")


def test_a_file_that_everybody_can_read_is_warned_about(tmp_path):
    file = tmp_path / "keys"
    add_key(file, "alice")
    assert KeyRing.load(file).warnings == []
    file.chmod(0o644)
    (warning,) = KeyRing.load(file).warnings
    assert "chmod 600" in warning


@pytest.mark.parametrize("name", ["", "a b", "ä", "-a", "x" * 65, "a\nb"])
def test_names_fit_a_line(tmp_path, name):
    with pytest.raises(ValueError, match="key name"):
        add_key(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()
