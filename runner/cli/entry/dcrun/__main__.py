"""`python -m dcrun` is the command `dcrun`, also for `torchrun -m dcrun`."""

import sys

from dcrun import main

if __name__ == "__main__":
    sys.exit(main())
