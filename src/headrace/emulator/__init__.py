"""An emulated engine: vLLM's API and metrics over HTTP, timed by whatever stands behind its port.

For tests, benchmarks and machines without a GPU. Program: see `engine.EmulatedEngine`.
"""
