"""Where and with what a report was made."""

from __future__ import annotations

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path

_PACKAGES = ("lowprec", "numpy", "ml_dtypes", "numba", "scikit-learn", "matplotlib")


def facts() -> list[tuple[str, str]]:
    """Return the date, the machine and the versions, as terms and facts."""
    versions = [f"{name} {metadata.version(name)}" for name in _PACKAGES]
    now = datetime.datetime.now().astimezone()
    return [
        ("written", now.strftime("%Y-%m-%d %H:%M %Z")),
        ("machine", f"{processor()}, {os.cpu_count()} logical processors"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("with", ", ".join([*versions, f"Python {platform.python_version()}"])),
    ]


def processor() -> str:
    """Return the processor's name as Linux knows it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
