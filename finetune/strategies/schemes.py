"""Named strategies."""

from __future__ import annotations

from finetune.strategies.composition import SCHEMES

SCHEMES["affine"] = "lsq.affine"
SCHEMES["default"] = "lsq.rewrite + lsq.affine + adapter(rank=2)"
# the scheme of the paper: layerwise least squares, then zeroth order on the distillation loss
SCHEMES["lsq+kd+zo"] = f"{SCHEMES['default']} + zo(reach=1, parameters='gain+offset', steps=1, images=128)"
