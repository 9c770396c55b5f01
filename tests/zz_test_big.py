import pytest, gwf
import sqlalchemy as sa
@pytest.mark.parametrize("frame",["tasks","job_tasks","attempts","context","find"])
@pytest.mark.parametrize("mb",[1,2,4,8])
def test_big_frames(wf, frame, mb):
    if not wf.database.is_sqlite:
        wf.database.close()
        @sa.event.listens_for(wf.database.engine, "connect")
        def prep(c, r):
            c.cursor().execute(f"SET SESSION sort_buffer_size={mb}*1024*1024")
    big = "x"*999_990
    for n in "ABC": wf.create_task(n, config={"x": big[:900_000]} if n == "C" else None)
    f = wf.create_flow("F", ["A","B"])
    for i in range(3):
        j2 = wf.create_job(f, "J", context={"x": big[:900_000]}).start()
        j2.task("A").start().complete(big)
        j2.task("B").start().rollback(to=1, reason="r")
    if frame == "find": wf.task("C"); dict(j2.context)
    else: getattr(wf, frame)(**({"job":j2} if frame in ("context",) else {}))
    if frame in("job_tasks","attempts","logs"): getattr(wf, frame)(job=j2)
    j2.explain()
