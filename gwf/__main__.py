"""Run the command line: ``python -m gwf``."""

from __future__ import annotations

from gwf.cli import main

if __name__ == "__main__":
    main()
