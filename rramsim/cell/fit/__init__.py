"""From measurement files of a laboratory to a preset.

`read_measurements` reads the files, `fit` fits all they can tell, `DeviceFit` holds the result.

Examples
--------
>>> import numpy as np, tempfile, pathlib
>>> rng = np.random.default_rng(1)
>>> levels = np.repeat(np.arange(4), 200)
>>> lines = [f"{k} {10 * k + 5 + rng.standard_normal():.4f}" for k in levels]
>>> path = pathlib.Path(tempfile.mkdtemp()) / "lab.txt"
>>> _ = path.write_text("# level G(uS)\\n" + "\\n".join(lines))
>>> result = fit(path)
>>> result.law, len(result.means)
('normal', 4)
"""

from rramsim.cell.fit.cells import Share, ShareFit
from rramsim.cell.fit.drift import DriftFit, DriftTable
from rramsim.cell.fit.faults import FaultFit
from rramsim.cell.fit.fitting import fit, programmed_values
from rramsim.cell.fit.levels import LawFit
from rramsim.cell.fit.noise import NoiseFit
from rramsim.cell.fit.pulses import PulseFit
from rramsim.cell.fit.reading import Measurements, read_measurements
from rramsim.cell.fit.recipe import ReadingConfig, load_recipe
from rramsim.cell.fit.result import DeviceFit
from rramsim.cell.fit.simulation import simulated_ks, simulated_levels, simulated_pulses

__all__ = [
    "DeviceFit",
    "DriftFit",
    "DriftTable",
    "FaultFit",
    "LawFit",
    "Measurements",
    "NoiseFit",
    "PulseFit",
    "ReadingConfig",
    "Share",
    "ShareFit",
    "fit",
    "load_recipe",
    "programmed_values",
    "read_measurements",
    "simulated_ks",
    "simulated_levels",
    "simulated_pulses",
]
