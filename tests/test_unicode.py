"""Show that every text comes back as it went in: the last row of the table of semantics.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import Databases

import gwf

#: Texts of one line, as names may be; each has broken some database, driver or formatter.
NAMES = (
    "部署审批",
    "😀👩‍👩‍👧‍👦🇨🇳",
    "𠮷野家 𝒳",
    "O'Reilly \"quoted\" `ticked` ''",
    "100% %s %(name)s %% {0} {name} $1 :name ?",
    "C:\\new\\table\\",
    "'; DROP TABLE jobs; --",
    "Zoë cafe\u0301 straße",
    "\u202eعربي עברית\u202c",
    "\u200b‹zero width›\ufeff|",
)
LINES = "first\nsecond\r\n\tthird \\n \\' \\0 \x01 \u2028 end\\"
TEXTS = (*NAMES, LINES)
#: One value that holds every text as key and as value, nested.
JSON = {"keys": dict.fromkeys(TEXTS, True), "values": [*TEXTS, "", " "], "deep": [[{"键": None}]]}

#: Texts that a usual collation takes for equal, in pairs or more.
ALIKE = ("Env", "env", "ENV", "🍎", "🍐", "e", "é", "e\u0301", "ss", "ß", "a b", "a  b")


def started(wf: gwf.Client, *steps: Any, **options: Any) -> gwf.Job:
    wf.create_task("A")
    wf.create_task("B")
    return wf.create_job(wf.create_flow("F", steps), "J", **options).start()


def test_every_name(wf: gwf.Client) -> None:
    """A name is found by itself, and stands unchanged in objects, frames, messages and the log."""
    for text in NAMES:
        _walk_under_the_name(wf, text)


def _walk_under_the_name(wf: gwf.Client, text: str) -> None:
    task = wf.create_task(text, description=text, config={text: text})
    flow = wf.create_flow(text, [text], description=text)
    job = wf.create_job(text, text)
    assert (wf.task(text).id, wf.flow(text).id) == (task.id, flow.id)
    record = wf.task(text).record
    assert (record.name, record.description, record.config) == (text, text, {text: text})
    assert (wf.flow(text).record.name, wf.flow(text).record.description) == (text, text)
    assert (job.record.job_name, job.record.flow_name) == (text, text)
    assert job.start().task(text).config == {text: text}
    assert list(wf.jobs(flow=text)["job_name"]) == [text]
    assert list(wf.attempts(flow=text)["task_name"]) == [text]
    job.task(text).start()
    assert list(wf.logs(flow=text)["task_name"].dropna()) == [text]
    with pytest.raises(gwf.Conflict) as refusal:
        job.task(text).start()
    assert repr(text) in str(refusal.value)


def test_every_result(wf: gwf.Client) -> None:
    """A result and a config come back equal, from the record, the frame and the history."""
    wf.create_task("A", config=JSON)
    job = wf.create_job(wf.create_flow("F", ["A"]), "J").start()
    job.task("A").start().complete(JSON)
    assert (job.task("A").result, job.task("A").config) == (JSON, JSON)
    assert job.tasks()["result"].iloc[0] == JSON
    assert wf.tasks()["config"].iloc[0] == JSON
    job.reopen(to=1, reason="again")
    assert job.task("A").previous_attempt.result == JSON
    assert job.attempts()["result"].iloc[0] == JSON


def test_every_result_that_is_a_text(wf: gwf.Client) -> None:
    """A bare text is JSON too, and the answer stored under a key says the same."""
    wf.create_task("A")
    wf.create_flow("F", ["A"])
    for text in TEXTS:
        job = wf.create_job("F", "J").start()
        task_id = job.task("A").start().id
        for _ in range(2):
            assert wf.complete_task(task_id, text, idempotency_key="k").result == text
        assert job.task("A").result == text


def test_every_context_value(wf: gwf.Client) -> None:
    """Values given with the job, set later and written by a task come back equal."""
    keys = dict(zip(NAMES, TEXTS, strict=False))
    job = started(wf, "A", context=keys)
    assert dict(job.context) == keys
    job.context["set"] = JSON
    job.task("A").start().complete(context={"done": JSON})
    assert dict(job.context) == {**keys, "set": JSON, "done": JSON}
    frame = wf.context(job)
    assert dict(zip(frame["key"], frame["value"], strict=True)) == dict(job.context)


def test_every_reason(wf: gwf.Client) -> None:
    """Reasons and error messages come back unchanged, from the log and from the task."""
    wf.create_task("A")
    wf.create_task("B")
    wf.create_flow("F", ["A", gwf.Step("B", optional=True)])
    for text in TEXTS:
        _walk_for_the_reason(wf.create_job("F", "J").start(), text)


def _walk_for_the_reason(job: gwf.Job, text: str) -> None:
    job.pause(reason=text)
    job.resume()
    job.task("A").start().fail(text)
    assert job.task("A").error_message == text
    job.retry("A", reason=text)
    assert job.task("A").previous_attempt.error_message == text
    job.task("A").start().complete()
    job.skip("B", reason=text)
    job.reopen(to=1, reason=f"x{text}x")
    job.cancel(reason=text)
    expected = [text, text, text, text, f"x{text}x", f"x{text}x", f"x{text}x", text]
    found = job.logs()
    kept = found["message"].notna() & ~found["message"].str.endswith(" failed", na=False)
    assert list(found.loc[kept, "message"]) == expected


def test_create_jobs_with_every_name(wf: gwf.Client) -> None:
    """The bulk path keeps every name and every context with its own job."""
    wf.create_task("A")
    wf.create_flow("F", ["A"])
    jobs = wf.create_jobs("F", NAMES, contexts=[{name: [name, JSON]} for name in NAMES])
    assert [job.record.job_name for job in jobs] == list(NAMES)
    assert [dict(job.context) for job in jobs] == [{name: [name, JSON]} for name in NAMES]


# Names that only a human eye or a program tells apart


def test_context_keys_that_look_alike(wf: gwf.Client) -> None:
    """Each key keeps its own value: case, accents, emoji and inner blanks count."""
    values = {key: number for number, key in enumerate(ALIKE)}
    job = started(wf, "A", context={"Env": "first"})
    job.context.update(values)
    assert dict(job.context) == values
    assert set(wf.context(job)["key"]) == set(ALIKE)
    del job.context["🍎"]
    del job.context["ENV"]
    assert set(job.context) == set(ALIKE) - {"🍎", "ENV"}
    assert job.context["🍐"] == values["🍐"]
    with pytest.raises(gwf.NotFound):
        job.context["eNV"]


def test_names_that_look_alike(wf: gwf.Client) -> None:
    """Tasks, flows and tasks of a job are found by exactly their own name."""
    tasks = {name: wf.create_task(name).id for name in ALIKE}
    flows = {name: wf.create_flow(name, [list(ALIKE)]).id for name in ALIKE}
    assert {name: wf.task(name).id for name in ALIKE} == tasks
    assert {name: wf.flow(name).id for name in ALIKE} == flows
    job = wf.create_job("🍐", "J").start()
    assert job.record.flow_name == "🍐"
    for number, name in enumerate(ALIKE):
        job.task(name).start().complete(number)
    assert {name: job.task(name).result for name in ALIKE} == {
        name: number for number, name in enumerate(ALIKE)
    }
    assert list(wf.jobs(flow="🍐")["job_id"]) == [job.id]
    assert wf.jobs(flow="🍎").empty
    for name in ("eNV", "🍊", "E", "É"):
        with pytest.raises(gwf.TaskNotFound):
            wf.task(name)
        with pytest.raises(gwf.FlowNotFound):
            wf.create_job(name, "K")
        with pytest.raises(gwf.JobTaskNotFound):
            job.task(name)


def test_idempotency_keys_that_look_alike(wf: gwf.Client) -> None:
    """Each key is its own: another one does its work anew."""
    wf.create_task("A")
    flow = wf.create_flow("F", ["A"])
    ids = [wf.create_job(flow, "J", idempotency_key=key).id for key in ALIKE]
    assert len(set(ids)) == len(ALIKE)
    assert [wf.create_job(flow, "J", idempotency_key=key).id for key in ALIKE] == ids
    job = wf.job(ids[0])
    for key in ALIKE:
        wf.set_context(job, {key: 1}, idempotency_key=key)
    assert set(job.context) == set(ALIKE)


def test_users_and_roles_that_look_alike(wf: gwf.Client) -> None:
    """Each is a person of their own, found by exactly their own name."""
    roles = [f"role {name}" for name in ALIKE]
    ids = {name: wf.users.add(name, roles=roles, display_name=name) for name in ALIKE}
    frame = wf.users()
    assert dict(zip(frame["name"], frame["user_id"], strict=True)) == ids
    assert list(frame["display_name"]) == list(ALIKE)
    assert all(sorted(held) == sorted(roles) for held in frame["roles"])
    job = started(wf, "A")
    for name in ALIKE:
        job.pause(operator=name).resume(operator=name)
        row = job.logs().iloc[-1]
        assert row["operator_id"] == ids[name]
        assert sorted(row["metadata"]["roles"]) == sorted(roles)


def test_users_of_every_name(wf: gwf.Client) -> None:
    """Every name and role comes back unchanged, and the name can be used."""
    job = started(wf, "A")
    for number, name in enumerate(NAMES):
        role = f"{name}!"
        user_id = wf.users.add(name, roles=[role], display_name=name)
        row = wf.users().to_dict("records")[number]
        assert (row["name"], row["display_name"], row["roles"]) == (name, name, [role])
        job.pause(operator=name).resume(operator=name)
        assert job.logs()["operator_id"].iloc[-1] == user_id


def test_conditions_tell_texts_apart(wf: gwf.Client) -> None:
    """A condition reads 中文 and emoji names, and compares to the letter."""
    condition = (
        "results['审批🍎'].意见 == '同意👍' && results['审批🍎'].意见 != '同意👎'"
        " && context.Env == 'prod' && context.env == 'test' && !('ENV' in context)"
    )
    wf.create_task("审批🍎")
    wf.create_task("审批🍐")
    quoted = gwf.Step("B", condition="results['审批🍎'][\"意见\"] == '同意👍'")
    task_a = gwf.Step("A", condition=condition.replace(".意见", "['意见']"))
    job = started(
        wf, ["审批🍎", "审批🍐"], [task_a, quoted], context={"Env": "prod", "env": "test"}
    )
    job.task("审批🍐").start().complete({"意见": "不同意"})
    job.task("审批🍎").start().complete({"意见": "同意👍"})
    assert list(job.tasks()["status"]) == ["completed", "completed", "pending", "pending"]
    stored = wf.flow_tasks("F")["condition"]
    assert task_a.condition in set(stored)
    (metadata,) = [found for found in job.logs()["metadata"] if found]
    assert {one["condition"] for one in metadata["conditions"]} == {
        task_a.condition,
        quoted.condition,
    }


# What is refused, alike on every database


def test_create_task_with_a_name_that_is_none(wf: gwf.Client) -> None:
    """Control characters, half characters, blanks and 101 characters are Invalid everywhere."""
    for name in ("a\nb", "a\tb", "a\x00b", "\x7f", "half \ud83d", "\u3000", "界" * 101):
        with pytest.raises(gwf.Invalid):
            wf.create_task(name)
    assert wf.tasks().empty
    assert wf.create_task("界" * 100).name == "界" * 100


def test_complete_task_with_half_a_character(wf: gwf.Client) -> None:
    """A lone surrogate is no text: Invalid, as a result, in the context and as a reason."""
    job = started(wf, "A")
    task = job.task("A").start()
    for text in ("half \ud83d", {"\udc00": 1}, ["\ud800"]):
        with pytest.raises(gwf.Invalid):
            task.complete(text)
        with pytest.raises(gwf.Invalid):
            task.set_context(n=text)
    with pytest.raises(gwf.Invalid):
        job.pause(reason="half \ud83d")
    assert job.task("A").status == "running"


def test_every_text_at_its_longest(wf: gwf.Client) -> None:
    """16,000 characters of four bytes fit a reason, 255 a context key; one more is Invalid."""
    job = started(wf, "A")
    job.pause(reason="𠮷" * 16_000).resume()
    assert job.logs()["message"].iloc[-2] == "𠮷" * 16_000
    job.context["𠮷" * 255] = "𠮷" * 50_000
    assert dict(job.context) == {"𠮷" * 255: "𠮷" * 50_000}
    with pytest.raises(gwf.Invalid):
        job.pause(reason="𠮷" * 16_001)
    with pytest.raises(gwf.Invalid):
        job.context["𠮷" * 256] = 1


# Passwords

PASSWORDS = ("p@ss:w/o?r#d%40&=+", "密码 𠮷🔑", "a'b\"c\\d`e", "%s%%(x)s", "Zoë ÿ€")


def test_connect_with_every_password(databases: Databases) -> None:
    """A password of any character opens the database, from an object and a text, unseen."""
    url = sa.make_url(databases.new())
    if databases.server is None:
        for text in PASSWORDS:  # a file has no password; its name is what may hold anything
            name = text.replace("/", "-")
            with gwf.connect(url.set(database=f"{url.database}-{name}")) as wf:
                assert wf.create_task(text).name == text
            assert Path(f"{url.database}-{name}").exists()
        return
    engine = sa.create_engine(databases.server.url, poolclass=sa.NullPool)
    schema = str(url.database).replace("_", r"\_")
    with engine.begin() as conn:
        conn.exec_driver_sql("DROP USER IF EXISTS gwf_text")
        conn.exec_driver_sql("CREATE USER gwf_text")
        conn.exec_driver_sql(f"GRANT ALL ON `{schema}`.* TO gwf_text")
    for text in PASSWORDS:
        with engine.begin() as conn:
            conn.exec_driver_sql("ALTER USER gwf_text IDENTIFIED BY %s", (text,))
        own = url.set(username="gwf_text", password=text)
        for address in (own, own.render_as_string(hide_password=False)):
            with gwf.connect(address) as wf:
                assert wf.create_task(text).name == text
                assert text not in f"{wf!r} {wf.database!r}"
        with pytest.raises(gwf.DatabaseUnavailable, match="password") as refusal:
            gwf.connect(own.set(password=f"{text}x"))
        assert text not in str(refusal.value)
    with engine.begin() as conn:
        conn.exec_driver_sql("DROP USER gwf_text")
