"""The circuit from its definition: every resistor by name, nodes merged where there is none.

Slow and plain on purpose; shares no code with the package. `decimal` keeps 50 digits, so that
ratios of wire to cell conductance of 1e13 leave no doubt which answer is right.
"""

from decimal import Decimal, localcontext

import numpy as np


class Circuit:
    """Conductances between named nodes; names joined by zero resistance are one node."""

    def __init__(self, g, *, r_word, r_bit, r_driver=0.0, r_sense=0.0, r_access=0.0, word_both=False,
                 bit_both=False, float_word=None, float_bit=None):  # fmt: skip
        self.g = np.asarray(g, dtype=float)
        self.m, self.n = self.g.shape
        self.r_access = r_access
        self.float_word = np.zeros(self.m, bool) if float_word is None else np.asarray(float_word)
        self.float_bit = np.zeros(self.n, bool) if float_bit is None else np.asarray(float_bit)
        self.joined = {}
        self.resistors = []
        m, n = self.m, self.n
        for i in range(m):
            for k, j in enumerate([0, n - 1] if word_both else [0]):
                if not self.float_word[i]:
                    self.resistor(("source", i), ("driver", i, k), r_driver)
                    self.resistor(("driver", i, k), ("word", i, j), r_word)
            for j in range(1, n):
                self.resistor(("word", i, j - 1), ("word", i, j), r_word)
        for j in range(n):
            for k, i in enumerate([m - 1, 0] if bit_both else [m - 1]):
                if not self.float_bit[j]:
                    self.resistor(("ground", j), ("sense", j, k), r_sense)
                    self.resistor(("sense", j, k), ("bit", i, j), r_bit)
            for i in range(1, m):
                self.resistor(("bit", i - 1, j), ("bit", i, j), r_bit)

    def root(self, name):
        while self.joined.get(name, name) != name:
            name = self.joined[name]
        return name

    def resistor(self, a, b, resistance):
        if resistance == 0.0:
            keep, drop = self.root(b), self.root(a)
            if keep[0] not in ("source", "ground"):
                keep, drop = drop, keep
            self.joined[drop] = keep
        else:
            self.resistors.append((a, b, resistance))

    def solve(self, v_in, number=float, slope=None, extra=None):
        """Node voltages (n_wl, n_bl) of both kinds for one input vector.

        slope, extra : cell conductance to use instead of g, current of each cell at 0 V.
        """
        with localcontext() as context:
            context.prec = 50
            return self._solve(v_in, number, slope, extra)

    def _solve(self, v_in, number, slope, extra):
        edges = [(self.root(a), self.root(b), number(1) / number(r)) for a, b, r in self.resistors]
        injected = {}
        for i in range(self.m):
            for j in range(self.n):
                g = self.g[i, j] if slope is None else slope[i, j]
                if g > 0.0:
                    a, b = self.root(("word", i, j)), self.root(("bit", i, j))
                    c = number(1) / (number(1) / number(float(g)) + number(self.r_access))
                    edges.append((a, b, c))
                    if extra is not None:
                        injected[a] = injected.get(a, number(0)) - number(float(extra[i, j]))
                        injected[b] = injected.get(b, number(0)) + number(float(extra[i, j]))
        known = {("ground", j): number(0) for j in range(self.n)}
        known |= {("source", i): number(float(v_in[i])) for i in range(self.m)}
        names = sorted({x for a, b, _ in edges for x in (a, b)} - set(known))
        index = {name: k for k, name in enumerate(names)}
        size = len(names)
        a = [[number(0)] * (size + 1) for _ in range(size)]
        for name, current in injected.items():
            if name in index:
                a[index[name]][size] += current
        for x, y, c in edges:
            for p, q in ((x, y), (y, x)):
                if p in index:
                    a[index[p]][index[p]] += c
                    if q in index:
                        a[index[p]][index[q]] -= c
                    else:
                        a[index[p]][size] += c * known[q]
        solved = _eliminate(a, number)
        value = dict(known) | dict(zip(names, solved, strict=True))
        nan = number("nan")
        word = [[value.get(self.root(("word", i, j)), nan) for j in range(self.n)] for i in range(self.m)]
        bit = [[value.get(self.root(("bit", i, j)), nan) for j in range(self.n)] for i in range(self.m)]
        return np.array(word), np.array(bit)

    def currents(self, word, bit):
        """i_out (n_bl,) and i_in (n_wl,) from the cells' currents."""
        number = type(word.flat[0])
        i_cell = np.full(self.g.shape, number(0))
        for i, j in zip(*np.nonzero(self.g), strict=True):
            r = number(1) / number(float(self.g[i, j])) + number(self.r_access)
            i_cell[i, j] = (word[i, j] - bit[i, j]) / r
        i_out, i_in = i_cell.sum(axis=0), i_cell.sum(axis=1)
        i_out[self.float_bit], i_in[self.float_word] = number(0), number(0)
        return i_out.astype(float), i_in.astype(float)


def _eliminate(a, number):
    if number is float:
        matrix = np.array(a, dtype=float).reshape(len(a), len(a) + 1)
        return np.linalg.solve(matrix[:, :-1], matrix[:, -1]) if len(a) else []
    size = len(a)
    for k in range(size):
        for i in range(k + 1, size):
            if a[i][k] != 0:
                factor = a[i][k] / a[k][k]
                for j in range(k, size + 1):
                    if a[k][j] != 0:
                        a[i][j] -= factor * a[k][j]
    x = [number(0)] * size
    for k in range(size - 1, -1, -1):
        x[k] = (a[k][size] - sum((a[k][j] * x[j] for j in range(k + 1, size)), number(0))) / a[k][k]
    return x


def exact(g, v_in, **circuit):
    """v_word, v_bit, i_out, i_in of a linear array for inputs (n_batch, n_wl), from 50 digits."""
    model = Circuit(g, **circuit)
    results = []
    for v in np.atleast_2d(v_in):
        word, bit = model.solve(v, Decimal)
        results.append((word.astype(float), bit.astype(float), *model.currents(word, bit)))
    return tuple(np.array(part) for part in zip(*results, strict=True))


def newton(g, v_in, alpha, **circuit):
    """The same for cells with I = g sinh(alpha V) / alpha, by plain Newton steps on dense matrices."""
    model = Circuit(g, **circuit)
    results = []
    for v in np.atleast_2d(v_in):
        word, bit = model.solve(v)
        across = (word - bit) / (1.0 + model.g * model.r_access)
        number = float  # 50 digits for the last step: a float loses what wires and cells differ by
        for _ in range(100):
            current = model.g * np.sinh(alpha * across) / alpha
            slope = model.g * np.cosh(alpha * across)
            offset = (current - slope * across) / (1.0 + slope * model.r_access)
            word, bit = model.solve(v, number, slope=slope, extra=offset)
            new = ((word - bit).astype(float) - model.r_access * (current - slope * across)) / (
                1.0 + slope * model.r_access
            )
            new[model.g == 0.0] = 0.0
            change = np.abs(new - across).max()
            across = across + np.clip(new - across, -0.5 / alpha, 0.5 / alpha)
            if number is Decimal:
                break
            number = Decimal if change < 1e-8 else float
        word, bit = word.astype(float), bit.astype(float)
        i_cell = model.g * np.sinh(alpha * across) / alpha
        i_out, i_in = i_cell.sum(axis=0), i_cell.sum(axis=1)
        results.append(
            (word, bit, np.where(model.float_bit, 0.0, i_out), np.where(model.float_word, 0.0, i_in))
        )
    return tuple(np.array(part) for part in zip(*results, strict=True))
