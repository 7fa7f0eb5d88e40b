"""Kirchhoff's laws of one whole array, written down resistor by resistor and solved by SciPy's sparse LU.

Shares no code with the package. Word line i runs from its driver at bit line 0, bit line j ends in its
sense amplifier below the last word line. A floating line has no driver or no ground.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu


class Array:
    def __init__(self, g, r_word, r_bit, r_driver=0.0, r_sense=0.0, float_word=(), float_bit=()):
        self.m, self.n = m, n = g.shape
        word = np.arange(m * n).reshape(m, n)
        bit = word + m * n
        rows, cols, values = [], [], []

        def connect(a, b, conductance):
            a, b, c = (np.ravel(x) for x in np.broadcast_arrays(a, b, conductance))
            for p, q, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
                rows.append(p)
                cols.append(q)
                values.append(sign * c)

        def anchor(a, conductance):
            rows.append(a)
            cols.append(a)
            values.append(conductance)

        connect(word, bit, g)
        connect(word[:, :-1], word[:, 1:], 1.0 / r_word)
        connect(bit[:-1], bit[1:], 1.0 / r_bit)
        self.driver = np.full(m, 1.0 / (r_word + r_driver))
        self.ground = np.full(n, 1.0 / (r_bit + r_sense))
        self.driver[list(float_word)] = 0.0
        self.ground[list(float_bit)] = 0.0
        anchor(word[:, 0], self.driver)
        anchor(bit[-1], self.ground)
        shape = (2 * m * n, 2 * m * n)
        parts = (np.concatenate(x) for x in (values, rows, cols))
        data, i, j = parts
        self.word, self.bit = word, bit
        self.lu = splu(coo_matrix((data, (i, j)), shape).tocsc())

    def _solve(self, nodes, currents):
        b = np.zeros((2 * self.m * self.n, len(currents)))
        b[nodes] = np.asarray(currents).T
        return self.lu.solve(b)

    def cell_voltages(self, v_in):
        """(n_vectors, m, n) for inputs (n_vectors, m)."""
        x = self._solve(self.word[:, 0], v_in * self.driver)
        return (x[self.word] - x[self.bit]).transpose(2, 0, 1)

    def outputs(self, v_in):
        """Currents into every sense amplifier, (n_vectors, n)."""
        x = self._solve(self.word[:, 0], v_in * self.driver)
        return (x[self.bit[-1]] * self.ground[:, None]).T

    def effective(self):
        """(m, n) such that outputs = v_in @ effective."""
        return self.outputs(np.eye(self.m))

    def to_outputs(self, lines):
        """Share of a current injected across each cell that arrives at each given output, (len, m, n).

        The conductance matrix is symmetric: what cell (i, j) sends to a node is what a source at that
        node does across the cell.
        """
        lines = np.asarray(lines)
        currents = np.zeros((len(lines), self.n))
        currents[np.arange(len(lines)), lines] = self.ground[lines]
        x = self._solve(self.bit[-1], currents)
        return (x[self.bit] - x[self.word]).transpose(2, 0, 1)
