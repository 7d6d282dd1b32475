"""The gateway program: drives the core with what arrives on its two listeners.

The data plane relays bytes; the control plane shows and explains. They share one event loop
and nothing of the control plane can be reached on the data plane's port.
"""
