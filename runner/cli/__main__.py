"""`python -m runner.cli` is `dcrun`, from a clone that need not be installed."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # `-m` puts the current folder first on the path, and a `data/` or `models/` there would be imported in place of
    # ours.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    code = importlib.import_module("runner.cli.main").main()
    importlib.import_module("runner.config.process_end").end_process(code)
