"""Run ngspice on a netlist and read its binary raw file."""

import shutil
import subprocess

import numpy as np

AVAILABLE = shutil.which("ngspice") is not None


def operating_point(netlist, folder):
    """Values of all vectors of an ``.op`` analysis by lower-case name, at full precision."""
    raw = folder / "result.raw"
    done = subprocess.run(
        ["ngspice", "-b", "-r", str(raw), str(netlist)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert raw.exists(), done.stdout + done.stderr
    data = raw.read_bytes()
    head, body = data.split(b"Binary:\n", 1)
    lines = head.decode().splitlines()
    n = next(int(line.split(":")[1]) for line in lines if line.startswith("No. Variables"))
    first = lines.index("Variables:") + 1
    names = [line.split()[1].lower() for line in lines[first : first + n]]
    return dict(zip(names, np.frombuffer(body, dtype=np.float64, count=n), strict=True))
