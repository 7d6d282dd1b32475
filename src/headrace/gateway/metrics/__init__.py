"""The parts telemetry is made of: histograms, windows, token counters and their exposition."""
