"""The wheel: what is in it, and that it works in a clean environment from another folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel once."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def _tracked(folder: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", folder]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def test_wheel_holds_the_tree(wheel: Path) -> None:
    """Every file of gwf, migrations and reports is in the wheel, and nothing else of the tree."""
    expected = _tracked("gwf")
    expected |= {f"gwf/{name}" for name in _tracked("migrations") | _tracked("reports")}
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected


def test_wheel_runs_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    """The installed command makes a database, runs the demo and lists its jobs."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*install, *constraints, str(wheel)], check=True, capture_output=True)
    work = tmp_path / "work"
    work.mkdir()
    gwf = [str(python.parent / "gwf")]
    shown = subprocess.run(
        [*gwf, "demo", "--out", "here"], cwd=work, check=True, capture_output=True, text=True
    ).stdout
    assert "rolled_back" in shown
    assert (work / "here" / "timeline.html").stat().st_size > 1_000_000
    listed = subprocess.run(
        [*gwf, "--database", "sqlite:///here/gwf.db", "jobs", "--json"],
        cwd=work,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert '"completed"' in listed
