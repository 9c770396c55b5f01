"""Run the Python of both READMEs, block after block, as a reader would in a new folder."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_runs_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks follow from one another, and end with an approval that was granted."""
    for variable in [one for one in os.environ if one.startswith(("DB_", "GWF_DATABASE"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{name} block {number}", "exec"), names)  # noqa: S102 - our own text
    assert names["job"].status == "completed"
    assert names["wf"].votes()["decision"].tolist() == ["approve", "approve"]
    names["wf"].close()
