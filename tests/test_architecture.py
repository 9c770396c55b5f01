"""The house: what may be imported, what is public, how large a room may be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import gwf
from gwf import errors
from gwf.model import JOB_TASK_TRANSITIONS, JOB_TRANSITIONS, JobStatus, JobTaskStatus

PACKAGE = Path(gwf.__file__).parent
HEAVY = ("pandas", "plotly", "sqlalchemy", "pymysql", "alembic", "ipywidgets", "IPython", "cel")


def _modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_gwf_is_light() -> None:
    """Importing gwf loads none of the heavy packages."""
    assert not _modules_after("import gwf") & set(HEAVY)


def test_import_client_leaves_frames_alone() -> None:
    """The verbs work without pandas and plotly being loaded."""
    loaded = _modules_after("import gwf; gwf.connect('sqlite://').create_task('x')")
    assert "sqlalchemy" in loaded
    assert not loaded & {"pandas", "plotly", "IPython"}


def test_all_is_sorted_and_complete() -> None:
    """Each public name is in __all__, in order, and can be had."""
    assert gwf.__all__ == sorted(gwf.__all__)
    assert set(gwf.__all__) == set(gwf._HOMES)
    for name in gwf.__all__:
        assert getattr(gwf, name).__name__ == name


def test_error_tree_is_public_and_documented() -> None:
    """Each error inherits the root and a builtin, and stands in the drawing."""
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    tree = [cls for cls in classes if issubclass(cls, errors.GwfError)]
    assert len(tree) > 15
    for cls in tree:
        assert cls.__name__ in (errors.__doc__ or "")
        assert cls.__name__ in gwf.__all__
        if cls is not errors.GwfError:
            builtin = [base for base in cls.__mro__ if base.__module__ == "builtins"]
            assert builtin[0] is not Exception


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_module_is_of_one_screenful_of_verbs(path: Path) -> None:
    """A module stays near 400 lines; a larger one lacks a noun."""
    assert len(path.read_text().splitlines()) <= 440


def test_transitions_reach_every_status() -> None:
    """Each status can be reached from pending by the table of transitions."""
    for table, statuses in ((JOB_TASK_TRANSITIONS, JobTaskStatus), (JOB_TRANSITIONS, JobStatus)):
        reached = {"pending"}
        for _ in statuses:
            reached |= {t.to_status for t in table if t.from_status in reached}
        assert reached == set(statuses)


def test_no_utils_drawer() -> None:
    """No module is named after what it is not."""
    names = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "base", "manager", "misc"}
