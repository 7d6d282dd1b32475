"""The configuration file: the only place where files and environment become settings.

    parse (document) ─► bind (binding, by shapes) ─► check (checks) ─► Loaded

`schema` composes the file out of the settings dataclasses that live beside what they configure.
"""
