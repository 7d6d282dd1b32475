"""What pools and tiers may be called: their names are in metrics, headers and flags."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_RULE = "use at most 63 letters, digits or . _ - and begin with a letter or digit"
