"""Every Numba kernel: numbers and arrays in, arrays out; imports only math, numpy and numba."""

from pathlib import Path

from rramsim.kernels.stamp import share_stamp

share_stamp(Path(__file__).parent)
