"""The database of evaluations: its tables, its migrations, and connections to SQLite or PostgreSQL, with the same statements."""

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sql
from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.pool import QueuePool

from service.problems import Problem, Unavailable

FAILURES = (exc.DBAPIError, exc.TimeoutError, sqlite3.Error)
"""Errors of a database that cannot be used now: it is locked, full, damaged or out of reach."""
BUGS = (exc.DataError, exc.ProgrammingError)
FILE = "evaluations.sqlite"
RETRY_S = 2
"""Seconds after which clients retry while the database does not answer."""
PATIENCE_S = 10
"""Seconds to wait for another server's lock, or for a connection."""
LOCKED_S = 0.01
"""Seconds between two attempts to set a pragma of a locked file."""
CONNECTIONS = 8
"""Most connections of a server, besides its writer's."""
WRITES = "lossd_writes"
"""The execution option of connections that write: SQLite then takes its lock at the beginning of a transaction."""

tables = sql.MetaData()
versions = sql.Table("lossd_schema", tables, sql.Column("version", sql.Integer, nullable=False))
evaluations = sql.Table(
    "evaluations",
    tables,
    sql.Column("id", sql.BigInteger().with_variant(sql.Integer, "sqlite"), primary_key=True),
    sql.Column("owner", sql.Text, nullable=False),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("spec", sql.Text, nullable=False),
    sql.Column("layout", sql.Text),
    sql.Column("parts", sql.BigInteger, nullable=False),
    sql.Column("rows", sql.BigInteger, nullable=False),
    sql.Column("bytes", sql.BigInteger, nullable=False),
    sql.Column("created_at", sql.Double, nullable=False),
    sql.Column("expires_at", sql.Double, nullable=False, index=True),
    sql.UniqueConstraint("owner", "name"),
    # an id is never used again: caches of other servers are keyed by it
    sqlite_autoincrement=True,
)
"""``parts`` is the number of the last part, ``rows`` counts distinct ids, ``bytes`` those of the blocks, decompressed."""
parts = sql.Table(
    "parts",
    tables,
    sql.Column("evaluation", sql.BigInteger, sql.ForeignKey("evaluations.id"), primary_key=True),
    sql.Column("number", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("key", sql.Text, nullable=False),
    sql.Column("digest", sql.LargeBinary, nullable=False),
    sql.Column("rows", sql.BigInteger, nullable=False),
    sql.Column("block", sql.LargeBinary, nullable=False),
    sql.UniqueConstraint("evaluation", "key"),
)
"""``number`` counts the parts of an evaluation in the order of their commits, from 1 without gaps."""


def _create(connection: Connection) -> None:
    """Create the tables."""
    tables.create_all(connection)


MIGRATIONS: Sequence[Callable[[Connection], None]] = (_create,)
"""Steps from each version of the schema to the next; version 0 is an empty database."""


class Database:
    """Connections to the database at a URL, opened and migrated on first use; a failed attempt is repeated on the next use."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.is_file = not url
        self._lock = Lock()
        self._ready = False

    @property
    def is_there(self) -> bool:
        """Whether there may be something in it: a URL is configured, or the file exists."""
        return bool(self.url) or (self.folder / FILE).exists()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Connect for reading one snapshot.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with self._failing_softly(), self.opened().connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """Connect for a transaction that is committed durably at the end of the ``with``, unless it raises.

        Raises:
            Unavailable: the database cannot be reached, or did not commit.
        """
        with self._failing_softly(), self.opened().connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    def opened(self) -> Engine:
        """Return the engine of a database with all tables.

        Raises:
            Unavailable: the folder cannot be written, or the schema is newer than this server.
        """
        with self._lock:
            if not self._ready:
                if self.is_file:
                    self._make_folder()
                self._migrate()
                self._ready = True
        return self._engine

    def close(self) -> None:
        """Close all connections that nobody uses."""
        if self._ready:
            self._engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        if self.is_file:
            url = sql.URL.create("sqlite", database=str(self.folder / FILE))
            options: dict[str, Any] = {"timeout": PATIENCE_S, "check_same_thread": False}
        else:
            url = sql.make_url(self.url)
            options = {}
        if url.get_backend_name() == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
            options = {"connect_timeout": PATIENCE_S, "options": f"-c lock_timeout={1000 * PATIENCE_S}"}
        elif not self.is_file:
            options = {"timeout": PATIENCE_S, "check_same_thread": False}
        engine = sql.create_engine(
            url,
            connect_args=options,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=CONNECTIONS - 2,
            pool_timeout=PATIENCE_S,
            pool_pre_ping=url.get_backend_name() != "sqlite",
        )
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure)
            event.listen(engine, "begin", _begin)
        return engine

    def _make_folder(self) -> None:
        """Create the folder of the file.

        Raises:
            Unavailable: it cannot be created.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unavailable(f"LOSSD_DATA_DIR cannot be written: {error.strerror}") from None

    def _migrate(self) -> None:
        """Bring the schema to this server's version, while other servers wait."""
        with self._failing_softly(), self._engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(sql.select(sql.func.pg_advisory_xact_lock(0x10550)))
                migrate(connection)

    @contextmanager
    def _failing_softly(self) -> Generator[None]:
        """Turn errors of the database into a problem that clients retry."""
        try:
            yield
        except BUGS:
            raise
        except FAILURES as error:
            raise _unavailable(reason(error)) from error


def migrate(connection: Connection, steps: Sequence[Callable[[Connection], None]] = MIGRATIONS) -> None:
    """Take the steps that a database has not taken yet.

    Raises:
        Unavailable: a newer server has written it.
    """
    versions.create(connection, checkfirst=True)
    version = connection.scalar(sql.select(sql.func.max(versions.c.version))) or 0
    if version > len(steps):
        raise _unavailable(f"its schema has version {version}, which this server does not know: upgrade it")
    for number, step in enumerate(steps[version:], version + 1):
        step(connection)
        connection.execute(versions.delete())
        connection.execute(versions.insert().values(version=number))


def give_space_back(connection: Connection) -> None:
    """Shrink the file by the pages that deleted rows have left."""
    driver: Any = connection.connection.driver_connection
    # it frees a page a step, so that all must be fetched
    driver.execute("PRAGMA incremental_vacuum").fetchall()


def reason(error: BaseException) -> str:
    """Return the first line of a database's error, without the statement and its values."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig else error
    lines = str(cause).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(cause).__name__


def _unavailable(why: str) -> Problem:
    """Return the problem of a database that cannot be used now."""
    return Unavailable(f"The database of evaluations cannot be used now: {why}.", retry_after=RETRY_S)


def _configure(connection: Any, record: object) -> None:
    """Prepare a connection to SQLite: it survives power cuts, and deleted rows are overwritten."""
    # transactions are begun by `_begin`
    connection.isolation_level = None
    for pragma in (
        "auto_vacuum=INCREMENTAL",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=FAST",
    ):
        _set(connection, pragma)


def _set(connection: Any, pragma: str) -> None:
    """Set a pragma. SQLite does not wait where two servers change the journal of a new file at once, so this does."""
    end = monotonic() + PATIENCE_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}").close()
            return
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY or monotonic() > end:
                raise
        sleep(LOCKED_S)


def _begin(connection: Connection) -> None:
    """Begin a transaction on SQLite."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
