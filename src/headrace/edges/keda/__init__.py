"""KEDA's external scaler protocol: what KEDA asks over gRPC, answered from a scaler's plans."""

import os

# Read when gRPC is loaded, which happens only below. This process starts others, and never goes on
# in a fork of itself: without these lines gRPC says so with each process, on the terminal.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
