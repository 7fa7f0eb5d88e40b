"""Networks from torch modules, by way of ONNX (extras `train` and `onnx`)."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rramsim.checks import InputError
from rramsim.network.graph import Network
from rramsim.network.onnx import from_onnx, onnx_package

__all__ = ["from_torch"]

EXPORTERS = ("tracing", "dynamo")  # in the order in which they are tried
RTOL = 1e-3  # of the largest output: how far the network may be from the module


def from_torch(module: Any, example: Any, *, fold_batch_norm: bool = False) -> Network:
    """Convert a torch module in evaluation mode through ONNX.

    Parameters
    ----------
    example : torch.Tensor
        One batch of inputs, shape (n, ...). Of several outputs the first is the network's.
    fold_batch_norm : bool
        As in `from_onnx`.

    The module itself keeps its mode. torch has two exporters; the second is tried where the file of
    the first cannot be read or does not compute what the module does (a tracing exporter may take
    the batch for a constant).

    Raises
    ------
    InputError
        If torch cannot write the module, or the file holds unsupported operators.
    """
    onnx_package()
    if isinstance(module, Mapping):
        raise InputError(
            "from_torch takes a module, got a mapping (a state_dict?), which holds weights but no graph: "
            "build the module, load_state_dict into it, and pass the module"
        )
    try:
        import torch
    except ImportError:
        raise InputError("converting a torch module needs torch: pip install 'rramsim[train]'") from None
    if not callable(module) or not hasattr(module, "modules"):
        raise InputError(f"from_torch takes a torch.nn.Module, got {type(module).__name__}")
    modes = {part: part.training for part in module.modules()}
    example = torch.as_tensor(example)
    example = torch.cat([example, example[:1]])  # exporters take a batch of one for a constant
    problems = []
    try:
        module.eval()
        with torch.no_grad():
            outputs = module(example)
        first = outputs[0] if isinstance(outputs, tuple | list) else outputs
        want = first.cpu().numpy()
        for export in (_trace, _dynamo):
            try:
                network = _through_file(export, module, example, fold_batch_norm)
                _compare(network, example.cpu().numpy(), want)
                return network
            except InputError as error:
                problems.append(str(error))
    finally:
        for part, mode in modes.items():
            part.training = mode
    reasons = "; ".join(f"{name} exporter: {text}" for name, text in zip(EXPORTERS, problems, strict=True))
    raise InputError(f"{type(module).__name__}: {problems[0] if len(set(problems)) == 1 else reasons}")


def _through_file(export: Any, module: Any, example: Any, fold_batch_norm: bool) -> Network:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own exporters and its own modules
        path = Path(folder) / "module.onnx"
        try:
            export(module, example, path)
        except Exception as error:  # of many types
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"torch cannot write it as ONNX: {reason}") from None
        shape = tuple(example.shape[1:])
        try:
            return from_onnx(path, fold_batch_norm=fold_batch_norm, input_shape=shape)
        except InputError as error:
            raise InputError(str(error).removeprefix(f"{path}: ")) from None


def _trace(module: Any, example: Any, path: Path) -> None:
    import torch

    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=False,
        input_names=["input"],
        dynamic_axes={"input": {0: "batch"}},
        do_constant_folding=False,
    )


def _dynamo(module: Any, example: Any, path: Path) -> None:
    import torch

    shapes = ({0: torch.export.Dim("batch")},)  # refuses a module that takes it for a constant
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=True,
        input_names=["input"],
        dynamic_shapes=shapes,
        verbose=False,
    )


def _compare(network: Network, x: NDArray[Any], want: NDArray[Any]) -> None:
    """Refuse a network that computes something else, or another batch differently."""
    for n in (len(x), len(x) - 1):
        got = network.run(x[:n])
        if got.shape != want[:n].shape or not np.allclose(got, want[:n], rtol=0, atol=_tolerance(want)):
            raise InputError("torch's ONNX file computes other outputs than the module; is it random?")


def _tolerance(want: NDArray[Any]) -> float:
    return RTOL * float(np.abs(want).max(initial=0.0)) + 1e-12
