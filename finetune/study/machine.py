"""What may change bits between two machines, or between two installations of one."""

from __future__ import annotations

import contextlib
import importlib.metadata as metadata
import json
import platform
from typing import Any

__all__ = ["differences", "versions"]

PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "h5py")
NO_BITS = ("python", "rramsim", "h5py")  # rramsim's own version is compared apart


def versions() -> str:
    """Versions, BLAS libraries with their kernels, and the processor that Numba compiles for, as JSON."""
    import llvmlite.binding as llvm
    import numba
    import scipy.linalg  # noqa: F401  its BLAS shall be among those found
    import threadpoolctl

    import rramsim

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "rramsim": rramsim.__version__,  # not the installation's metadata, which a checkout outgrows
    }
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    libraries = {
        " ".join(str(pool.get(key)) for key in ("internal_api", "version", "architecture"))
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    }
    found["blas"] = sorted(libraries)
    found["threads"] = 1  # of each worker, for BLAS and Numba
    config: Any = numba.config
    found["cpu"] = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES
    if features is None:
        features = ",".join(
            f"+{name}" for name, there in sorted(llvm.get_host_cpu_features().items()) if there
        )
    found["cpu_features"] = features
    return json.dumps(found, sort_keys=True)


def differences(mine: str, theirs: str) -> list[str]:
    """What differs between two answers of `versions` and may change bits, in words."""
    a, b = json.loads(mine), json.loads(theirs)
    shared = [name for name in a if name in b and name not in NO_BITS]
    unlike = [name for name in shared if a[name] != b[name]]
    return [f"{name} {_brief(b[name])} there, {_brief(a[name])} here" for name in unlike]


def _brief(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
