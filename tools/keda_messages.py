"""Makes the Python messages of KEDA's protocol from their .proto: `python -m tools.keda_messages`.

Needs grpcio-tools, which the environment of `make test` has.
"""

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "src" / "headrace" / "edges" / "keda" / "messages"
PROTO = "externalscaler.proto"
MADE = ("externalscaler_pb2.py", "externalscaler_pb2.pyi")


def generated() -> dict[str, str]:
    """The files by name, as the compiler makes them now."""
    from grpc_tools import protoc  # noqa: PLC0415 - a tool's tool

    with tempfile.TemporaryDirectory() as folder:
        status = protoc.main(
            ["protoc", f"-I{FOLDER}", f"--python_out={folder}", f"--pyi_out={folder}", PROTO]
        )
        if status:
            sys.exit(f"protoc ended with {status}")
        return {name: (Path(folder) / name).read_text("utf-8") for name in MADE}


def main() -> None:
    """Write them beside the .proto."""
    for name, text in generated().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
