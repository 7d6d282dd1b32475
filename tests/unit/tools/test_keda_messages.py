"""The messages of KEDA's protocol are those that their .proto makes."""

from tools import keda_messages


def test_the_messages_are_fresh():
    generated = keda_messages.generated()
    found = {name: (keda_messages.FOLDER / name).read_text("utf-8") for name in generated}
    assert found == generated, "run: python -m tools.keda_messages"
