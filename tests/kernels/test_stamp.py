"""An edit of one kernel file reaches the compiled functions of the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import rramsim.kernels.stamp

INNER = "from numba import njit\n\n@njit(cache=True)\ndef step(x):\n    return x + {}\n"
OUTER = (
    "from numba import njit\nfrom rramsim.kernels.inner import step\n\n"
    "@njit(cache=True)\ndef twice(x):\n    return step(step(x))\n"
)
CALL = (
    "from rramsim.kernels.outer import twice\n"
    "result = twice(0)\n"
    "print(result, sum(twice.stats.cache_hits.values()))\n"
)


def run(folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT")}
    result = subprocess.run(
        [sys.executable, "-c", CALL], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_an_edit_of_an_inlined_kernel_takes_effect(tmp_path: Path) -> None:
    kernels = tmp_path / "rramsim" / "kernels"
    kernels.mkdir(parents=True)
    (tmp_path / "rramsim" / "__init__.py").write_text("")
    source = Path(rramsim.kernels.stamp.__file__).parent
    for name in ("__init__.py", "stamp.py"):
        shutil.copy(source / name, kernels / name)
    (kernels / "inner.py").write_text(INNER.format(1))
    (kernels / "outer.py").write_text(OUTER)
    assert run(tmp_path) == "2 0"  # compiled
    assert run(tmp_path) == "2 1"  # taken from the cache
    (kernels / "inner.py").write_text(INNER.format(10))
    assert run(tmp_path) == "20 0"  # `outer` is unchanged, yet compiled anew
    assert run(tmp_path) == "20 1"


def test_stamp_depends_on_names_and_contents(tmp_path: Path) -> None:
    stamp = rramsim.kernels.stamp.source_stamp
    (tmp_path / "a.py").write_text("x = 1")
    first = stamp(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    second = stamp(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, stamp(tmp_path)}) == 3
    (tmp_path / "notes.txt").write_text("not a source")
    (tmp_path / "b.py").rename(tmp_path / "a.py")
    assert stamp(tmp_path) == second
