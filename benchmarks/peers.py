"""Other simulators on the networks of `benchmarks.network`, where they are installed.

Only speed is compared: weights are random, converter ranges are not calibrated. One thread, CPU
time, minimum over repeats. Each adapter says with which version it was run; none of the peers is needed
by this package or its tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from rramsim.network import Network, Node

SECONDS = 4.0  # enough repeats of one case
Case = tuple[str, Callable[[], Any], int]  # what was on, a call, images in it


def measure_peers(
    networks: Mapping[str, tuple[Network, int]], reference: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Rows of all peers, one by one.

    Parameters
    ----------
    networks : mapping of name to (network, images per batch)
    reference : mapping of name to float
        Time per image [us] of the fastest float32 execution.

    Yields
    ------
    dict
        "network", "what", and either "us_per_image", "slow_down" and "batch", or "note" where a peer is not
        installed or failed.
    """
    for label, adapter in ADAPTERS.items():
        for name, (network, batch) in networks.items():
            row: dict[str, Any] = {"network": name, "what": label}
            x = np.random.default_rng(1).random((batch, *network.input_shape), dtype=np.float32)
            try:
                for what, call, n in adapter(network, x):
                    us = 1e6 * _fastest(call) / n
                    row = {"network": name, "what": f"{label}: {what}", "us_per_image": us, "batch": n}
                    yield row | {"slow_down": us / reference[name]}
            except ImportError as error:
                missing = (error.name or "").partition(".")[0]
                yield row | {"note": f"not installed (no module {missing!r})"}
                break
            except Exception as error:  # a peer's own fault must not end the table
                yield row | {"note": f"failed: {type(error).__name__}: {error}".split("\n")[0]}


def line(row: Mapping[str, Any]) -> str:
    """One row of the table."""
    start = f"{row['network']:9} {row['what']:52}"
    if "note" in row:
        return f"{start} {row['note']}"
    batch = f"  (batch {row['batch']})" if "batch" in row else ""
    return f"{start} {row['us_per_image']:10.1f} {row['slow_down']:8.2f}x{batch}"


def _fastest(call: Callable[[], Any]) -> float:
    """Shortest time [s] of a call, after one call before."""
    started = time.process_time()
    call()
    best = first = time.process_time() - started
    end = started + SECONDS
    while first < SECONDS and time.process_time() < end:
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def to_torch(network: Network) -> Any:
    """The network as a torch module with one submodule per layer, in evaluation mode.

    Its outputs are those of `network.run` (checked by `tests/network/test_peers.py`).
    """
    import torch
    from torch import nn

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleDict({node.name: _layer(node) for node in network.nodes})
            # of the instance, since a peer may keep one subclass for all classes of a name
            self.plan = [(node.name, node.inputs) for node in network.nodes]

        def forward(self, x: Any) -> Any:
            values = {"input": x}
            for name, inputs in self.plan:
                values[name] = self.layers[name](*(values[source] for source in inputs))
            return values[self.plan[-1][0]]

    torch.set_num_threads(1)
    return Twin().eval()


def _layer(node: Node) -> Any:
    import torch
    from torch import nn

    class Sum(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    p = {key: torch.from_numpy(value.copy()) for key, value in node.parameters.items()}
    attributes = node.attributes
    if node.op == "Gemm":
        layer = nn.Linear(*p["weight"].shape, bias="bias" in p)
        layer.weight.data = p["weight"].T.contiguous()
    elif node.op == "Conv":
        n_out, n_in, height, width = p["weight"].shape
        pads = attributes.get("pads", [0] * 4)
        if pads[:2] != pads[2:] or attributes.get("group", 1) != 1:
            raise ValueError(f"node {node.name!r}: only symmetric pads and one group are converted")
        layer = nn.Conv2d(
            n_in,
            n_out,
            (height, width),
            tuple(attributes.get("strides", (1, 1))),
            tuple(pads[:2]),
            bias="bias" in p,
        )
        layer.weight.data = p["weight"]
    elif node.op == "BatchNormalization":
        layer = nn.BatchNorm2d(p["scale"].numel(), eps=attributes.get("epsilon", 1e-5))
        layer.weight.data, layer.running_mean, layer.running_var = p["scale"], p["mean"], p["variance"]
    else:
        return {
            "Relu": nn.ReLU,
            "Flatten": nn.Flatten,
            "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1),
            "MaxPool": lambda: nn.MaxPool2d(
                tuple(attributes["kernel_shape"]), tuple(attributes.get("strides", (1, 1)))
            ),
            "Add": Sum,
        }[node.op]()
    if "bias" in p:
        layer.bias.data = p["bias"]
    return layer


def _call(module: Any, x: np.ndarray) -> Callable[[], Any]:
    import torch

    inputs = torch.from_numpy(x)

    def run() -> Any:
        with torch.no_grad():
            return module(inputs)

    return run


def torch_path(network: Network, x: np.ndarray) -> Callable[[], Any] | None:
    """A call of torch with one thread, or None where it is not installed."""
    try:
        return _call(to_torch(network), x)
    except ImportError:
        return None


def lightning(network: Network, x: np.ndarray) -> Iterator[Case]:
    """aihwkit-lightning in evaluation: 8-bit DAC and ADC, 128 rows a tile. Run with version 2.1.0."""
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    config = TorchInferenceRPUConfig()
    config.mapping.max_input_size = 128
    config.forward.inp_res = config.forward.out_res = 2**8 - 2
    config.forward.out_bound = 12.0
    config.pre_post.input_range.enable = True
    module = convert_to_analog(to_torch(network), config).eval()
    yield "8-bit DAC/ADC", _call(module, x), len(x)


def crosssim(network: Network, x: np.ndarray) -> Iterator[Case]:
    """CrossSim through its torch interface, 128 rows a tile. Run with version 3.2.0.

    Read noise is drawn anew in every product, which its interface does one by one: few images.
    """
    from simulator import CrossSimParameters
    from simulator.algorithms.dnn.torch.convert import from_torch

    def parameters(*, converters: bool = True, bit_serial: bool = False, noise: bool = False) -> Any:
        result = CrossSimParameters()
        result.core.rows_max = 128
        result.core.mapping.inputs.mvm.min, result.core.mapping.inputs.mvm.max = -1.0, 1.0
        device = result.xbar.device
        device.Rmin, device.Rmax = 25e3, 750e3
        device.programming_error.enable = True
        device.programming_error.model = "NormalProportionalDevice"
        device.programming_error.magnitude = 0.1
        if noise:
            device.read_noise.enable = True
            device.read_noise.model = "NormalProportionalDevice"
            device.read_noise.magnitude = 0.02
        if converters:
            dac = result.xbar.dac.mvm
            dac.bits, dac.model, dac.signed = 8, "SignMagnitudeDAC", True
            dac.input_bitslicing, dac.slice_size = bit_serial, 1
            result.xbar.adc.mvm.model = "SignMagnitudeADC"  # replaces the object of its settings
            adc = result.xbar.adc.mvm
            adc.bits, adc.signed, adc.calibrated_range = 8, True, [-8.0, 8.0]
            adc.adc_range_option, adc.adc_per_ibit = "CALIBRATED", bit_serial
        return result

    module = to_torch(network)
    cases = {
        "programming error": (parameters(converters=False), len(x)),
        "programming error + 8-bit DAC/ADC": (parameters(), len(x)),
        "bit-serial 8 b, ADC per bit": (parameters(bit_serial=True), len(x)),
        "programming error + DAC/ADC + read noise": (
            parameters(noise=True),
            1 if x.ndim > 2 else min(len(x), 32),
        ),
    }
    for what, (settings, n) in cases.items():
        yield what, _call(from_torch(module, settings).eval(), x[:n]), n


def aihwkit(network: Network, x: np.ndarray) -> Iterator[Case]:
    """aihwkit (C++ tiles), ReRAM programming error and one day of drift, 128x128 tiles.

    Written from the documented interface of version 1.2; not run, since no wheel of it was at hand.
    """
    from aihwkit.inference import ReRamWan2022NoiseModel
    from aihwkit.nn.conversion import convert_to_analog
    from aihwkit.simulator.configs import InferenceRPUConfig

    def converted(perfect: bool) -> Any:
        config = InferenceRPUConfig()
        config.noise_model = ReRamWan2022NoiseModel()
        config.mapping.max_input_size = config.mapping.max_output_size = 128
        config.forward.is_perfect = perfect
        config.forward.inp_res = config.forward.out_res = 1 / (2**8 - 2)
        module = convert_to_analog(to_torch(network), config).eval()
        module.drift_analog_weights(86400.0)  # programs first
        return module

    yield "programming error, one day", _call(converted(True), x), len(x)
    yield "the same + 8-bit DAC/ADC, output noise", _call(converted(False), x), len(x)


ADAPTERS: dict[str, Callable[[Network, np.ndarray], Iterator[Case]]] = {
    "aihwkit-lightning": lightning,
    "CrossSim": crosssim,
    "aihwkit": aihwkit,
}
