"""What this machine computes with, in one line, for a profile that was measured on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from headrace.gateway.control import is_loopback

_NVIDIA_TIMEOUT_S = 5.0


def machine_of(url: str) -> str:
    """GPUs if there are some, else the CPU; empty where the engine runs on another machine."""
    host = urlsplit(url).hostname or ""
    if not is_loopback(host):
        return ""
    return _gpus() or _cpu()


def _gpus() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        told = subprocess.run(  # noqa: S603 - a program of the system with fixed arguments
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            check=True,
            text=True,
            timeout=_NVIDIA_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    names = Counter(line.strip() for line in told.stdout.splitlines() if line.strip())
    return ", ".join(f"{count} × {name}" for name, count in names.items())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(models, "") or platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count() or 1} CPUs, {platform.system()}"
