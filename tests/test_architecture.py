"""Who may import what: the walls between the rooms, as prefix contracts over every import statement."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import finetune
import rramsim

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("rramsim/**/*.py"), *ROOT.glob("finetune/**/*.py")])
GROUND = ("rramsim.checks", "rramsim.config", "rramsim.hdf5", "rramsim.parallel", "rramsim.streams")
ALONE = (*GROUND, "rramsim.kernels")  # what every room may use
# room: what its files may import of this project beside their own room
ROOMS = {
    "rramsim.kernels": (),
    **dict.fromkeys(GROUND, ALONE),
    "rramsim.circuit": ALONE,
    "rramsim.cell": ALONE,
    "rramsim.network": ALONE,
    "rramsim.blackbox": ALONE,
    "rramsim.datasets": (*ALONE, "rramsim.network"),
    "rramsim.chip": (*ALONE, "rramsim.cell", "rramsim.circuit", "rramsim.blackbox"),
    "rramsim.host": (*ALONE, "rramsim.network", "rramsim.blackbox"),
    "rramsim.__main__": (),  # the command, by the string of its module
    "finetune.references": ("rramsim", "finetune"),
    "finetune.study": ("rramsim", "finetune"),
    # the wall around the black box: a tuner knows the protocol and the host's side, never the simulator
    "finetune": (
        "rramsim.checks",
        "rramsim.config",
        "rramsim.streams",
        "rramsim.network",
        "rramsim.blackbox",
        "rramsim.host",
    ),
}
# front doors: exported names, loaded by strings at their first use
DOORS = {"rramsim", "rramsim.plot", "finetune"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if inside(module, room)), key=len, default="")


@functools.cache
def imports(module: str) -> list[tuple[str, int]]:
    """Modules that a file imports anywhere, functions included, with the line; not what only types need."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            source = str(node.module)
            for alias in node.names:
                name = f"{source}.{alias.name}"
                found.append((name if name in MODULES else source, node.lineno))
    return found


def top(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_only_what_they_may(module: str) -> None:
    if module in DOORS:
        return
    room = room_of(module)
    allowed = (room, *ROOMS[room])
    for name, line in imports(module):
        if top(name) not in DOORS:
            continue
        if room == "finetune" and inside(name, "finetune"):
            assert not inside(name, "finetune.study"), (
                f"line {line}: nothing outside finetune.study imports it"
            )
            assert not inside(name, "finetune.references"), f"line {line}: reference points stand apart"
            continue
        good = any(inside(name, prefix) for prefix in allowed) or (
            name == "rramsim" and room == "finetune.study"
        )
        assert good, f"line {line}: {room} must not import {name}"


def test_files_import_in_no_circle() -> None:
    graph = {
        module: {name for name, _ in imports(module) if name in MODULES and name != module}
        for module in MODULES
        if module not in DOORS
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the files of a circle


def test_foreign_packages_stay_in_their_places() -> None:
    """Kernels need math, NumPy and Numba alone; files of figures alone draw; networks alone know torch."""
    h5py_users = {
        "rramsim.hdf5",
        "rramsim.chip.export",
        "rramsim.blackbox.recording",
        "finetune.study.archive",
        "finetune.study.storage",
        "finetune.study.snapshots",
        "rramsim.network.storage",
        "rramsim.datasets.files",
    }
    for module, path in MODULES.items():
        tops = {top(name) for name, _ in imports(module)}
        if inside(module, "rramsim.kernels"):
            assert tops <= {
                "math",
                "numpy",
                "numba",
                "llvmlite",
                "__future__",
                "typing",
                "collections",
                "rramsim",
                "hashlib",  # stamp.py, the key of the cache
                "pathlib",
            }
        if "h5py" in tops:
            assert module in h5py_users, module
        if "matplotlib" in tops:
            assert path.name.startswith("plot"), module
        banned = {"torch", "tensorflow", "jax", "pickle", "onnxruntime"}
        if module == "rramsim.network.torch":  # converts torch modules; imports torch when asked to
            body = ast.parse(path.read_text(encoding="utf-8")).body
            outer = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
            assert not [line for line in outer if line.startswith(("import torch", "from torch"))]
            banned -= {"torch"}
        assert not tops & banned, f"{module}: never needed to run"


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


@pytest.mark.parametrize("module", [name for name in MODULES if inside(name, "finetune")])
def test_no_tuner_looks_inside_another_object(module: str) -> None:
    assert not list(foreign_private_names(MODULES[module]))


@pytest.mark.parametrize(
    "module", [name for name in MODULES if room_of(name) == "finetune" and name not in DOORS]
)
def test_no_tuner_names_the_simulator(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    assert "SimulatedChip" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def typed_names(package: str) -> set[str]:
    """Names in the `TYPE_CHECKING` block of a front door."""
    for node in ast.parse(MODULES[package].read_text("utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return {a.name for entry in node.body if isinstance(entry, ast.ImportFrom) for a in entry.names}
    return set()


def test_everything_exported_exists_and_is_typed() -> None:
    kept_for_old_users = {"Archive", "open_archive", "compare", "spread"}
    for package in (rramsim, finetune):
        for name in package.__all__:
            assert getattr(package, name) is not None
        untyped = set(package.__all__) - typed_names(package.__name__) - {"__version__"}
        assert untyped == (kept_for_old_users if package is rramsim else set())
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rramsim.nothing


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, rramsim, finetune\n"
        "heavy = {'numpy', 'numba', 'scipy', 'h5py', 'matplotlib', 'pydantic', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import rramsim.chip.simulated, finetune.tuner\n"
        "heavy = {'h5py', 'matplotlib', 'torch', 'onnx', 'rich', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_readable(module: str) -> None:
    """At most 500 lines a file, unless its first lines say why, and 80 a function."""
    text = MODULES[module].read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) <= 500 or "Long because" in docstring
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno <= 80, f"{node.name}: {node.end_lineno - node.lineno} lines"
