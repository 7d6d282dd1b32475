"""Messages on the wire, made from `externalscaler.proto` by `python -m tools.keda_messages`."""
