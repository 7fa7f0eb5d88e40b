"""The machine a benchmark ran on, for the head of its table and its JSON file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

__all__ = ["machine", "machine_line"]

PACKAGES = ("numpy", "numba", "scipy", "onnxruntime")


def machine() -> dict[str, str]:
    """Processor, its widest vectors, and versions that matter for speed."""
    processor, vectors = platform.processor() or platform.machine(), "unknown vectors"
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = dict(
            (part.strip() for part in line.split(":", 1))
            for line in information.read_text().splitlines()
            if ":" in line
        )
        processor = lines.get("model name", processor)
        flags = lines.get("flags", "").split()
        vectors = next((name for name in ("avx512f", "avx2", "avx") if name in flags), vectors)
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "processor": processor,
        "vectors": vectors,
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        **versions,
    }


def machine_line() -> str:
    """`machine` as one line."""
    found = machine()
    packages = ", ".join(f"{name} {found[name]}" for name in ("python", *PACKAGES))
    return f"{found['processor']} ({found['vectors']}, {found['cpus']} processors), {packages}"
