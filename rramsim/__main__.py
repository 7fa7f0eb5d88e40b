"""`python -m rramsim` is the command `rramsim`."""

import importlib

if __name__ == "__main__":
    importlib.import_module("finetune.study.cli").main(prog_name="rramsim")
