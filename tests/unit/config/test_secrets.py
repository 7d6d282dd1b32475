"""Secrets are read where the configuration points, and never shown."""

import pytest

from headrace.config.document import ConfigError
from headrace.config.load import load
from headrace.config.render import as_json, as_yaml

SECRET = "sk-verysecret-123"


def pool(extra=""):
    return f"pools:\n  - {{name: main, model: llama, replicas: [http://10.0.0.1:8000]{extra}}}\n"


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "headrace.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_from_the_environment_and_from_files(file, tmp_path):
    (tmp_path / "token").write_text(f"{SECRET}-control\n")
    loaded = load(
        file(pool(", api_key_env: KEY") + "control: {token_file: token}\n"), {"KEY": SECRET}
    )
    assert loaded.secrets.upstream == {"main": SECRET}
    assert loaded.secrets.control_token == f"{SECRET}-control"


def test_never_printed(file, tmp_path):
    (tmp_path / "token").write_text(SECRET)
    loaded = load(
        file(pool(", api_key_env: KEY") + "control: {token_file: token}\n"), {"KEY": SECRET}
    )
    for text in (as_yaml(loaded), as_json(loaded), repr(loaded), repr(loaded.secrets)):
        assert SECRET not in text
    assert "# key of the engines of pool main: ***" in as_yaml(loaded)


@pytest.mark.parametrize(
    "text",
    [
        pool(f", api_key: {SECRET}"),
        pool(f", api_key_env: {SECRET}"),
        pool(f", api_key_env: {SECRET.replace('-', '_')}"),
        pool(f", api_key_env: [{SECRET}]"),
        pool() + f"control: {{token: {SECRET}}}\n",
        pool() + f"password: {SECRET}\n",
        pool(f", apikey: {SECRET}"),
        pool(f", keys: {SECRET}"),
        pool(f", bearer_token: {SECRET}"),
        pool().replace("http://", f"http://user:{SECRET}@"),
        pool().replace("[http://10.0.0.1:8000]", f"http://user:{SECRET}@h:1"),
    ],
)
def test_not_even_in_errors(file, text):
    with pytest.raises(ConfigError) as caught:
        load(file(text), {})
    assert SECRET not in str(caught.value)
    assert SECRET.replace("-", "_") not in str(caught.value)


PROMETHEUS = f"scaling: {{pools: {{main: {{}}}}, history: {{prometheus: 'http://u:{SECRET}@p:1'}}}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pool(f", api_key_file: {SECRET}"), "names a file, which cannot be read"),
        (pool() + f"control: {{token_file: {SECRET}}}", "names a file, which cannot be read"),
        (pool(f", api_key_file: e30.eyJzdWIiOiIxIn0.{SECRET}"), "names a file, which cannot"),
        (pool() + f"control: {{token_file: c2VjcmV0/{SECRET}+k=}}", "names a file, which cannot"),
        (pool() + f"api_keys_file: hr-0123456789ab-{SECRET}", "there is no such file"),
        (pool() + PROMETHEUS, "holds credentials"),
    ],
)
def test_what_stands_in_the_place_of_its_file_stays_unsaid(file, text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load(file(text), {})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "named", ["/run/secrets/engine-token", "./secrets/engine-token", "secrets/engine-token.txt"]
)
def test_what_is_plainly_a_path_is_named(file, named):
    with pytest.raises(ConfigError, match=f"is '{named}', which cannot be read"):
        load(file(pool(f", api_key_file: {named}")), {})


@pytest.mark.parametrize("value", ["", "two words", "ünï", "line\nbreak"])
def test_what_cannot_be_a_header_is_refused(file, value):
    with pytest.raises(ConfigError, match="one word of printable ASCII"):
        load(file(pool(", api_key_env: KEY")), {"KEY": value})


def test_what_is_not_there_is_named(file):
    with pytest.raises(ConfigError) as caught:
        load(file(pool(", api_key_env: KEY") + "control: {token_file: no/such}\n"), {})
    text = str(caught.value)
    assert "pools[0].api_key_env: names the environment variable KEY, which is not set" in text
    assert "control.token_file: is 'no/such', which cannot be read" in text


def test_one_source_is_enough(file):
    with pytest.raises(ConfigError, match="keep one"):
        load(file(pool(", api_key_env: KEY, api_key_file: f")), {"KEY": SECRET})


def test_broken_key_files_are_told_with_the_rest(file, tmp_path):
    (tmp_path / "keys").write_text("alice nonsense\n")
    with pytest.raises(ConfigError) as caught:
        load(file(pool() + "api_keys_file: keys\ngrace: x\n"), {})
    assert "keys:1:" in str(caught.value)
    assert "grace" in str(caught.value)


def test_a_number_of_tokens_is_no_secret(file):
    with pytest.raises(ConfigError) as caught:
        load(file(pool(", media_token: 12, max_token: 64k, pin_token: 1234-5678-9012")), {})
    problems = str(caught.value)
    assert "media_token: unknown key (its value is 12)" in problems
    assert "max_token: unknown key (its value is '64k')" in problems
    assert "pin_token: unknown key (its value is ***)" in problems
