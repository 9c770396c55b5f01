"""Give tests, notebooks and users something to work with: sample data, a clock, a scratch client.

>>> from datetime import UTC, datetime
>>> from gwf.testing import sample_history, scratch_client
>>> wf = scratch_client()
>>> job_ids = sample_history(wf, n_jobs=30, now=datetime(2026, 3, 2, 4, tzinfo=UTC))
>>> len(wf.jobs())
30
"""

from __future__ import annotations

from gwf.testing.clock import FixedClock, scratch_client
from gwf.testing.flows import sample_flows
from gwf.testing.history import sample_history
from gwf.testing.jobs import sample_job

__all__ = ["FixedClock", "sample_flows", "sample_history", "sample_job", "scratch_client"]
