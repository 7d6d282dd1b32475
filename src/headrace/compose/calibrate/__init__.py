"""`headrace calibrate`: measures an engine, shows and writes its latency profile."""
