"""Counter-based random numbers: a draw depends on its key and two counters, never on call order.

The mixing function is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014,
doi 10.1145/2660193.2660195, "variant 13" constants), applied once per counter.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@njit(cache=True, inline="always")
def mix64(x):
    """SplitMix64 finaliser: a bijection of uint64 in which every input bit flips half the output."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


@njit(cache=True, inline="always")
def hash64(key, a, b):
    """64 random bits for (key, a, b); all three are cast to uint64."""
    x = mix64(np.uint64(key) + _GOLDEN * (np.uint64(a) + np.uint64(1)))
    return mix64(x + _GOLDEN * (np.uint64(b) + np.uint64(1)))


@njit(cache=True, inline="always")
def uniform_at(key, a, b):
    """Uniform number in the open interval (0, 1), 53 bits."""
    return (np.float64(hash64(key, a, b) >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@njit(cache=True, inline="always")
def normal_at(key, a, b):
    """Standard normal number (Box-Muller; its partner is not used, so draws stay independent)."""
    bits = hash64(key, a, b)
    radius = math.sqrt(
        -2.0 * math.log((np.float64(bits >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0))
    )
    other = mix64(bits ^ _GOLDEN)
    angle = (2.0 * math.pi / 9007199254740992.0) * np.float64(other >> np.uint64(11))
    return radius * math.cos(angle)
