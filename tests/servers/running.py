"""Start real MariaDB and MySQL servers for the test session, and stop them again.

Why
---
Data lie in a folder below ``/var/tmp`` (for MySQL, of the tree that ``install.sh`` made), and
the caller's folder receives the log: the servers run as the user ``mysql``, and pytest closes
its folders to other users, again whenever a session starts.

A server dies with the test process, even one ended by SIGKILL, through the kernel's parent
death signal. A change of user clears that signal, so ``setpriv`` changes the user first and
sets the signal last. The signal follows the thread that started the server, not its process,
so one thread that lives as long as the process starts them all.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

TIMEOUT_S = 60.0
# Nothing is flushed to the disk, but each commit reaches the kernel, and so survives `kill`.
QUICK = (
    "--skip-log-bin",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=OFF",
)
# Below the kernel's range for outgoing connections, so that a stopped server's port stays free.
# One iterator for all threads: no two servers of a session get the same port.
_PORTS = iter(random.SystemRandom().sample(range(20_000, 32_000), 12_000))
_PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
_STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-starter")


@dataclass
class Server:
    """A database server for the tests; as a context manager it stops at the end.

    `url` is a SQLAlchemy URL, of a user with all rights on databases named ``gwf_...``.
    `process` is None while the server is stopped. An external server has only a name and a URL.
    """

    name: str
    url: str = field(repr=False)
    process: subprocess.Popen[bytes] | None = None
    command: tuple[str, ...] = field(default=(), repr=False)
    data: Path | None = None
    log: Path | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        stop(self)


def mariadb_server(folder: Path, *, durable: bool = False) -> Server:
    """Return the server at ``GWF_TEST_MARIADB_URL``, else start one; see `start_mariadb`."""
    return _external_server("mariadb") or start_mariadb(folder, durable=durable)


def mysql_server(folder: Path, *, durable: bool = False) -> Server:
    """Return the server at ``GWF_TEST_MYSQL_URL``, else start one; see `start_mysql`."""
    return _external_server("mysql") or start_mysql(folder, durable=durable)


def start_mariadb(folder: Path, *, durable: bool = False) -> Server:
    """Start a MariaDB server with new data on a free port of 127.0.0.1, and wait for it.

    Parameters
    ----------
    folder
        Receives ``mariadb.log``; made if missing.
    durable
        Whether commits are flushed to the disk, as a server does by default.

    Raises
    ------
    RuntimeError
        When the server is not installed, or does not start; the message has the log's end.
    """
    if not shutil.which("mariadbd", path=_PATH):
        raise RuntimeError(_advice("mariadb", "mariadbd is not installed"))
    options = ("--no-defaults",) if durable else ("--no-defaults", *QUICK)
    initialise = ("mariadb-install-db", *options, "--skip-test-db")
    return _start("mariadb", folder, Path("/"), initialise, ("mariadbd", *options))


def start_mysql(folder: Path, *, durable: bool = False) -> Server:
    """Start a MySQL server like `start_mariadb`; its user logs in by caching_sha2_password."""
    root = _mysql_root()
    if not (root / "usr/sbin/mysqld").exists():
        raise RuntimeError(_advice("mysql", f"there is no MySQL in {root}"))
    if os.geteuid() != 0:
        raise RuntimeError(_advice("mysql", f"only root can start the MySQL in {root}"))
    quick = () if durable else (*QUICK, "--innodb-redo-log-capacity=64M")
    options = ("--no-defaults", "--mysqlx=OFF", "--secure-file-priv=", *quick)
    initialise = ("mysqld", *options, "--initialize-insecure")
    return _start("mysql", folder, root, initialise, ("mysqld", *options))


def stop(server: Server) -> None:
    """End the server and remove its data; leave an external server as it is."""
    if server.process:
        stop_process(server)
    if server.data:
        shutil.rmtree(server.data, ignore_errors=True)


def stop_process(server: Server) -> None:
    """Shut the server down and keep its data and port; kill it after TIMEOUT_S."""
    process = _own_process(server)
    process.terminate()
    try:
        process.wait(TIMEOUT_S)
        server.process = None
    except subprocess.TimeoutExpired:
        kill(server)


def kill(server: Server) -> None:
    """End the server at once, as a crash does, and keep its data and port."""
    process = _own_process(server)
    process.kill()
    process.wait()
    server.process = None


def start_process(server: Server) -> None:
    """Start a stopped server on its data and port, and wait until it answers."""
    if server.data is None or server.process:
        raise RuntimeError(f"{server.name} is not a stopped server of this test session.")
    server.process = process = _begin(server, server.command)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            _execute(server.url, "SELECT 1")
            return
        except sa.exc.DBAPIError as error:
            code = process.poll()
            if code is not None or time.monotonic() > deadline:
                kill(server)
                raise RuntimeError(_failure(server, f"is silent, exit code {code}")) from error
        time.sleep(0.02)


def restart(server: Server) -> None:
    """Shut the server down and start it again on its data and port."""
    stop_process(server)
    start_process(server)


def create_database(server: Server, name: str) -> str:
    """Create an empty utf8mb4 database, named ``gwf_...``, and return its SQLAlchemy URL."""
    _execute(server.url, f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
    url = sa.make_url(server.url).set(database=name).update_query_dict({"charset": "utf8mb4"})
    return url.render_as_string(hide_password=False)


def drop_database(server: Server, name: str) -> None:
    """Drop a database of `create_database` if it is there."""
    _execute(server.url, f"DROP DATABASE IF EXISTS `{name}`")


def _start(
    name: str, folder: Path, root: Path, initialise: tuple[str, ...], serve: tuple[str, ...]
) -> Server:
    """Start the command `serve` on the data of `initialise`; their paths begin at `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = _new_data_folder(root / "var/tmp")
    inside = Path("/") / data.relative_to(root)
    chroot = () if root == Path("/") else ("chroot", str(root))
    user = ("--reuid=mysql", "--regid=mysql", "--init-groups") if os.geteuid() == 0 else ()
    run = (*chroot, "setpriv", *user, "--pdeathsig=KILL")
    password, port = secrets.token_urlsafe(12), _free_port()
    common = (f"--datadir={inside}/data", "--character-set-server=utf8mb4", "--skip-name-resolve")
    # A server that starts removes the temporary tables that it finds, also those of another one.
    temporary = f"--tmpdir={inside}"
    network = ("--bind-address=127.0.0.1", f"--port={port}", "--port-open-timeout=5")
    files = (f"--socket={inside}/socket", f"--pid-file={inside}/pid", f"--init-file={inside}/sql")
    server = Server(
        name=name,
        url=f"mysql+pymysql://gwf:{password}@127.0.0.1:{port}",
        command=(*run, *serve, *common, temporary, *network, *files),
        data=data,
        log=folder.resolve() / f"{name}.log",
    )
    try:
        (data / "sql").write_text(
            f"CREATE USER IF NOT EXISTS 'gwf'@'%' IDENTIFIED BY '{password}';\n"
            "GRANT ALL PRIVILEGES ON `gwf\\_%`.* TO 'gwf'@'%' WITH GRANT OPTION;\n"
            "GRANT CREATE USER ON *.* TO 'gwf'@'%';\n"
        )
        if user:
            _prepare(server, (*chroot, "chown", "-R", "mysql:mysql", str(inside)))
        _prepare(server, (*run, *initialise, *common))
        start_process(server)
    except BaseException:
        stop(server)
        raise
    return server


def _prepare(server: Server, command: tuple[str, ...]) -> None:
    process = _begin(server, command)
    try:
        code = process.wait(TIMEOUT_S)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if code != 0:
        raise RuntimeError(_failure(server, f"cannot be prepared, {command} gave {code}"))


def _begin(server: Server, command: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start a command that writes to the server's log and dies with the test process."""
    with Path(server.log or os.devnull).open("ab") as log:
        return _STARTER.submit(
            subprocess.Popen,
            command,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,  # Ctrl-C ends the tests, and the tests end the server.
        ).result()


def _failure(server: Server, fact: str) -> str:
    lines = server.log.read_text(errors="replace").splitlines() if server.log else []
    return "\n".join([f"{server.name} {fact}; {server.log} ends with:", *lines[-30:]])


def _execute(url: str, statement: str) -> str:
    """Return the first value of a statement as text; empty if it has none."""
    # PyMySQL alone waits forever when another program has the port and says nothing.
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"read_timeout": 20})
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return str(result.scalar()) if result.returns_rows else ""


def _external_server(name: str) -> Server | None:
    variable = f"GWF_TEST_{name.upper()}_URL"
    url = os.environ.get(variable)
    if not url:
        return None
    try:
        version = _execute(url, "SELECT VERSION()")
    except sa.exc.DBAPIError as error:
        raise RuntimeError(f"The server at {variable} does not answer: {error.orig}") from error
    if ("mariadb" in version.lower()) != (name == "mariadb"):
        raise RuntimeError(f"The server at {variable} is {version}, not {name}.")
    return Server(name, url)


def _advice(name: str, fact: str) -> str:
    variable = f"GWF_TEST_{name.upper()}_URL"
    return f"{fact}: run tests/servers/install.sh as root (make test does), or set {variable}."


def _mysql_root() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("GWF_MYSQL_ROOT") or cache / "gwf/mysql-sid").resolve()


def _new_data_folder(parent: Path) -> Path:
    """Make a folder that names its test process, and remove those of processes that died."""
    # A process id means nothing in another namespace, for example another container's.
    prefix = f"gwf-{Path('/proc/self/ns/pid').stat().st_ino}-"
    for folder in parent.glob(f"{prefix}*-*"):
        process_id = folder.name.removeprefix(prefix).partition("-")[0]
        if not Path("/proc", process_id).exists():
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def _free_port() -> int:
    for port in _PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("No port from 20000 to 31999 is free.")


def _own_process(server: Server) -> subprocess.Popen[bytes]:
    if server.process is None:
        raise RuntimeError(f"{server.name} is not a running server of this test session.")
    return server.process
