"""A parser of command lines that says what is wrong in one line, as `dcrun` does."""

from __future__ import annotations

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Parses arguments; argparse's own prints the usage before what is wrong, which then is out of sight."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help lists the flags\n")
