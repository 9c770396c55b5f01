"""Approvals: who was asked, who voted, and when a job's next deadline is.

Nothing that exists is rewritten. MySQL cannot undo a CREATE TABLE, so each step looks first whether
an interrupted run has taken it already.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDED = ("approvals", "approval_seats", "votes")
DEADLINES = "idx_jobs_next_due"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
OPTIONS = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
    "sqlite_autoincrement": True,
}


def exact(length):
    """Return a text type that tells every character apart."""
    binary = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def attempt_of_a_task(table):
    """Return the columns that say which attempt of which task a row belongs to."""
    key = sa.ForeignKey("job_tasks.id", name=f"fk_{table}_job_task_id", ondelete="CASCADE")
    return (
        sa.Column("id", ID, primary_key=True, autoincrement=True),
        sa.Column("job_task_id", ID, key, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
    )


def required(name, kind):
    """Return a column that is never null."""
    return sa.Column(name, kind, nullable=False)


def add_approvals():
    """Add the table of approvals: one row for each attempt of an approval task."""
    op.create_table(
        "approvals",
        *attempt_of_a_task("approvals"),
        required("needed", sa.Integer),
        required("electorate", sa.Integer),
        required("n_escalations", sa.Integer),
        sa.Column("outcome", sa.String(20)),
        required("requested_at", INSTANT),
        sa.Column("decided_at", INSTANT),
        sa.UniqueConstraint("job_task_id", "attempt", name="uk_approvals_attempt"),
        sa.Index("idx_approvals_job", "job_id"),
        if_not_exists=True,
        **OPTIONS,
    )


def add_seats():
    """Add the table of seats: one row for each user or role that may sit on one."""
    op.create_table(
        "approval_seats",
        *attempt_of_a_task("approval_seats"),
        required("seat", sa.Integer),
        required("label", exact(100)),
        required("candidate", exact(120)),
        required("is_required", sa.Boolean),
        required("origin", sa.String(20)),
        sa.Column("principal_id", sa.BigInteger),
        required("is_open", sa.Boolean),
        required("created_at", INSTANT),
        sa.Column("removed_at", INSTANT),
        sa.Index("idx_approval_seats_candidate", "is_open", "candidate", "job_task_id"),
        sa.Index("idx_approval_seats_attempt", "job_task_id", "attempt"),
        if_not_exists=True,
        **OPTIONS,
    )


def add_votes():
    """Add the table of votes, those that were withdrawn included."""
    op.create_table(
        "votes",
        *attempt_of_a_task("votes"),
        required("user_id", sa.BigInteger),
        sa.Column("on_behalf_of", sa.BigInteger),
        required("decision", sa.String(20)),
        sa.Column("seat", sa.Integer),
        sa.Column("seat_label", exact(100)),
        sa.Column("comment", sa.Text),
        sa.Column("roles", sa.JSON),
        required("is_verified", sa.Boolean),
        required("created_at", INSTANT),
        sa.Column("withdrawn_at", INSTANT),
        sa.Index("idx_votes_attempt", "job_task_id", "attempt"),
        sa.Index("idx_votes_job", "job_id"),
        sa.Index("idx_votes_user", "user_id", "created_at"),
        if_not_exists=True,
        **OPTIONS,
    )


def upgrade():
    """Add the tables, and the next deadline to each job."""
    inspector = sa.inspect(op.get_bind())
    if "next_due_at" not in {column["name"] for column in inspector.get_columns("jobs")}:
        op.add_column("jobs", sa.Column("next_due_at", INSTANT))
    if DEADLINES not in {index["name"] for index in inspector.get_indexes("jobs")}:
        op.create_index(DEADLINES, "jobs", ["next_due_at"])
    add_approvals()
    add_seats()
    add_votes()


def downgrade():
    """Drop them; votes and seats are lost, the results of decided approvals stay in their tasks."""
    inspector = sa.inspect(op.get_bind())
    for table in reversed(ADDED):
        op.drop_table(table, if_exists=True)
    if DEADLINES in {index["name"] for index in inspector.get_indexes("jobs")}:
        op.drop_index(DEADLINES, "jobs")
    if "next_due_at" in {column["name"] for column in inspector.get_columns("jobs")}:
        op.drop_column("jobs", "next_due_at")
