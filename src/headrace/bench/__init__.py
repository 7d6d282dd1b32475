"""Measures an OpenAI-compatible endpoint by the token.

It sends what `traffic` says, at the times it says, and keeps a record of each request. It imports
neither the gateway nor the emulator: what it measures is on the other side of a socket.
"""
