"""The small version of `benchmarks.device_fit`: intervals hold what the cells were made with."""

from benchmarks.device_fit import coverage


def test_intervals_hold_the_true_values():
    """Seeds 0 to 11. Some 60 intervals of coverage 95 %: fewer than 80 % happens once in a million sets."""
    for name, (share, n) in coverage(12).items():
        assert share >= (0.8 if n > 30 else 0.7), name
