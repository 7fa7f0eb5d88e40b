"""What every trial of an experiment shares: network, images, and how a chip is made."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.calibration import check_calibration, check_classes
from finetune.study.config import ExperimentConfig
from finetune.study.paths import locate
from rramsim.blackbox.averaging import AveragedReads
from rramsim.checks import InputError
from rramsim.chip.simulated import SimulatedChip
from rramsim.datasets.embedded import Split, load_dataset
from rramsim.datasets.teachers import load_teacher, teacher_names
from rramsim.host.layer import layer_shapes
from rramsim.network import Network
from rramsim.streams import Cause, stream

__all__ = ["HISTOGRAM_BINS", "Materials", "Store", "TeacherWarning", "load_network", "materials_key"]

HISTOGRAM_BINS = 200


def load_network(name: str, input_shape: Sequence[int] | None = None) -> Network:
    """A shipped teacher by name, or a network from an HDF5 or ONNX file.

    `input_shape` is for ONNX files that leave theirs open.
    """
    if name in teacher_names() or not name.lower().endswith((".h5", ".hdf5", ".onnx", ".pb")):
        return load_teacher(name)
    try:
        return Network.load(name)
    except InputError as error:
        if input_shape is None or "is open" not in str(error):
            raise
        return Network.load(name, input_shape=input_shape)


class TeacherWarning(UserWarning):
    """The digital network is much worse on the test images than it should be."""


@dataclass(frozen=True)
class Materials:
    """What every trial of an experiment shares."""

    config: ExperimentConfig
    network: Network
    dataset_name: str
    normalisation: str  # what is done to stored pixels, in words
    class_names: tuple[str, ...]
    calibration: NDArray[np.float32]
    calibration_index: NDArray[np.int64]
    test: Split

    @classmethod
    def load(cls, config: ExperimentConfig) -> Materials:
        """Read data set and network, and check that they and the chip fit each other."""
        table = config.experiment
        for name, value in (("dataset", table.dataset), ("network", table.network)):
            if not value.isprintable():
                raise InputError(f"experiment.{name} must be printable text, got {value!r}")
        dataset = load_dataset(locate(table.dataset, table.folder)).normalised(table.mean, table.std)
        network = load_network(locate(table.network, table.folder), dataset.image_shape)
        if table.digital:
            network = network.with_digital(table.digital)
        if dataset.image_shape != tuple(network.input_shape):
            raise InputError(
                f"network {table.network!r} takes images {tuple(network.input_shape)}, data set "
                f"{table.dataset!r} has {dataset.image_shape}"
            )
        source = dataset["calibration"]
        if table.n_calibration > len(source):
            raise InputError(
                f"experiment.n_calibration must be <= {len(source)} (calibration images of "
                f"{table.dataset!r}), got {table.n_calibration}"
            )
        order = stream(table.seed, Cause.DATA).permutation(len(source))
        index = np.sort(order[: table.n_calibration]).astype(np.int64)
        test = dataset["test"]
        if table.n_test is not None:
            if table.n_test > len(test):
                raise InputError(f"experiment.n_test must be <= {len(test)}, got {table.n_test}")
            test = test.take(table.n_test)
        names = dataset.class_names or tuple(str(n) for n in range(dataset.n_classes))
        return cls(
            config,
            network,
            dataset.name,
            dataset.normalisation(),
            names,
            source.take(index).images,
            index,
            test,
        )

    def of(self, config: ExperimentConfig) -> Materials:
        """The same network and images for an experiment with the same `materials_key`."""
        return replace(self, config=config)

    def warn_of_calibration(self) -> None:
        """Warn of calibration images that leave something undetermined; see `finetune.calibration`."""
        check_calibration(self.calibration)
        check_classes(self.network.run(self.calibration))

    def warn_of_teacher(self, outputs: NDArray[np.float32]) -> None:
        """Warn where the digital network does not do on these images what its training promised.

        Parameters
        ----------
        outputs : ndarray, shape (n_images, n_classes)
            Of the digital network on the test images.

        Warns
        -----
        TeacherWarning
            Accuracy no better than chance by three standard errors, or below what the network's metadata
            say by more than two points and four standard errors.
        """
        n, n_classes = outputs.shape
        accuracy = float((outputs.argmax(axis=1) == self.test.labels).mean())
        how = f"images were given as {self.normalisation}"
        hint = "set experiment.mean and experiment.std if it was trained on others"
        promised = self.network.metadata.get("test_accuracy")
        chance = 1.0 / n_classes
        if accuracy < chance + 3 * np.sqrt(chance * (1 - chance) / n):
            warnings.warn(
                f"the digital network is right for {accuracy:.1%} of {n:,} test images, which is no better "
                f"than chance ({chance:.1%}); {how}; {hint}",
                TeacherWarning,
                stacklevel=2,
            )
        elif isinstance(promised, float | int) and accuracy < promised - max(
            0.02, 4 * np.sqrt(max(promised * (1 - promised), 0.0) / n)
        ):
            warnings.warn(
                f"the digital network is right for {accuracy:.2%} of {n:,} test images, but its own metadata "
                f"say {promised:.2%}; {how}; {hint}",
                TeacherWarning,
                stacklevel=2,
            )

    def chip(self, chip_id: int) -> SimulatedChip:
        """The individual, as it arrives: reset."""
        table = self.config.experiment
        chip = SimulatedChip(
            self.config.chip_config(), layer_shapes(self.network), seed=table.seed, chip=chip_id
        )
        # the wrapper has the simulator's members too
        return chip if table.reads == 1 else cast(SimulatedChip, AveragedReads(chip, table.reads))

    @property
    def layers(self) -> list[str]:
        """Chip layers in network order."""
        return list(layer_shapes(self.network))

    @property
    def fingerprint(self) -> str:
        """16 hex digits of weights and images: files behind the same names may change."""
        total = hashlib.sha256()
        for node in self.network.nodes:
            total.update(repr((node.name, node.op, node.inputs, sorted(node.attributes.items()))).encode())
            for name in sorted(node.parameters):
                total.update(np.ascontiguousarray(node.parameters[name]).tobytes())
        for array in (self.calibration, self.test.pixels, self.test.labels):
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()[:16]

    @property
    def bin_edges(self) -> NDArray[np.float64]:
        """Conductance bins [S] of the level histogram; the last one also counts what lies above."""
        levels = self.config.cells.scale.levels
        return np.linspace(0.0, 1.8 * float(np.max(levels)), HISTOGRAM_BINS + 1)


def materials_key(config: ExperimentConfig) -> tuple[Any, ...]:
    """What network and images of an experiment depend on."""
    table = config.experiment
    data = (table.dataset, table.mean, table.std, table.n_calibration, table.n_test)
    return (*data, table.network, table.folder, table.digital, table.seed)


class Store:
    """Materials of the last few experiments, read once for all that share network and images."""

    def __init__(self, size: int = 2, load: Callable[[ExperimentConfig], Materials] = Materials.load) -> None:
        self._size, self._load = size, load
        self._held: dict[tuple[Any, ...], Materials] = {}

    def get(self, config: ExperimentConfig) -> Materials:
        """The materials of an experiment."""
        key = materials_key(config)
        if key not in self._held:
            while len(self._held) >= self._size:
                del self._held[next(iter(self._held))]
            self._held[key] = self._load(config)
        return self._held[key].of(config)
