"""Who may import what, and who may look inside what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune
import rramsim

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("rramsim/**/*.py"), *ROOT.glob("finetune/**/*.py")])
# the accessor of foreign files reads the user's HDF5 data sets
H5PY_USERS = {"rramsim/archive.py", "rramsim/network/storage.py", "rramsim/datafiles.py"}
# reference points are bounds, no tuners: they say so, and stand apart
EXPERIMENTER = {
    "finetune/strategies/reference_points.py",
    "finetune/experiment.py",
    "finetune/trial.py",
    "finetune/sweep.py",
    "finetune/cli.py",
    "finetune/config.py",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: relative import"
            yield str(node.module)


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    tops = {top(module) for module in imports(path)}
    where = relative(path)
    if where.startswith("rramsim/"):
        assert "finetune" not in tops
    if "h5py" in tops:
        assert where in H5PY_USERS
    if "matplotlib" in tops:
        assert path.name.startswith("plot")
    banned = {"torch", "tensorflow", "jax", "pickle", "onnxruntime"}
    if where == "rramsim/network/torch_import.py":  # converts torch modules; imports torch when asked to
        body = ast.parse(path.read_text(encoding="utf-8")).body
        outer = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not [line for line in outer if "torch" in line]
        banned -= {"torch"}
    assert not tops & banned, "never needed to run"


@pytest.mark.parametrize("path", sorted(ROOT.glob("rramsim/kernels/*.py")), ids=relative)
def test_kernels_stand_alone(path: Path) -> None:
    """Python's own modules for types aside, kernels need nothing but math, numpy and numba."""
    allowed = {"math", "numpy", "numba", "llvmlite", "__future__", "typing", "collections"}
    for module in imports(path):
        assert top(module) in allowed or module.startswith("rramsim.kernels"), module


def foreign_private_names(path: Path) -> Iterator[str]:
    """Attributes with a leading underscore of anything but `self` and `cls`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value
            # os._exit is the name Python itself gives
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls", "os")):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr")
        ):
            name = node.args[1]
            if isinstance(name, ast.Constant) and str(name.value).startswith("_"):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rramsim"):
            yield from (f"line {node.lineno}: {a.name}" for a in node.names if a.name.startswith("_"))


@pytest.mark.parametrize("path", sorted(ROOT.glob("finetune/**/*.py")), ids=relative)
def test_no_tuner_looks_inside_another_object(path: Path) -> None:
    assert not list(foreign_private_names(path))


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(ROOT.glob("finetune/**/*.py")) if relative(p) not in EXPERIMENTER],
    ids=relative,
)
def test_no_tuner_knows_the_simulator(path: Path) -> None:
    """Strategies see the protocol alone: not the simulated chip, its cells, arrays or circuit."""
    inside = {"rramsim.chip", "rramsim.array", "rramsim.solver", "rramsim.crossbar", "rramsim.elimination"}
    assert not {m for m in imports(path) if m in inside or m.startswith("rramsim.cell")}
    names = {node.id for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Name)}
    assert "SimulatedChip" not in names


def test_everything_exported_exists() -> None:
    for package in (rramsim, finetune):
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rramsim.nothing


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, rramsim, finetune\n"
        "heavy = {'numpy', 'numba', 'scipy', 'h5py', 'matplotlib', 'pydantic', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import rramsim.chip, finetune.tune\n"
        "heavy = {'h5py', 'matplotlib', 'torch', 'onnx', 'rich', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600
