"""Parallel groups, attempts, an audit log of whole jobs, the copy of the flow in a job.

How: the new tables are built and filled beside the old ones under a prefix and then take their
places by renaming, which MySQL does for all of them at once. Whatever goes wrong before that
leaves the old tables as they were, although MySQL cannot undo a CREATE TABLE.

What becomes of rows that GoWorkFlow wrote:

- instants were TIMESTAMPs, read through the UTC session into DATETIME(6);
- values of the context were plain text and become JSON strings;
- ``current_task_seq`` was one ahead or absent and is computed anew from the tasks;
- an ended job without ``completed_at`` (each failed one) gets its last ``updated_at``;
- the tasks that a running job waits for were due when the job was last touched; one that a
  send-back left half done is pending again.

The way back keeps what the published schema can hold. Earlier attempts, rows of the log that
concern a whole job, deleted and superseded context values, people and idempotency keys are dropped.
A flow or a job with a parallel group cannot go back at all: (flow_id, sequence) is unique there.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from gwf.errors import Conflict
from gwf.published import published_schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

PREFIX = "new_"
OLD = "old_"
COPIED = ("tasks", "flows", "flow_tasks", "jobs", "job_tasks", "job_task_logs", "job_context")
ADDED = ("job_task_attempts", "users", "user_roles", "idempotency_keys")

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
}


def exact(length):
    """Return a text type that tells every character apart."""
    binary = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def table(metadata, name, *items):
    """Add a table under its prefix, with an id unless its key is composite."""
    has_id = not any(getattr(item, "primary_key", False) for item in items)
    own_id = [sa.Column("id", ID, primary_key=True, autoincrement=True)] if has_id else []
    sa.Table(f"{PREFIX}{name}", metadata, *own_id, *items, sqlite_autoincrement=has_id, **OPTIONS)


def reference(owner, name, target, *, cascades=True, required=True, is_key=False):
    """Return a foreign key column, its constraint named after the final table."""
    key = sa.ForeignKey(
        f"{PREFIX}{target}.id",
        name=f"fk_{owner}_{name}",
        ondelete="CASCADE" if cascades else None,
    )
    return sa.Column(name, ID, key, nullable=not required, primary_key=is_key)


def instants(*names, required=False):
    """Return columns of instants."""
    return [sa.Column(name, INSTANT, nullable=not required) for name in names]


def flag(name):
    """Return a required boolean."""
    return sa.Column(name, sa.Boolean, nullable=False)


def number(name, *, required=True):
    """Return a whole number."""
    return sa.Column(name, sa.Integer, nullable=not required)


def new_schema():
    """Return the tables of this revision under their prefix."""
    metadata = sa.MetaData()
    add_definitions(metadata)
    add_jobs(metadata)
    add_job_tasks(metadata)
    add_records(metadata)
    add_people(metadata)
    return metadata


def add_definitions(metadata):
    """Add tasks, flows and flow_tasks."""
    table(
        metadata,
        "tasks",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("task_type", sa.String(50), nullable=False),
        sa.Column("config", sa.JSON),
        flag("is_active"),
        *instants("created_at", "updated_at", required=True),
        sa.Index("idx_tasks_name", "name"),
        sa.Index("idx_tasks_task_type", "task_type"),
    )
    table(
        metadata,
        "flows",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("version", sa.String(20), nullable=False),
        flag("is_active"),
        number("max_rollbacks"),
        sa.Column("created_by", sa.BigInteger),
        *instants("created_at", "updated_at", required=True),
        sa.Index("idx_flows_name", "name"),
        sa.Index("idx_flows_version", "version"),
    )
    table(
        metadata,
        "flow_tasks",
        reference("flow_tasks", "flow_id", "flows"),
        reference("flow_tasks", "task_id", "tasks"),
        number("sequence"),
        flag("is_optional"),
        flag("allow_rollback"),
        sa.Column("condition_config", sa.JSON),
        number("join_count", required=False),
        *instants("created_at", "updated_at", required=True),
        sa.Index("idx_flow_tasks_sequence", "flow_id", "sequence"),
        sa.Index("idx_flow_tasks_task", "task_id"),
    )


def add_jobs(metadata):
    """Add jobs."""
    table(
        metadata,
        "jobs",
        reference("jobs", "flow_id", "flows", cascades=False),
        sa.Column("flow_name", sa.String(100), nullable=False),
        sa.Column("flow_version", sa.String(20), nullable=False),
        sa.Column("job_name", sa.String(100), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        number("current_task_seq", required=False),
        number("n_tasks"),
        number("n_done"),
        number("n_rollbacks"),
        number("max_rollbacks"),
        sa.Column("created_by", sa.BigInteger),
        *instants("created_at", required=True),
        *instants("started_at", "resumed_at", "paused_at", "completed_at"),
        sa.Column("elapsed_us", sa.BigInteger, nullable=False),
        *instants("updated_at", required=True),
        sa.Index("idx_jobs_flow_created", "flow_id", "created_at"),
        sa.Index("idx_jobs_status_created", "status", "created_at"),
        sa.Index("idx_jobs_created", "created_at"),
    )


def add_job_tasks(metadata):
    """Add job_tasks and the attempts that were superseded."""
    outcome = ("result", "error_code", "error_message")
    table(
        metadata,
        "job_tasks",
        reference("job_tasks", "job_id", "jobs"),
        sa.Column("flow_task_id", ID, nullable=False),
        reference("job_tasks", "task_id", "tasks", cascades=False),
        number("sequence"),
        sa.Column("task_name", sa.String(100), nullable=False),
        sa.Column("task_type", sa.String(50), nullable=False),
        sa.Column("config", sa.JSON),
        flag("is_optional"),
        flag("allow_rollback"),
        sa.Column("condition_config", sa.JSON),
        number("join_count", required=False),
        sa.Column("status", sa.String(20), nullable=False),
        number("attempt"),
        flag("is_skipped"),
        sa.Column("executor_id", sa.BigInteger),
        *(sa.Column(name, outcome_type(name)) for name in outcome),
        *instants("ready_at", "started_at", "completed_at", "due_at"),
        *instants("created_at", "updated_at", required=True),
        sa.Index("idx_job_tasks_sequence", "job_id", "sequence"),
        sa.Index("idx_job_tasks_task", "task_id"),
        sa.Index("idx_job_tasks_ready", "status", "task_type", "ready_at"),
    )
    table(
        metadata,
        "job_task_attempts",
        reference("job_task_attempts", "job_task_id", "job_tasks"),
        sa.Column("job_id", ID, nullable=False),
        number("attempt"),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("operator_id", sa.BigInteger),
        *(sa.Column(name, outcome_type(name)) for name in outcome),
        *instants("ready_at", "started_at", "completed_at", "due_at"),
        *instants("superseded_at", required=True),
        sa.UniqueConstraint("job_task_id", "attempt", name="uk_job_task_attempts_attempt"),
        sa.Index("idx_job_task_attempts_job", "job_id"),
    )


def outcome_type(name):
    """Return the type of a column that holds the outcome of an attempt."""
    return {"result": sa.JSON(), "error_code": sa.String(50), "error_message": sa.Text()}[name]


def add_records(metadata):
    """Add the log and the context."""
    table(
        metadata,
        "job_task_logs",
        reference("job_task_logs", "job_id", "jobs"),
        reference("job_task_logs", "job_task_id", "job_tasks", required=False),
        number("attempt", required=False),
        sa.Column("action", sa.String(50), nullable=False),
        sa.Column("operator_id", sa.BigInteger),
        sa.Column("on_behalf_of", sa.BigInteger),
        sa.Column("from_status", sa.String(20)),
        sa.Column("to_status", sa.String(20)),
        sa.Column("message", sa.Text),
        sa.Column("metadata", sa.JSON),
        *instants("created_at", required=True),
        sa.Index("idx_job_task_logs_job", "job_id"),
        sa.Index("idx_job_task_logs_task", "job_task_id"),
        sa.Index("idx_job_task_logs_action", "action"),
        sa.Index("idx_job_task_logs_created", "created_at"),
    )
    table(
        metadata,
        "job_context",
        reference("job_context", "job_id", "jobs"),
        sa.Column("context_key", exact(255), nullable=False),
        sa.Column("context_value", sa.JSON),
        flag("is_deleted"),
        sa.Column("job_task_id", ID),
        number("attempt", required=False),
        *instants("superseded_at"),
        *instants("created_at", required=True),
        sa.Index("idx_job_context_key", "job_id", "context_key"),
    )


def add_people(metadata):
    """Add the directory and the idempotency keys."""
    table(
        metadata,
        "users",
        sa.Column("name", exact(100), nullable=False),
        sa.Column("display_name", sa.String(100)),
        flag("is_active"),
        *instants("created_at", "updated_at", required=True),
        sa.UniqueConstraint("name", name="uk_users_name"),
    )
    table(
        metadata,
        "user_roles",
        reference("user_roles", "user_id", "users", is_key=True),
        sa.Column("role", exact(100), primary_key=True),
        sa.Index("idx_user_roles_role", "role"),
    )
    table(
        metadata,
        "idempotency_keys",
        sa.Column("scope", exact(40), primary_key=True),
        sa.Column("idempotency_key", exact(255), primary_key=True),
        sa.Column("verb", sa.String(50), nullable=False),
        sa.Column("arguments", sa.String(64), nullable=False),
        sa.Column("answer", sa.JSON),
        *instants("created_at", required=True),
    )


OPEN = "('pending', 'running', 'failed', 'rolled_back')"
CREATED = "COALESCE({0}.created_at, CURRENT_TIMESTAMP)"
UPDATED = "COALESCE({0}.updated_at, {0}.created_at, CURRENT_TIMESTAMP)"
STAMPED = f"{CREATED}, {UPDATED}"
CURRENT = f"(SELECT MIN(t.sequence) FROM job_tasks t WHERE t.job_id = j.id AND t.status IN {OPEN})"

FILL = (
    f"""INSERT INTO new_tasks (id, name, description, task_type, config, is_active, created_at,
        updated_at)
    SELECT x.id, x.name, x.description, x.task_type, x.config, COALESCE(x.is_active, 1),
        {STAMPED.format("x")} FROM tasks x""",
    f"""INSERT INTO new_flows (id, name, description, version, is_active, max_rollbacks, created_by,
        created_at, updated_at)
    SELECT x.id, x.name, x.description, COALESCE(x.version, '1.0.0'), COALESCE(x.is_active, 1), 20,
        x.created_by, {STAMPED.format("x")} FROM flows x""",
    f"""INSERT INTO new_flow_tasks (id, flow_id, task_id, sequence, is_optional, allow_rollback,
        condition_config, join_count, created_at, updated_at)
    SELECT x.id, x.flow_id, x.task_id, x.sequence, COALESCE(x.is_optional, 0),
        COALESCE(x.allow_rollback, 1), x.condition_config, NULL, {STAMPED.format("x")}
    FROM flow_tasks x""",
    f"""INSERT INTO new_jobs (id, flow_id, flow_name, flow_version, job_name, status,
        current_task_seq, n_tasks, n_done, n_rollbacks, max_rollbacks, created_by, created_at,
        started_at, resumed_at, paused_at, completed_at, elapsed_us, updated_at)
    SELECT j.id, j.flow_id, f.name, COALESCE(f.version, '1.0.0'), j.job_name, j.status, {CURRENT},
        (SELECT COUNT(*) FROM job_tasks t WHERE t.job_id = j.id),
        (SELECT COUNT(*) FROM job_tasks t WHERE t.job_id = j.id
            AND t.status IN ('completed', 'skipped')),
        0, 20, j.created_by, {CREATED.format("j")}, j.started_at, j.started_at, NULL,
        CASE WHEN j.status IN ('completed', 'failed', 'cancelled')
            THEN COALESCE(j.completed_at, {UPDATED.format("j")}) END,
        0, {UPDATED.format("j")}
    FROM jobs j JOIN flows f ON f.id = j.flow_id""",
    f"""INSERT INTO new_job_tasks (id, job_id, flow_task_id, task_id, sequence,
        task_name, task_type, config, is_optional, allow_rollback, condition_config, join_count,
        status, attempt,
        is_skipped, executor_id, result, error_code, error_message, ready_at, started_at,
        completed_at, due_at, created_at, updated_at)
    SELECT x.id, x.job_id, x.flow_task_id, x.task_id, x.sequence, k.name, k.task_type, k.config,
        COALESCE(p.is_optional, 0), COALESCE(p.allow_rollback, 1), p.condition_config, NULL,
        CASE WHEN x.status = 'rolled_back' AND j.status = 'running' AND x.sequence = {CURRENT}
            THEN 'pending' ELSE x.status END,
        1, COALESCE(x.is_skipped, 0), x.executor_id, x.result, NULL, x.error_message,
        CASE WHEN x.status IN ('pending', 'rolled_back') AND j.status = 'running'
            AND x.sequence = {CURRENT} THEN {UPDATED.format("j")} END,
        x.started_at, x.completed_at, NULL, {STAMPED.format("x")}
    FROM job_tasks x JOIN jobs j ON j.id = x.job_id JOIN tasks k ON k.id = x.task_id
    LEFT JOIN flow_tasks p ON p.id = x.flow_task_id""",
    f"""INSERT INTO new_job_task_logs (id, job_id, job_task_id, attempt, action, operator_id,
        on_behalf_of, from_status, to_status, message, metadata, created_at)
    SELECT x.id, t.job_id, x.job_task_id, 1, x.action, x.operator_id, NULL, NULL, NULL, x.message,
        x.metadata, {CREATED.format("x")}
    FROM job_task_logs x JOIN job_tasks t ON t.id = x.job_task_id""",
    f"""INSERT INTO new_job_context (id, job_id, context_key, context_value, is_deleted,
        job_task_id, attempt, superseded_at, created_at)
    SELECT x.id, x.job_id, x.context_key,
        CASE WHEN x.context_value IS NOT NULL THEN JSON_QUOTE(x.context_value) END, 0, NULL, NULL,
        NULL,
        {UPDATED.format("x")} FROM job_context x""",
)

RESTORE = (
    """INSERT INTO new_tasks (id, name, description, task_type, config, is_active, created_at,
        updated_at)
    SELECT id, name, description, task_type, config, is_active, created_at, updated_at
    FROM tasks""",
    """INSERT INTO new_flows (id, name, description, version, is_active, created_by, created_at,
        updated_at)
    SELECT id, name, description, version, is_active, created_by, created_at, updated_at
    FROM flows""",
    """INSERT INTO new_flow_tasks (id, flow_id, task_id, sequence, is_optional, allow_rollback,
        condition_config, created_at, updated_at)
    SELECT id, flow_id, task_id, sequence, is_optional, allow_rollback, condition_config,
        created_at, updated_at FROM flow_tasks""",
    """INSERT INTO new_jobs (id, flow_id, job_name, status, current_task_seq, started_at,
        completed_at, created_by, created_at, updated_at)
    SELECT id, flow_id, job_name, status, current_task_seq, started_at, completed_at, created_by,
        created_at, updated_at FROM jobs""",
    """INSERT INTO new_job_tasks (id, job_id, flow_task_id, task_id, sequence, status, is_skipped,
        executor_id, result, error_message, started_at, completed_at, created_at, updated_at)
    SELECT id, job_id, flow_task_id, task_id, sequence, status, is_skipped, executor_id, result,
        error_message, started_at, completed_at, created_at, updated_at FROM job_tasks""",
    """INSERT INTO new_job_task_logs (id, job_task_id, action, operator_id, message, metadata,
        created_at)
    SELECT id, job_task_id, action, operator_id, message, metadata, created_at FROM job_task_logs
    WHERE job_task_id IS NOT NULL""",
    """INSERT INTO new_job_context (id, job_id, context_key, context_value, created_at, updated_at)
    SELECT id, job_id, context_key, {text}, created_at, created_at
    FROM job_context x WHERE superseded_at IS NULL AND is_deleted = 0 AND NOT EXISTS (
        SELECT 1 FROM job_context newer WHERE newer.job_id = x.job_id
        AND newer.context_key = x.context_key AND newer.id > x.id
        AND newer.superseded_at IS NULL)""",
)
TEXT = {
    "sqlite": "CASE WHEN json_type(context_value) = 'text' "
    "THEN json_extract(context_value, '$') ELSE context_value END",
    "mysql": "JSON_UNQUOTE(context_value)",
    "mariadb": "JSON_UNQUOTE(context_value)",
}


def upgrade():
    """Build our tables from the published ones."""
    connection = op.get_bind()
    if is_replaced(connection):
        return
    replace(connection, new_schema(), FILL, added=ADDED, removed=())


def downgrade():
    """Build the published tables from ours, as far as they can hold it."""
    connection = op.get_bind()
    dialect = connection.dialect.name
    names = sa.inspect(connection).get_table_names()
    if "users" not in names and f"{OLD}tasks" not in names:
        return  # an earlier run was interrupted at its very end
    fill = [statement.replace("{text}", TEXT[dialect]) for statement in RESTORE]
    schema = published_schema(dialect, prefix=PREFIX)
    replace(connection, schema, fill, added=(), removed=ADDED)


def expect_reversible(connection):
    """Refuse to go back before anything is changed, where the published schema is too small."""
    names = sa.inspect(connection).get_table_names()
    if "users" in names and f"{OLD}tasks" not in names:
        expect_sequential(connection)


def is_replaced(connection):
    """Say whether an earlier run was interrupted at its very end."""
    names = sa.inspect(connection).get_table_names()
    return "users" in names and f"{OLD}tasks" not in names


def expect_sequential(connection):
    """Refuse to go back while the published schema cannot hold a flow or a job."""
    groups = connection.exec_driver_sql(
        "SELECT flow_id FROM flow_tasks GROUP BY flow_id, sequence HAVING COUNT(*) > 1"
    ).fetchall()
    if groups:
        flows = ", ".join(sorted({str(row[0]) for row in groups}))
        raise Conflict(
            f"cannot go back to revision 0001: flows {flows} have parallel groups, which the "
            "published schema cannot hold; give their tasks different sequences first"
        )
    lost = connection.exec_driver_sql(
        "SELECT COUNT(*) FROM job_tasks t LEFT JOIN flow_tasks p ON p.id = t.flow_task_id "
        "WHERE p.id IS NULL"
    ).scalar()
    expect_distinct_keys(connection)
    if lost:
        raise Conflict(
            f"cannot go back to revision 0001: {lost} job tasks belong to positions that were "
            "edited out of their flow, which the published schema cannot hold"
        )


def expect_distinct_keys(connection):
    """Refuse to go back while keys differ only in what the published collation takes for equal."""
    if connection.dialect.name == "sqlite":
        return
    alike = connection.exec_driver_sql(
        "SELECT MIN(context_key) FROM job_context WHERE superseded_at IS NULL AND is_deleted = 0 "
        "GROUP BY job_id, context_key COLLATE utf8mb4_unicode_ci "
        "HAVING COUNT(DISTINCT context_key) > 1"
    ).fetchall()
    if alike:
        keys = ", ".join(sorted({row[0] for row in alike}))
        raise Conflict(
            f"cannot go back to revision 0001: context keys like {keys} differ only in case, which "
            "the published schema cannot tell apart; rename them first"
        )


def replace(connection, schema, fill, *, added, removed):
    """Build and fill new tables beside the old ones, then let them take their places."""
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
    try:
        if f"{OLD}tasks" not in sa.inspect(connection).get_table_names():
            build(connection, schema, fill)
            take_places(connection, added=added, removed=removed)
        # else an earlier run was interrupted after the renaming
        for name in (*removed, *reversed(COPIED)):
            connection.exec_driver_sql(f"DROP TABLE IF EXISTS {OLD}{name}")
    finally:
        if not is_sqlite:
            connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 1")


def build(connection, schema, fill):
    """Create the new tables under their prefix and copy the rows into them."""
    schema.drop_all(connection)  # what an earlier, interrupted run left behind
    schema.create_all(connection)
    for statement in fill:
        connection.exec_driver_sql(statement)


def take_places(connection, *, added, removed):
    """Rename the old tables away and the new ones into place."""
    moves = [(name, f"{OLD}{name}") for name in (*COPIED, *removed)]
    moves += [(f"{PREFIX}{name}", name) for name in (*COPIED, *added)]
    if connection.dialect.name == "sqlite":
        for before, after in moves:
            connection.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")
    else:
        renames = ", ".join(f"{before} TO {after}" for before, after in moves)
        connection.exec_driver_sql(f"RENAME TABLE {renames}")
