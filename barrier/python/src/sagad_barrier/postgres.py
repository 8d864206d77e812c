"""The barrier over PostgreSQL, with psycopg 3.

Every call begins with an `INSERT … ON CONFLICT DO NOTHING`. The primary key lets one of several concurrent
first calls through and has the others wait until it has committed, so there is no moment between looking
and writing. Transactions are READ COMMITTED, whatever the connection's default is: the statement after such
a wait must see what was committed during it.

The connection must not be in a transaction, with `autocommit` or without. Set `lock_timeout` on it: a
duplicate that waits longer is answered `InProgress` instead of holding a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, IsolationLevel, errors
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ._answers import Answer, Refused
from ._errors import OpenTransaction
from ._flows import Barrier as _Barrier
from ._flows import Busy, Database, Param, statement

__all__ = ["SCHEMA", "Barrier"]

_NAMES = (
    "claim",
    "lease",
    "purge",
    "read",
    "release",
    "reopen",
    "settle_action",
    "settle_undo",
    "unfinished",
)
_STATEMENTS = {name: statement("postgres", name).encode() for name in _NAMES}

SCHEMA = statement("postgres", "schema")
"""The table, to run with the participant's own migrations."""


class _Postgres(Database[Connection[Any]]):
    @contextmanager
    def transaction(self, connection: Connection[Any]) -> Iterator[None]:
        if connection.info.transaction_status != TransactionStatus.IDLE:
            raise OpenTransaction
        before = connection.isolation_level, connection.read_only
        connection.isolation_level, connection.read_only = IsolationLevel.READ_COMMITTED, False
        try:
            with connection.transaction():
                yield
        finally:
            if not connection.closed:
                connection.isolation_level, connection.read_only = before

    def run(
        self, connection: Connection[Any], name: str, params: Sequence[Param]
    ) -> list[tuple[Any, ...]]:
        with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
            try:
                return cursor.execute(_STATEMENTS[name], params).fetchall()
            except (errors.LockNotAvailable, errors.SerializationFailure, errors.DeadlockDetected) as error:
                if name in ("claim", "read"):
                    raise Busy from error
                raise

    def within(self, connection: Connection[Any], work: Callable[[], Answer]) -> Answer:
        with connection.transaction() as savepoint:
            answer = work()
            if isinstance(answer, Refused):
                raise psycopg.Rollback(savepoint)
        return answer


class Barrier(_Barrier[Connection[Any]]):
    __doc__ = _Barrier.__doc__

    _db = _Postgres()
