"""What a client may ask of a chip server: every request is checked before the chip hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from rramsim.blackbox.protocol import ChipProtocol, LayerInfo, pass_time
from rramsim.blackbox.windows import WindowCodes
from rramsim.blackbox.wire import MessageError, pack
from rramsim.checks import InputError, nearest_name
from rramsim.kernels.windows import Geometry

__all__ = ["answer"]


def answer(chip: ChipProtocol, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """The reply to one request; the chip is asked only what makes sense.

    Raises
    ------
    InputError
        What was asked does not fit the chip, or is no request at all.
    """
    match header.get("call"):
        case "describe":
            layers = [asdict(info) for info in chip.layers.values()]
            return pack({"datasheet": asdict(chip.datasheet), "layers": layers})
        case "ledger":
            return pack({"ledger": chip.ledger.as_dict()})
        case "write":
            info = _layer(chip, header)
            shape = (info.n_rows, info.n_cols, info.cells_per_weight)
            levels = _array(arrays, "levels", shape, "iu")
            mask = _array(arrays, "mask", shape, "b") if "mask" in arrays else None
            _within(levels, "levels", 0, chip.datasheet.n_levels - 1)
            chip.write(info.name, levels, mask)
            return pack({})
        case "configure":
            limits, output = header.get("input_range"), header.get("output_range")
            chip.configure(
                _layer(chip, header).name,
                input_range=None if limits is None else _pair(limits),
                output_range=None if output is None else _amperes(output),
            )
            return pack({})
        case "mvm":
            info = _layer(chip, header)
            codes = _codes(info, header.get("window"), arrays)
            per_tile = header.get("per_tile", False)
            if not isinstance(per_tile, bool):
                raise MessageError(f"per_tile must be true or false, got {per_tile!r:.40}")
            reading = chip.mvm(info.name, codes, per_tile)
            return pack({}, {"codes": reading.codes, "saturated": reading.saturated})
        case "wait":
            seconds = _number(header.get("seconds"), "seconds")
            if seconds < 0:
                raise InputError(f"seconds must be >= 0, got {seconds:g}")
            warm = header.get("kelvin")
            pass_time(chip, seconds, None if warm is None else _number(warm, "kelvin"))
            return pack({})
        case other:
            raise MessageError(f"a chip knows no call {other!r:.80}; do both ends run the same version?")


def _layer(chip: ChipProtocol, header: Mapping[str, Any]) -> LayerInfo:
    name = header.get("layer")
    if not isinstance(name, str) or name not in chip.layers:
        raise InputError(f"no layer {name!r:.80} on this chip; {nearest_name(str(name)[:80], chip.layers)}")
    return chip.layers[name]


def _array(
    arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int | None, ...], kinds: str
) -> NDArray[Any]:
    """An array of the message with the wanted rank, lengths (None: any) and kind of numbers."""
    if name not in arrays:
        raise MessageError(f"the message lacks the array {name!r}")
    array = arrays[name]
    if (
        array.dtype.kind not in kinds
        or array.ndim != len(shape)
        or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise InputError(
            f"{name} must be of shape ({wanted}) and kind {kinds!r}, got {array.dtype} {array.shape}"
        )
    return array


def _within(array: NDArray[Any], name: str, low: int, high: int) -> None:
    if array.size and not (low <= int(array.min()) and int(array.max()) <= high):
        raise InputError(f"{name} must lie in [{low}, {high}], got [{int(array.min())}, {int(array.max())}]")


def _codes(info: LayerInfo, window: Any, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | WindowCodes:
    """Vectors of a message, or windows whose geometry fits the maps they stand on."""
    if window is None:
        codes = _array(arrays, "codes", (None, info.n_rows), "iu")
        _within(codes, "codes", -(2**31), 2**31 - 1)
        return codes
    maps = _array(arrays, "codes", (None, None, None, None), "iu")
    _within(maps, "codes", -(2**31), 2**31 - 1)
    if (
        not isinstance(window, list)
        or len(window) != len(Geometry._fields)
        or not all(type(n) is int and 0 <= n < 2**20 for n in window)
    ):
        raise MessageError(f"window must be {len(Geometry._fields)} integers {Geometry._fields}")
    g = Geometry(*window)
    if min(g[:6]) < 1:
        raise MessageError("kernel, stride and dilation of a window must be >= 1")
    for size, kernel, stride, dilation, pads, out in (
        (maps.shape[2], g.kernel_h, g.stride_h, g.dilation_h, g.pad_top + g.pad_bottom, g.out_h),
        (maps.shape[3], g.kernel_w, g.stride_w, g.dilation_w, g.pad_left + g.pad_right, g.out_w),
    ):
        room = size + pads - dilation * (kernel - 1) - 1
        if room < 0 or out != room // stride + 1:
            raise MessageError(f"a window of {kernel} on {size} pixels cannot have {out} positions")
    if maps.shape[1] * g.kernel_h * g.kernel_w != info.n_rows:
        raise InputError(
            f"windows of {maps.shape[1]} x {g.kernel_h} x {g.kernel_w} do not fill the {info.n_rows} rows of "
            f"{info.name!r}"
        )
    return WindowCodes(maps, g)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise InputError(f"{name} must be a finite number, got {value!r:.40}")
    return float(value)


def _pair(limits: Any) -> tuple[float, float]:
    if not isinstance(limits, list) or len(limits) != 2:
        raise MessageError(f"input_range must be a pair of voltages, got {limits!r:.80}")
    low, high = _number(limits[0], "input_range"), _number(limits[1], "input_range")
    if not (high > 0 and low in (0.0, -high)):
        raise InputError(f"input_range must be (0, v) or (-v, v), v > 0 V, got ({low:g}, {high:g})")
    return low, high


def _amperes(value: Any) -> float:
    if not (current := _number(value, "output_range")) > 1e-30:
        raise InputError(f"output_range must be a current > 0 A, got {current:g}")
    return current
