"""The cell from its definition: plain Python, one cell at a time, no kernel imported."""

import math

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def normal(key, a, b):
    """Standard normal number of (key, a, b)."""
    x = mix((key + GOLDEN * (a + 1)) & MASK)
    bits = mix((x + GOLDEN * (b + 1)) & MASK)
    radius = math.sqrt(-2.0 * math.log(((bits >> 11) + 0.5) / 2**53))
    return radius * math.cos(2.0 * math.pi * (mix(bits ^ GOLDEN) >> 11) / 2**53)


def deviate(fraction, key_fixed, key_fresh, cell, count):
    """e = sqrt(f) e_cell + sqrt(1 - f) e_write."""
    return math.sqrt(fraction) * normal(key_fixed, cell, 0) + math.sqrt(1.0 - fraction) * normal(
        key_fresh, cell, count
    )


def write_verify(g, target, pulses, key_pulse, key_gain, cell, count):
    """Final conductance, pulses spent, accepted?"""
    gain = pulses.gain * math.exp(pulses.sigma_gain * normal(key_gain, cell, 0))
    spent = 0
    while abs(target - g) > pulses.window:
        if spent == pulses.n_pulses_max:
            return g, spent, False
        step = gain * (target - g)
        spread = pulses.scatter * abs(step) + pulses.scatter_floor
        g = max(g + step + spread * normal(key_pulse, cell, count * 65536 + spent), 0.0)
        spent += 1
    return g, spent, True


def power_law_left(
    seconds, v, n, c1=0.0068, a=0.11, temperature=300.0, t0=15.5e-9, b=1.43339, k=0.003, m=0.41
):
    """G(t)/G0 of the power law, as published."""
    thermal = 1.380649e-23 * temperature / 1.602176634e-19
    p = c1 * math.exp(a * v / thermal)
    onset = t0 * (b * (1.0 - k * n**m)) ** (1.0 / p)
    return (1.0 if seconds < onset else (seconds / onset) ** -p), onset, p
