"""The words of the design are the words of the tables, the frames, the records and the verbs."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest
import sqlalchemy as sa

import gwf
from gwf import model, published, queries, schemas
from gwf.client import Client, Job, JobTask
from gwf.tables import UtcDateTime, metadata

JOB_STATUSES = "pending running completed failed cancelled"
JOB_TASK_STATUSES = "pending running completed failed skipped rolled_back"
TASK_TYPES = "manual automated approval"
ACTIONS = (
    "create start complete fail skip rollback retry cancel pause resume reopen vote withdraw "
    "transfer delegate add_signer remove_signer timeout context refuse"
)
JOB_VERBS = ["start", "cancel", "pause", "resume", "reopen"]
TASK_VERBS = ["start", "complete", "fail", "skip", "rollback", "retry"]
VERBS = {
    "job": ["create", *JOB_VERBS],
    "task": ["create", "update", "delete", "next", *TASK_VERBS],
    "flow": ["create", "update", "delete"],
}
SCHEMAS = {
    name: schema
    for name, schema in vars(schemas).items()
    if name.isupper() and isinstance(schema, dict)
}
RECORDS = [
    record
    for record in vars(model).values()
    if inspect.isclass(record) and issubclass(record, model.Record) and record is not model.Record
]
COLUMNS = [(table.name, column) for table in metadata.sorted_tables for column in table.c]
#: What the published schema calls its own; new names keep to the words of the design.
PUBLISHED = {
    (table.name, column.name)
    for table in published.published_schema("mysql").sorted_tables
    for column in table.c
}
#: Words that the design gives to something else, or that say nothing.
FORBIDDEN = ("executor_", "assignee", "_ts", "_date", "_time", "_ms", "datetime", "workflow")
FORBIDDEN += ("uuid",)


def names_of_frames() -> list[tuple[str, str, object]]:
    """Return the frame, the column and the dtype of each column of each frame."""
    return [
        (frame, name, dtype) for frame, schema in SCHEMAS.items() for name, dtype in schema.items()
    ]


@pytest.mark.parametrize(
    ("enum", "words"),
    [
        (gwf.JobStatus, JOB_STATUSES),
        (gwf.JobTaskStatus, JOB_TASK_STATUSES),
        (gwf.TaskType, TASK_TYPES),
        (gwf.Action, ACTIONS),
    ],
)
def test_enum_has_exactly_the_words_of_the_design(enum: type, words: str) -> None:
    """In the order of the design; a member is named as its value, and is its value."""
    assert [str(member) for member in enum] == words.split()  # type: ignore[attr-defined]  # an enum
    for member in enum:  # type: ignore[attr-defined]  # as above
        assert member.name == member.value.upper()
        assert member == member.value


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (schemas.TASK_TYPE, TASK_TYPES),
        (schemas.JOB_STATUS, JOB_STATUSES),
        (schemas.TASK_STATUS, JOB_TASK_STATUSES),
        (schemas.ACTION, ACTIONS),
    ],
)
def test_category_of_a_frame_has_the_words_of_the_enum(dtype: object, words: str) -> None:
    assert list(dtype.categories) == words.split()  # type: ignore[attr-defined]  # a CategoricalDtype


def test_transitions_use_the_words_of_the_statuses() -> None:
    """Every status is reached and left by some verb, but for those that are an end."""
    for transitions, words in (
        (model.JOB_TASK_TRANSITIONS, JOB_TASK_STATUSES),
        (model.JOB_TRANSITIONS, JOB_STATUSES),
    ):
        reached = {transition.to_status for transition in transitions} | {"pending"}
        left = {transition.from_status for transition in transitions}
        assert reached == set(words.split())
        assert left == set(words.split()) - {"cancelled"}
        assert {transition.action for transition in transitions} <= set(gwf.Action)


def test_operator_is_a_person_and_executor_is_code() -> None:
    """The tables keep ``job_tasks.executor_id``; elsewhere a person is an operator.

    An executor is the code that runs an automated task, so it has a name and never an id.
    """
    stored = {(table, column.name) for table, column in COLUMNS if "executor" in column.name}
    assert stored == {
        ("job_tasks", "executor_id"),
        ("tasks", "executor"),
        ("job_tasks", "executor"),
        ("workers", "executors"),
    }
    assert [(table, column.name) for table, column in COLUMNS if column.key == "operator_id"] == [
        ("job_tasks", "executor_id"),
        ("job_task_attempts", "operator_id"),
        ("job_task_logs", "operator_id"),
    ]
    assert not [name for _, name, _ in names_of_frames() if "executor_" in name]
    for verb in vars(Client) | vars(Job) | vars(JobTask):
        assert "executor" not in verb


def test_records_have_the_names_of_the_columns() -> None:
    """Each field of a record of a table is a column of it, under the key that Python uses."""
    pairs = [
        (model.TaskRecord, queries.TASK_COLUMNS),
        (model.FlowRecord, queries.FLOW_COLUMNS),
        (model.JobRecord, queries.JOB_COLUMNS),
        (model.JobTaskRecord, queries.JOB_TASK_COLUMNS),
        (model.AttemptRecord, queries.ATTEMPT_COLUMNS),
        (model.ApprovalRecord, queries.APPROVAL_COLUMNS),
        (model.VoteRecord, queries.VOTE_COLUMNS),
        (model.ScheduleRecord, queries.SCHEDULE_COLUMNS),
        (model.WorkerRecord, queries.WORKER_COLUMNS),
    ]
    assert {record for record, _ in pairs} == set(RECORDS)
    for record, columns in pairs:
        assert [field.name for field in dataclasses.fields(record)] == [
            column.key for column in columns
        ]


def test_instants_end_in_at_and_seconds_in_s() -> None:
    """An aware UTC instant is ``*_at``, a span is ``*_s`` in frames and ``*_us`` where stored."""
    for table, column in COLUMNS:
        is_instant = isinstance(column.type, UtcDateTime)
        assert is_instant == column.name.endswith("_at"), f"{table}.{column.name}"
        assert not isinstance(column.type, sa.DateTime), f"{table}.{column.name} may be naive"
    for frame, name, dtype in names_of_frames():
        assert (dtype == schemas.INSTANT) == name.endswith("_at"), f"{frame}.{name}"
        assert (dtype == schemas.SECONDS) == name.endswith("_s"), f"{frame}.{name}"


def test_ids_counts_and_flags_say_what_they_are() -> None:
    """``*_id`` and ``n_*`` are whole numbers, ``is_*``, ``allow_*`` are statements, and back."""
    for table, column in COLUMNS:
        name = column.name
        if name.endswith("_id") or name.startswith("n_"):
            assert isinstance(column.type, sa.Integer), f"{table}.{name}"
        is_flag = isinstance(column.type, sa.Boolean)
        assert is_flag == name.startswith(("is_", "allow_")), f"{table}.{name}"
    for frame, name, dtype in names_of_frames():
        if name.endswith("_id") or name.startswith("n_"):
            assert dtype in (schemas.ID, schemas.MAYBE_ID), f"{frame}.{name}"
        if name.startswith(("is_", "allow_")):
            assert dtype == schemas.FLAG, f"{frame}.{name}"


def test_names_are_words_of_the_design() -> None:
    """No synonym and no unit that the design does not use, beyond what was published."""
    found = [(table, column.name) for table, column in COLUMNS]
    found = [pair for pair in found if pair not in PUBLISHED]
    found += [(frame, name) for frame, name, _ in names_of_frames()]
    for place, name in found:
        assert re.fullmatch(r"[a-z][a-z_]*", name), f"{place}.{name}"
        assert not [word for word in FORBIDDEN if word in name], f"{place}.{name}"


def test_frames_call_a_column_as_the_tables_do() -> None:
    """A frame's column is a table's, or an id with its noun, or one that the design derives."""
    derived = {"n_tasks", "duration_s", "wait_s", "work_s", "condition", "skip_if_false", "roles"}
    derived |= {"user", "vote_id", "is_superseded", "schedule_id"}
    derived |= {"source", "is_allowed", "summary"}
    keys = {column.key for _, column in COLUMNS}
    ids = {"task_id", "flow_id", "flow_task_id", "job_id", "job_task_id", "log_id", "user_id"}
    for frame, name, _ in names_of_frames():
        assert name in keys | ids | derived, f"{frame}.{name}"


def test_published_columns_are_still_there() -> None:
    """The schema changes additively: what was published keeps its name."""
    ours = {(table, column.name) for table, column in COLUMNS}
    assert PUBLISHED - ours == {("job_context", "updated_at")}


@pytest.mark.parametrize("noun", VERBS)
def test_verbs_are_the_same_on_the_client_and_on_objects(noun: str) -> None:
    """``wf.start_job(job)`` is ``job.start()``, and so on for each verb of the design."""
    for verb in VERBS[noun]:
        assert callable(getattr(Client, f"{verb}_{noun}")), f"{verb}_{noun}"
    for handle, verbs in ((Job, JOB_VERBS), (JobTask, TASK_VERBS)):
        for verb in verbs:
            assert callable(getattr(handle, verb)), f"{handle.__name__}.{verb}"


def test_verbs_take_an_operator_and_an_idempotency_key() -> None:
    """Every verb on a job or on its task has both, by keyword only (rule T3)."""
    verbs = [f"{verb}_job" for verb in JOB_VERBS] + [f"{verb}_task" for verb in TASK_VERBS]
    for verb in verbs:
        parameters = inspect.signature(getattr(Client, verb)).parameters
        for name in ("operator", "idempotency_key"):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, f"{verb}({name})"


def test_singular_nouns_are_objects_and_plural_ones_frames() -> None:
    """What a noun on the client returns can be told from its number."""
    for noun in ("task", "flow", "job"):
        assert inspect.signature(getattr(Client, noun)).return_annotation in (
            f"{noun.capitalize()}",
            getattr(gwf, noun.capitalize()),
        )
        plural = inspect.signature(getattr(Client, f"{noun}s")).return_annotation
        assert plural == "pd.DataFrame"
    for noun in ("flow_tasks", "job_tasks", "attempts", "logs", "context"):
        assert inspect.signature(getattr(Client, noun)).return_annotation == "pd.DataFrame"
