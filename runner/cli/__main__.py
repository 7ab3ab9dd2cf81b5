"""`python -m runner.cli` is `dcrun`."""

import sys

from runner.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
