"""`python -m benchmarks all`: the suite of `benchmarks.suite`, in one thread."""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from benchmarks.suite import main  # noqa: E402

main()
