"""The host's side of a network on a chip: every digital number the chip does not hold.

A deployment owns DAC and ADC ranges, scales, biases, kept batch norm, low-rank adapters and
sparse corrections. It runs images through chip and host, is saved to HDF5, and needs only the
public protocol of a chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.blackbox.codes import adc_code_max, dac_codes
from rramsim.blackbox.conformance import check_chip, check_reading
from rramsim.blackbox.mapping import (
    column_scale,
    levels_from_weights,
    levels_near,
    unsubtracted,
    weights_from_conductances,
    weights_from_levels,
    zero_points as best_zero_points,
)
from rramsim.blackbox.protocol import ChipProtocol, HostPort, host_port
from rramsim.blackbox.windows import WindowCodes
from rramsim.checks import InputError
from rramsim.host.layer import HostLayer, layer_names, layer_shapes
from rramsim.host.ranges import RANGE_VECTORS, best_range, partial_sums
from rramsim.host.summary import summarise
from rramsim.host.trace import Trace
from rramsim.kernels import host as host_kernels
from rramsim.network import Network, Node, windows
from rramsim.network.graph import execute

__all__ = ["Deployment"]

FEW_IMAGES = 8  # whose vectors are laid out at a time where only some are wanted


class Deployment:
    """A network mapped onto a chip.

    Parameters
    ----------
    network : Network
        Trained network; its Conv/Gemm/MatMul nodes run on the chip, all else at the host.
    chip : ChipProtocol
        Any chip with the layers of `layer_shapes(network)`.

    Raises
    ------
    InputError
        If the chip's layers do not fit the network.

    Examples
    --------
    >>> from rramsim import ChipConfig, SimulatedChip, layer_shapes, load_dataset, load_teacher
    >>> network, images = load_teacher("cnn_digits"), load_dataset("digits")["calibration"].images[:32]
    >>> deployment = Deployment(network, SimulatedChip(ChipConfig(), layer_shapes(network)))
    >>> deployment.map(images)
    >>> deployment.run(images).shape
    (32, 10)
    """

    def __init__(self, network: Network, chip: ChipProtocol) -> None:
        self.network = network
        self.chip = chip
        check_chip(chip)
        self._port = host_port(chip)
        wanted = layer_shapes(network)
        got = {name: (info.n_rows, info.n_cols) for name, info in chip.layers.items()}
        if wanted != got:
            odd = sorted(set(wanted.items()) ^ set(got.items()))
            raise InputError(
                f"the chip must hold the layers of network {network.name!r}; differing: {odd[:4]}; "
                "was the chip made for another network?"
            )
        self.layers: dict[str, HostLayer] = {}
        self._sheet = chip.datasheet
        self._layers_of = {name: layer_names(network.node(name)) for name in network.mapped}
        for node in map(network.node, network.mapped):
            if "shares" in node.attributes:
                continue
            bias = node.parameters.get("bias")
            matrices = windows.matrices(node)
            biases = np.split(bias, len(matrices)) if bias is not None else [None] * len(matrices)
            for group, (name, matrix, shift) in enumerate(
                zip(layer_names(node), matrices, biases, strict=True)
            ):
                scale = column_scale(matrix)
                self.layers[name] = HostLayer(
                    node=node.name,
                    group=group,
                    scale=scale,
                    gain=np.ones(scale.size),
                    offset=np.zeros(scale.size) if shift is None else shift.astype(np.float64),
                )

    # -- mapping ------------------------------------------------------------------------------

    def weights(self, layer: str, *, realised: bool = False) -> NDArray[np.float32]:
        """The network's own weights of a layer, shape (n_rows, n_cols).

        `realised` gives those that the cells of a simulated chip hold now, in the same units, before the
        host's gains and corrections: errors, drift and stuck cells included, wires and converters not. A
        reference line counts as error-free. A real chip, or one behind a gate, does not tell.
        """
        host = self.layers[layer]
        if not realised:
            return windows.matrices(self.network.node(host.node))[host.group]
        conductances = getattr(self.chip, "conductances", None)
        if conductances is None:
            raise InputError(
                "weights(realised=True) needs a simulated chip; a black box shows no conductance"
            )
        sheet = self._sheet
        normalised = weights_from_conductances(conductances(layer), sheet.mapping, sheet.levels)
        zero = 0.0 if host.zero_point is None else host.zero_point
        return ((normalised - zero) * host.scale).astype(np.float32)

    def map(
        self, images: Any, *, program: bool = True, margin: float = 1.0, zero_points: bool = True
    ) -> None:
        """Set converter ranges from the digital network on `images`, and write every layer once.

        No answer of the chip is used: this is what plain mapping gives. `margin` widens the ADC
        ranges, for cells that may conduct more than their target. Where one cell holds a weight, scale, sign
        and zero point of each column are chosen for the least expected error energy
        (`rramsim.blackbox.mapping.zero_points`); without `zero_points` every weight is held, 0 by the middle
        level.
        """
        network, waiting = self.network, dict[str, list[NDArray[Any]]]()
        shared = {node for node in network.mapped if len(network.uses(self._owner(node))) > 1}

        def set_ranges(node: Node, x: NDArray[Any]) -> NDArray[Any]:
            owner = self._owner(node.name)
            seen = waiting.setdefault(owner, [])
            seen.append(x)
            if len(seen) == len(network.uses(owner)):  # inputs of a layer are not kept once it has its ranges
                for layer in self.layers_of(owner):
                    self._set_ranges(layer, seen, margin, zero_points)
                del waiting[owner]
            return execute(node, [x])

        keep = {network.node(node).inputs[0] for node in shared}  # else written over before their turn
        network.evaluate(network.feed(images), network.output, mapped=set_ranges, keep=keep)
        if program:
            self.program()

    def program(self) -> None:
        """Write every layer's nearest levels, once `map` has chosen ranges and zero points."""
        for layer in self.layers:
            self.write(layer, self.nearest_levels(layer))

    def _owner(self, node: str) -> str:
        """The node whose weights a mapped node uses: itself, or the one that it shares them with."""
        return str(self.network.node(node).attributes.get("shares", node))

    def _set_ranges(self, layer: str, xs: list[NDArray[Any]], margin: float, zero_points: bool) -> None:
        """Ranges of both converters for the inputs that a layer meets, and its zero points."""
        self.set_input_range(layer, xs[0] if len(xs) == 1 else np.concatenate([x.ravel() for x in xs]))
        codes = [self.codes(layer, x) for x in xs] if len(xs) > 1 else [self._some_codes(layer, xs[0])]
        self._set_zero_points(layer, codes if zero_points else None)
        partial = partial_sums(
            codes[0] if len(codes) == 1 else np.concatenate(codes),
            self.nearest_levels(layer),
            self._sheet,
            self.chip.layers[layer].row_tiles,
        )
        self.set_output_range(layer, partial, margin)

    def _some_codes(self, layer: str, x: NDArray[Any]) -> NDArray[Any]:
        """The evenly spread vectors of `codes` that decide ranges, without laying out all others at once."""
        node, group = self._node(layer), self.layers[layer].group
        maps = self._quantise(layer, x)
        stride = max(1, len(windows.lower(node, maps[:1], group)) * len(maps) // RANGE_VECTORS)
        if stride == 1 or maps.ndim < 3:
            return windows.lower(node, maps, group)
        parts, passed = [], 0
        for first in range(0, len(maps), FEW_IMAGES):
            part = windows.lower(node, maps[first : first + FEW_IMAGES], group)
            parts.append(part[-passed % stride :: stride].copy())
            passed += len(part)
        return np.concatenate(parts)

    def layers_of(self, node: str) -> list[str]:
        """Chip layers of a network node, one per group."""
        return self._layers_of[node]

    def nodes_of(self, layer: str) -> tuple[str, ...]:
        """Network nodes that read a chip layer: one, or several that share their weights."""
        return self.network.uses(self.layers[layer].node)

    def set_input_range(self, layer: str, x: NDArray[Any]) -> None:
        """Choose the DAC step for activations like `x`; signed where any is negative."""
        host, sheet = self.layers[layer], self._sheet
        host.signed = bool(x.min(initial=0.0) < 0)
        high = dac_codes(sheet.dac_bits, host.signed)[1]
        host.x_step = best_range(x, high) / high
        low = -sheet.v_read if host.signed else 0.0
        self.chip.configure(layer, input_range=(low, sheet.v_read))
        self._set_unit(layer)

    def _set_zero_points(self, layer: str, codes: list[NDArray[Any]] | None) -> None:
        """Where one cell holds a weight: scale, sign and zero point of each column, and its common mode."""
        host, sheet = self.layers[layer], self._sheet
        if sheet.mapping != "reference":
            return
        if codes is None:
            host.scale, host.zero_point = column_scale(self.weights(layer)), np.zeros(host.scale.size)
        else:
            some = np.concatenate([c[:: max(1, len(c) // RANGE_VECTORS)] for c in codes])
            energy = some.astype(np.float32).var(axis=0, dtype=np.float64)
            host.scale, host.zero_point = best_zero_points(
                self.weights(layer), energy, sheet, some, self.chip.layers[layer].row_tiles
            )
        host.common = -host.scale * (host.zero_point + unsubtracted(sheet))

    def set_output_range(self, layer: str, partial: NDArray[Any], margin: float = 1.0) -> None:
        """Choose the ADC range for partial sums of one row tile each.

        Parameters
        ----------
        partial : ndarray
            Sums of normalised weight times DAC codes, one for each conversion.
        margin : float
            Factor on the chosen range.
        """
        host, sheet = self.layers[layer], self._sheet
        code_max = adc_code_max(sheet.adc_bits)
        noise = sheet.adc_noise * code_max / adc_code_max(8)
        host.output_range = margin * self._ampere_per_step(layer) * best_range(partial, code_max, noise)
        self.chip.configure(layer, output_range=host.output_range)
        self._set_unit(layer)

    def _set_unit(self, layer: str) -> None:
        """Layer units per ADC code of error-free cells."""
        host, sheet, info = self.layers[layer], self._sheet, self.chip.layers[layer]
        if host.output_range == 0.0:
            return
        per_code = (
            host.output_range / adc_code_max(sheet.adc_bits) / self._ampere_per_step(layer) * host.x_step
        )
        if sheet.mapping == "sliced":
            n_slices = info.cells_per_weight // 2
            per_code /= sheet.n_levels**n_slices - 1
        host.unit = per_code * host.scale

    def _ampere_per_step(self, layer: str) -> float:
        """Current [A] of a weight of 1 driven by one DAC step (by one bit when inputs are bit-serial)."""
        sheet = self._sheet
        current = self.chip.layers[layer].g_unit * sheet.v_read
        if sheet.input_mode == "bit_serial":
            return current
        return current / dac_codes(sheet.dac_bits, self.layers[layer].signed)[1]

    def nearest_levels(self, layer: str, weights: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """Level targets nearest to `weights` (the network's own by default), after scaling."""
        host, sheet = self.layers[layer], self._sheet
        values = (self.weights(layer) if weights is None else weights) / host.scale
        if host.zero_point is not None:
            return levels_near(values + host.zero_point, sheet.mapping, sheet.levels)
        n_slices = self.chip.layers[layer].cells_per_weight // 2
        return levels_from_weights(values, sheet.mapping, sheet.levels, n_slices)

    def write(self, layer: str, levels: NDArray[np.int64], mask: NDArray[np.bool_] | None = None) -> None:
        """Program levels and remember the targets.

        Without a mask, only cells whose target differs from what the host last wrote are
        programmed; a chip arrives reset, so cells at level 0 need no first write.
        """
        host = self.layers[layer]
        before = np.zeros_like(levels) if host.levels is None else host.levels
        if mask is None:
            mask = levels != before
        host.levels = np.where(mask, levels, before)
        self.chip.write(layer, host.levels, mask)

    def stored_weights(self, layer: str) -> NDArray[np.float64]:
        """Normalised weights that the written levels stand for, shape (n_rows, n_cols)."""
        host, sheet = self.layers[layer], self._sheet
        if host.levels is None:
            raise InputError(f"layer {layer!r} was never written: call map(...) first")
        return weights_from_levels(host.levels, sheet.mapping, sheet.levels)

    # -- running ------------------------------------------------------------------------------

    def codes(self, layer: str, x: NDArray[Any]) -> NDArray[Any]:
        """DAC codes of a layer's input activations, shape (n_vectors, n_rows), narrow integers."""
        return windows.lower(self._node(layer), self._quantise(layer, x), self.layers[layer].group)

    def _node(self, layer: str) -> Node:
        return self.network.node(self.layers[layer].node)

    def _quantise(self, layer: str, x: NDArray[Any]) -> NDArray[Any]:
        """DAC codes of an activation map, before any vector is laid out."""
        host = self.layers[layer]
        if host.x_step == 0.0:
            raise InputError(f"layer {layer!r} has no input range yet: call map(...) first")
        low, high = dac_codes(self._sheet.dac_bits, host.signed)
        if high >= 2**15:
            return np.clip(np.rint(x * np.float32(1.0 / host.x_step)), low, high).astype(np.int32)
        out = np.empty(x.shape, dtype=np.int16)
        x = np.ascontiguousarray(x, dtype=np.float32)
        host_kernels.quantise(x.ravel(), 1.0 / host.x_step, low, high, out.ravel())
        return out

    def _window_codes(self, layer: str, x: NDArray[Any]) -> NDArray[Any] | WindowCodes:
        """Codes for `mvm` without laying out the windows of a convolution."""
        node, group = self._node(layer), self.layers[layer].group
        maps = self._quantise(layer, x)
        geometry = windows.geometry(node, x.shape)
        if geometry is None:
            return windows.lower(node, maps, group)
        n_groups = int(node.attributes.get("group", 1))
        part = maps.shape[1] // n_groups
        own = windows.as_maps(maps)[:, group * part : (group + 1) * part]
        return WindowCodes(own, geometry)

    def finish(
        self, layer: str, codes: NDArray[Any] | WindowCodes, reading: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Pre-activations from DAC codes and summed ADC codes, shape (n_vectors, n_cols)."""
        host = self.layers[layer]
        gain, offset = (host.gain * host.unit).astype(np.float32), host.offset.astype(np.float32)
        result = np.empty(reading.shape, dtype=np.float32)
        if reading.T.flags.c_contiguous:
            host_kernels.rescale_rows(reading.T, gain, offset, result)
        else:
            result[:] = reading.astype(np.float32) * gain + offset
        correction = None if host.n_extra == 0 else host.beside(np.asarray(codes))
        return result if correction is None else result + correction

    def execute(self, node: Node, x: NDArray[Any]) -> NDArray[np.float32]:
        """One mapped node on chip and host; takes the place of its digital execution."""
        columns = []
        layers = self.layers_of(node.name)
        for layer in layers:
            codes = self._window_codes(layer, x)
            reading = check_reading(
                self._port.host_mvm(layer, codes), self.chip.layers[layer], len(codes), per_tile=False
            ).codes
            if len(layers) == 1 and isinstance(codes, WindowCodes):
                return self._finish_maps(layer, codes, reading, x.ndim)
            columns.append(self.finish(layer, codes, reading))
        return windows.from_columns(node, x.shape, columns)

    def _finish_maps(
        self, layer: str, codes: WindowCodes, reading: NDArray[Any], rank: int
    ) -> NDArray[np.float32]:
        """`finish` and `windows.from_columns` in one pass."""
        host, window = self.layers[layer], codes.geometry
        n_images, n_cols = len(codes.maps), reading.shape[1]
        positions = window.out_h * window.out_w
        out = np.empty((n_images, n_cols, positions), dtype=np.float32)
        gain, offset = (host.gain * host.unit).astype(np.float32), host.offset.astype(np.float32)
        by_column = np.ascontiguousarray(reading.T).reshape(n_cols, n_images, positions)
        host_kernels.rescale_maps(by_column, gain, offset, out)
        correction = host.beside(codes)
        if correction is not None:
            out += correction.reshape(n_images, n_cols, positions)
        if rank == 3:
            return out
        return out.reshape(n_images, n_cols, window.out_h, window.out_w)

    @property
    def port(self) -> HostPort:
        """Where a gate in front of the chip learns which vectors and answers are natural."""
        return self._port

    def trace(self, images: Any) -> Trace:
        """Follow images through the network layer by layer, as a tuner does."""
        return Trace(self, images)

    def evaluate(
        self, values: dict[str, NDArray[Any]], target: str, keep: Iterable[str] = ()
    ) -> NDArray[np.float32]:
        """`Network.evaluate` with mapped nodes on the chip."""
        return self.network.evaluate(values, target, mapped=self.execute, keep=keep)

    def run(self, images: Any, *, progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Outputs (logits) for images, tokens or named arrays; `progress(n)` follows n more of them."""
        images = self.network.checked(images)
        outputs = []
        for first in range(0, len(images), self.network.batch):
            batch = images[first : first + self.network.batch]
            outputs.append(self.evaluate(self.network.feed(batch), self.network.output))
            if progress is not None:
                progress(len(batch))
        return np.concatenate(outputs)

    def __repr__(self) -> str:
        written = sum(host.levels is not None for host in self.layers.values())
        extra = self.digital_overhead()["numbers"]
        return (
            f"<Deployment of {self.network.name!r}: {written} of {len(self.layers)} layers written, "
            f"{extra:,.0f} extra digital numbers, on {self.chip!r}>"
        )

    def on(self, chip: ChipProtocol) -> Deployment:
        """The same digital state on another chip (with the same layers)."""
        twin = Deployment(self.network, chip)
        twin.load_state_dict(self.state_dict())
        return twin

    def fork(self, stream: int = 0) -> Deployment:
        """The same digital state on a fork of the chip, for evaluation that changes nothing.

        A chip without `fork`, a real one, evaluates in place and is charged.
        """
        fork = getattr(self.chip, "fork", None)
        return self.on(self.chip if fork is None else fork(stream))

    # -- state --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All digital state, as nested dicts of arrays and numbers."""
        layers = {}
        for name, host in self.layers.items():
            entries = {key: value for key, value in vars(host).items() if value is not None}
            layers[name] = {
                key: value.copy() if isinstance(value, np.ndarray) else value
                for key, value in entries.items()
            }
        changed = {
            node.name: dict(node.parameters) for node in self.network.nodes if node.op == "BatchNormalization"
        }
        return {"layers": layers, "batch_norm": changed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`; converter ranges are sent to the chip again."""
        if set(state["layers"]) != set(self.layers):
            raise InputError(
                f"state must hold the layers {sorted(self.layers)}, got {sorted(state['layers'])}"
            )
        for name, parameters in state["batch_norm"].items():
            self.network = self.network.replace(name, parameters)
        sheet = self._sheet
        for name, entries in state["layers"].items():
            host = HostLayer(**entries)
            self.layers[name] = host
            if host.output_range:
                low = -sheet.v_read if host.signed else 0.0
                self.chip.configure(name, input_range=(low, sheet.v_read), output_range=host.output_range)

    def digital_overhead(self) -> dict[str, float]:
        """What the host keeps and computes beside gains and offsets, over what the network has on the chip.

        Returns
        -------
        dict
            `numbers` kept, `indices` kept to say where single weights sit, multiply-accumulates `macs` for
            one example (sums of inputs are additions and not counted), and their shares `fraction_of_weights`
            and `fraction_of_macs` of the network's weights and multiply-accumulates on the chip.
        """
        summary = summarise(self.network)
        vectors = {row.node: row.vectors for row in summary.layers if row.on_chip}
        hosts = self.layers.items()
        numbers = sum(host.n_extra for _, host in hosts)
        macs = sum(host.n_macs * sum(vectors[node] for node in self.nodes_of(name)) for name, host in hosts)
        weights = sum(rows * cols for rows, cols in layer_shapes(self.network).values())
        return {
            "numbers": float(numbers),
            "indices": float(sum(0 if h.sparse_index is None else h.sparse_index.size for _, h in hosts)),
            "macs": float(macs),
            "fraction_of_weights": numbers / weights,
            "fraction_of_macs": macs / max(summary.chip_macs, 1),
        }
