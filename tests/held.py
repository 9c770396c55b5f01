"""See what programs hold a named pipe open: who lets go of it has ended."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 60


@dataclass
class Held:
    """Read what is written into the pipe, and see when nobody holds it any more."""

    path: Path
    reader: int
    text: str = ""

    @classmethod
    def at(cls, path: Path) -> Held:
        """Make the pipe."""
        os.mkfifo(path)
        return cls(path, os.open(path, os.O_RDONLY | os.O_NONBLOCK))

    def has_begun(self) -> bool:
        """Wait until somebody wrote into the pipe, or was the last to let go of it."""
        return bool(select.select([self.reader], [], [], PATIENCE_S)[0])

    def first_text(self) -> str:
        """Wait until somebody writes into the pipe, and return that."""
        assert self.has_begun()
        return os.read(self.reader, 1000).decode()

    def is_free(self) -> bool:
        """Wait until everybody that held the pipe is gone; say no after a minute."""
        while self.has_begun():
            data = os.read(self.reader, 1000)
            if not data:
                return True
            self.text += data.decode()
        return False
