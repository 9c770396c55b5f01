"""Find the folders that ship with gwf, installed or in a checkout.

Why: ``migrations`` and ``reports`` stand at the top level of the repository, where people look for
them, and are packaged inside ``gwf/`` so that a wheel carries them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def directory(name: Literal["migrations", "reports"]) -> Path:
    """Return the folder of this name.

    Raises
    ------
    FileNotFoundError
        The installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"the folder {name!r} is missing from this installation of gwf")
