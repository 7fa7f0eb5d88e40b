"""Builds functions on vectors of numbers in LLVM's terms, for loops that LLVM itself does not vectorise.

LLVM cannot know that rows of one array do not overlap, keeps to half vectors, and neither vectorises
a conversion with its marks nor transposes a block. `Vectors` writes the loads, stores and arithmetic of
one such function; the intrinsics of `nodal_simd`, `read_simd` and `convolution` are made of it. On
processors without 512-bit registers LLVM splits the vectors. Without JIT (``NUMBA_DISABLE_JIT=1``,
`PLAIN`) the NumPy twins of `rramsim.kernels.plain` take their place.
"""

from typing import Any

from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features

ir = cgutils.ir
INDEX = ir.IntType(64)
I32 = ir.IntType(32)
WIDE = "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features())  # 512-bit registers
PLAIN = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set by numba at import


def twin(built: Any, plain: Any) -> Any:
    """The built function, or its NumPy twin where compilation is switched off."""
    return plain if PLAIN else built


def are_floats(*arrays):
    """Whether all arguments are arrays of floating-point numbers."""
    return all(isinstance(a, types.Array) and isinstance(a.dtype, types.Float) for a in arrays)


def _n_bytes(lane):
    return lane.width // 8 if isinstance(lane, ir.IntType) else 8 if isinstance(lane, ir.DoubleType) else 4


class Vectors:
    """Loads, stores and arithmetic on vectors in the function being built.

    Parameters
    ----------
    dtype : Numba type
        Number type of a lane where a method is given no other.
    width : int, optional
        Lanes of a vector; 64 bytes' worth by default.
    """

    def __init__(self, context, builder, dtype=types.float32, width=None):
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(dtype)
        self.width = width or 64 // _n_bytes(self.scalar)
        self.vector = self.of(self.scalar)
        self.ints = self.of(I32)
        self.zero = ir.Constant(self.vector, None)

    def of(self, lane):
        """Type of a vector of lanes of the LLVM type `lane`."""
        return ir.VectorType(lane, self.width)

    def data(self, arrty, array):
        """Pointer to the first number of an array."""
        return self.context.make_array(arrty)(self.context, self.builder, array).data

    def pointer(self, data, index, lane=None):
        """Pointer to the vector that begins at number `index`."""
        place = self.builder.gep(data, [index])
        return self.builder.bitcast(place, self.of(lane or self.scalar).as_pointer())

    def load(self, data, index, lane=None):
        value = self.builder.load(self.pointer(data, index, lane))
        value.align = _n_bytes(lane or self.scalar)
        return value

    def store(self, value, data, index):
        lane = value.type.element
        stored = self.builder.store(value, self.pointer(data, index, lane))
        stored.align = _n_bytes(lane)
        return stored

    def prefetch(self, data, index):
        """Fetch the cache line of number `index` for writing."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0i8")
        place = self.builder.bitcast(self.builder.gep(data, [index]), byte)
        self.builder.call(function, [place, *(ir.Constant(I32, k) for k in (1, 3, 1))])

    def load_scalar(self, data, index):
        return self.builder.load(self.builder.gep(data, [index]))

    def spread(self, value):
        """Vector with the scalar `value` in every lane."""
        undefined = ir.Constant(self.of(value.type), ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(self.ints, [0] * self.width))

    def call(self, name, *args):
        """LLVM's function `name` on vectors of floats."""
        kind = ir.FunctionType(self.vector, [self.vector] * len(args))
        full = f"llvm.{name}.v{self.width}f{8 * _n_bytes(self.scalar)}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, full), args)

    def fma(self, a, b, c):
        """a * b + c, rounded once."""
        return self.call("fma", a, b, c)

    def inverse_or_zero(self, total):
        """1 / total where it is positive, else 0."""
        one = ir.Constant(self.vector, [1.0] * self.width)
        positive = self.builder.fcmp_ordered(">", total, self.zero)
        return self.builder.select(positive, self.builder.fdiv(one, total), self.zero)

    def transposed(self, rows):
        """Columns of a square block given as `width` vectors: exchanges blocks of ever smaller size."""
        rows, half = list(rows), self.width // 2
        while half:
            low = [c if not c & half else self.width + c - half for c in range(self.width)]
            high = [c + half if not c & half else self.width + c for c in range(self.width)]
            for r in range(self.width):
                if not r & half:
                    a, b = rows[r], rows[r + half]
                    rows[r] = self.builder.shuffle_vector(a, b, ir.Constant(self.ints, low))
                    rows[r + half] = self.builder.shuffle_vector(a, b, ir.Constant(self.ints, high))
            half //= 2
        return rows

    def at(self, base, steps, stride):
        """base + steps * stride."""
        if isinstance(steps, int):
            steps = ir.Constant(INDEX, steps)
        if isinstance(stride, int):
            stride = ir.Constant(INDEX, stride)
        return self.builder.add(base, self.builder.mul(steps, stride))

    def loop(self, count, carried):
        """Begin a counted loop with values carried round; use as ``with vectors.loop(...) as loop``."""
        return Loop(self.builder, count, carried)


class Loop:
    """for index in range(count), with loop-carried values; `results` afterwards."""

    def __init__(self, builder, count, carried):
        self.builder, self.count, self.start = builder, count, carried

    def __enter__(self):
        b = self.builder
        before = b.block
        self.head = b.append_basic_block("head")
        body = b.append_basic_block("body")
        self.end = b.append_basic_block("end")
        b.branch(self.head)
        b.position_at_end(self.head)
        self.index = b.phi(INDEX)
        self.index.add_incoming(ir.Constant(INDEX, 0), before)
        self.results = []
        for value in self.start:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            self.results.append(phi)
        b.cbranch(b.icmp_signed("<", self.index, self.count), body, self.end)
        b.position_at_end(body)
        self.next = list(self.results)
        return self

    def __exit__(self, *error):
        b = self.builder
        tail = b.block
        self.index.add_incoming(b.add(self.index, ir.Constant(INDEX, 1)), tail)
        for phi, value in zip(self.results, self.next, strict=True):
            phi.add_incoming(value, tail)
        b.branch(self.head)
        b.position_at_end(self.end)
