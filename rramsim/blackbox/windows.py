"""Convolution inputs as a chip may read them: all windows of an integer activation map.

A `WindowCodes` stands for the matrix (n_vectors, n_rows) that im2col would make; NumPy turns it
into that matrix on request (`np.asarray`), so any chip takes it for `mvm`. A simulated chip reads
the map directly and never builds the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from rramsim.kernels.convolution import convolve, pack_weights
from rramsim.kernels.windows import Geometry, im2col

__all__ = ["WindowCodes", "border_classes"]


@dataclass(frozen=True)
class WindowCodes:
    """Windows of `maps` (n_images, channels, height, width), ordered (image, out_y, out_x).

    Rows of a vector are ordered (channel, kernel_y, kernel_x).
    """

    maps: NDArray[np.integer]
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, int]:
        """(n_vectors, n_rows) of the matrix this stands for."""
        g = self.geometry
        return self.maps.shape[0] * g.out_h * g.out_w, self.maps.shape[1] * g.kernel_h * g.kernel_w

    @property
    def ndim(self) -> int:
        """2, as of the matrix."""
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Integer type of the codes."""
        return self.maps.dtype

    def multiply(self, matrix: NDArray[np.floating]) -> NDArray[np.float32]:
        """Maps (n_images, n_out, out_h, out_w) of every vector times `matrix` (n_rows, n_out)."""
        n_out, window = matrix.shape[1], self.geometry
        packed = pack_weights(matrix.astype(np.float32))[None]
        out = np.empty((len(self.maps), n_out, window.out_h, window.out_w), dtype=np.float32)
        maps = np.ascontiguousarray(self.maps, dtype=np.float32)
        convolve(maps, packed, 1, np.zeros(n_out, dtype=np.float32), window, get_num_threads(), out)
        return out

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        matrix = np.empty(self.shape, dtype=self.dtype if dtype is None else dtype)
        im2col(np.ascontiguousarray(self.maps), self.geometry, matrix)
        return matrix


def border_classes(size: int, kernel: int, stride: int, dilation: int, pad: int, n_out: int) -> Any:
    """Which kernel positions see each pixel along one axis, up to equal pixels.

    Returns
    -------
    pixel_class : int64 ndarray, shape (size,)
    member : bool ndarray, shape (n_classes, kernel)
        Whether a pixel of that class is seen at that kernel position.
    """
    pixel = np.arange(size)[:, None] + pad - np.arange(kernel)[None, :] * dilation
    seen = (pixel >= 0) & (pixel % stride == 0) & (pixel // stride < n_out)
    member, pixel_class = np.unique(seen, axis=0, return_inverse=True)
    return pixel_class.ravel().astype(np.int64), member
