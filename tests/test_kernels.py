"""Let two notebooks vote at once: two real Jupyter kernels on one real MySQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import Databases
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

import gwf

ROUNDS = 20
TIMEOUT_S = 60


@contextmanager
def kernel(url: str, user: str) -> Iterator[BlockingKernelClient]:
    """Start the kernel of a notebook whose first cell connects as this user."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        reply = client.execute_interactive(
            f"import gwf; wf = gwf.connect({url!r}, user={user!r})", timeout=TIMEOUT_S
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_at_once(kernels: list[BlockingKernelClient], cell: str) -> list[str]:
    """Execute a cell in every kernel before waiting for any, and return what each came to."""
    sent = [
        client.execute("", user_expressions={"answer": cell}, reply=False) for client in kernels
    ]
    answers = []
    for client, message_id in zip(kernels, sent, strict=True):
        while True:
            reply = client.get_shell_msg(timeout=TIMEOUT_S)
            if reply["parent_header"].get("msg_id") == message_id:
                break
        answer = reply["content"]["user_expressions"]["answer"]
        is_error = answer["status"] == "error"
        answers.append(answer["ename"] if is_error else answer["data"]["text/plain"].strip("'"))
    return answers


@pytest.mark.parametrize("databases", ["mysql"], indirect=True)
def test_approve_in_two_kernels_at_once(databases: Databases) -> None:
    """Each round both people vote from their notebook: both count, and one of them decides."""
    url = databases.empty()
    with ExitStack() as stack:
        wf = stack.enter_context(gwf.connect(url))
        wf.users.add("u-pm", roles=["PM"])
        wf.users.add("u-lead", roles=["Tech Lead"])
        gate = wf.create_task(
            "需求评审", type="approval", config={"approvers": ["PM", "Tech Lead"]}
        )
        both = [stack.enter_context(kernel(url, user)) for user in ("u-pm", "u-lead")]
        for job in wf.create_jobs(wf.create_flow("F", [gate]), [str(n) for n in range(ROUNDS)]):
            task = job.start().task("需求评审").start()
            statuses = run_at_once(
                both, f"wf.approve(wf.job_task({task.id}), comment='同意').status"
            )
            assert sorted(statuses) == ["approved", "open"]
            assert [vote["user"] for vote in task.refresh().result["votes"]] != ["u-pm", "u-pm"]
            assert {vote["user"] for vote in task.result["votes"]} == {"u-pm", "u-lead"}
            assert job.status == "completed"
        job = wf.create_job("F", "veto").start()
        task = job.task("需求评审").start()
        assert (
            run_at_once(both, f"wf.reject({task.id}, comment='范围不清').status").count("rejected")
            == 1
        )
        assert (job.status, len(wf.votes(job=job))) == ("failed", 1)
