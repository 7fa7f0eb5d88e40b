"""Line resistances of a crossbar, and which lines float.

`WiresConfig` holds the resistances of the circuit that the documentation page on the circuit
draws; `Lines` the masks of floating lines, checked against an array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rramsim.checks import InputError, check_array
from rramsim.config import check_settings, setting
from rramsim.kernels.nodal import Wires
from rramsim.kernels.nodal_line import Drops

_SEGMENT = (0.0, 1e6)  # [ohm] magnitudes met in practice, and in studies of limits


ALPHA_V_MAX = 40.0  # alpha times voltage up to which the solvers are tested; sinh(40) is 1.2e17


@dataclass(frozen=True, kw_only=True)
class WiresConfig:
    """Resistances around the cells of one crossbar; zero resistance merges nodes exactly.

    Examples
    --------
    >>> wires = WiresConfig(r_word=2.5, r_bit=2.5)  # [ohm] per segment
    >>> wires.ideal, WiresConfig().ideal
    (False, True)
    """

    r_word: float = setting(0.0, "ohm", "resistance of one word-line segment", "[0, inf)", usual=_SEGMENT)
    r_bit: float = setting(0.0, "ohm", "resistance of one bit-line segment", "[0, inf)", usual=_SEGMENT)
    r_driver: float = setting(
        0.0, "ohm", "output resistance of a word line's driver", "[0, inf)", usual=_SEGMENT
    )
    r_sense: float = setting(
        0.0, "ohm", "input resistance of a bit line's sense amplifier", "[0, inf)", usual=_SEGMENT
    )
    r_access: float = setting(
        0.0, "ohm", "access transistor in series with each cell, switched on", "[0, inf)", usual=_SEGMENT
    )
    alpha: float = setting(0.0, "1/V", "cell law I = G sinh(alpha V) / alpha; 0 for linear cells", "[0, inf)")
    word_both: bool = setting(False, "", "word lines driven from both ends")
    bit_both: bool = setting(False, "", "bit lines grounded at both ends")

    def __post_init__(self) -> None:
        for name in ("word_both", "bit_both"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise InputError(f"{name} must be true or false, got {getattr(self, name)!r}")
        check_settings(self)
        for name in ("r_word", "r_bit", "r_driver", "r_sense", "r_access", "alpha"):
            value, unit = getattr(self, name), "1/V" if name == "alpha" else "ohm"
            if 0.0 < value < 1e-9:
                raise InputError(
                    f"{name} must be 0 or at least 1e-9 {unit}, got {value:g}; 0 merges the nodes exactly"
                )

    @property
    def ideal(self) -> bool:
        """Whether every line is at its source's or ground's voltage throughout."""
        return self.r_word == self.r_bit == self.r_driver == self.r_sense == 0.0

    def conductances(self, float_word: NDArray[np.bool_], float_bit: NDArray[np.bool_], dtype: type) -> Wires:
        """Segment conductances; a floating line has none to its driver or ground."""

        def line_end(r_segment: float, r_end: float, floating: NDArray[np.bool_]) -> NDArray[np.floating]:
            total = r_segment + r_end
            value = 1.0 / total if total > 0.0 else 0.0
            return np.where(floating, 0.0, value).astype(dtype)

        left = line_end(self.r_word, self.r_driver, float_word)
        bottom = line_end(self.r_bit, self.r_sense, float_bit)
        return Wires(
            word=dtype(1.0 / self.r_word if self.r_word else 0.0),
            bit=dtype(1.0 / self.r_bit if self.r_bit else 0.0),
            left=left,
            right=left,
            bottom=bottom,
            top=bottom,
        )

    def drops(self, *, access: bool = True) -> Drops:
        """The resistances as plain numbers for kernels; without the access transistors if so asked."""
        return Drops(
            r_word=float(self.r_word),
            r_driver=float(self.r_driver),
            r_bit=float(self.r_bit),
            r_sense=float(self.r_sense),
            r_access=float(self.r_access) if access else 0.0,
            word_both=bool(self.word_both),
            bit_both=bool(self.bit_both),
        )


class Lines:
    """Which lines float; checked against the array."""

    def __init__(
        self, g: NDArray[np.float64], float_word: ArrayLike | None, float_bit: ArrayLike | None
    ) -> None:
        n_wl, n_bl = g.shape
        self.word = self._mask(float_word, "float_word", n_wl)
        self.bit = self._mask(float_bit, "float_bit", n_bl)
        self.any = bool(self.word.any() or self.bit.any())
        if self.any:
            self.check_anchored(g)

    @staticmethod
    def _mask(mask: ArrayLike | None, name: str, n: int) -> NDArray[np.bool_]:
        if mask is None:
            return np.zeros(n, dtype=bool)
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != (n,):
            raise InputError(
                f"{name} must be a boolean mask of shape ({n},), got {array.dtype} {array.shape}"
            )
        return array.copy()

    def check_anchored(self, g: NDArray[np.float64]) -> None:
        """Every floating line must reach a driver or a ground through cells."""
        if self.word.all() and self.bit.all():
            raise InputError("all lines float: at least one line must be driven or grounded")
        closed = g > 0.0
        word, bit = ~self.word, ~self.bit
        while True:
            more_bit = bit | closed[word].any(axis=0)
            more_word = word | closed[:, more_bit].any(axis=1)
            if (more_word == word).all() and (more_bit == bit).all():
                break
            word, bit = more_word, more_bit
        for reached, name in ((word, "word"), (bit, "bit")):
            if not reached.all():
                line = int(np.flatnonzero(~reached)[0])
                raise InputError(
                    f"floating {name} line {line} has no path to a driver or a ground: its voltage is "
                    f"undefined; every floating line needs a cell with g > 0 S towards one"
                )


def check_conductance(
    g: ArrayLike, name: str = "g", shape: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    array = check_array(
        g,
        name,
        shape=shape or (None, None),
        minimum=0.0,
        unit="S",
        hint="a cell's conductance, 0 for an open cell",
    )
    if array.size == 0:
        raise InputError(f"{name} must hold at least one cell, got shape {array.shape}")
    return array


def check_inputs(v_in: ArrayLike, n_wl: int, lines: Lines) -> NDArray[np.float64]:
    """Input vectors [V] of shape (n_batch, n_wl), 0 V on floating word lines."""
    v = check_array(v_in, "v_in", shape=(None, n_wl), unit="V", hint="one row per input vector")
    if lines.word.any() and v[:, lines.word].any():
        line = int(np.flatnonzero(lines.word & v.any(axis=0))[0])
        raise InputError(f"v_in of floating word lines must be 0 V, got another voltage on line {line}")
    return v


def check_drive(v_in: NDArray[np.float64], alpha: float) -> None:
    """Inputs [V] that the law sinh(alpha V) turns into numbers of sense; `InputError` beyond."""
    largest = float(np.abs(v_in).max(initial=0.0))
    if alpha * largest > ALPHA_V_MAX:
        raise InputError(
            f"alpha times the largest input voltage must not exceed {ALPHA_V_MAX:g}, got {alpha * largest:g} "
            f"(alpha={alpha:g} 1/V, {largest:g} V): a cell would draw {ALPHA_V_MAX:g} e-folds more than a "
            "linear one; published cells have alpha of 1 to 20 1/V; were millivolts meant?"
        )
