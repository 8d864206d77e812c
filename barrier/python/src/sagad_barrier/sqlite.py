"""The barrier over SQLite, with the standard library.

Every call runs in a transaction begun with `BEGIN IMMEDIATE`: one call at a time looks and writes, so what
it read cannot have changed when it writes. A call that waits longer for another than the connection's
`timeout` (5 s unless set) is answered `InProgress`.

The connection must not be in a transaction; one made with `autocommit=False` (Python 3.12) always is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
_STATEMENTS = {name: statement("sqlite", name) for name in _NAMES}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

SCHEMA = statement("sqlite", "schema")
"""The table, to run with the participant's own migrations."""


class _Sqlite(Database[sqlite3.Connection]):
    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        if connection.in_transaction:
            raise OpenTransaction
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            # The lower byte is the cause; the others say more about it.
            if error.sqlite_errorcode & 0xFF in _BUSY:
                raise Busy from error
            raise
        try:
            yield
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def run(
        self, connection: sqlite3.Connection, name: str, params: Sequence[Param]
    ) -> list[tuple[Any, ...]]:
        cursor = connection.cursor()
        cursor.row_factory = None
        return cursor.execute(_STATEMENTS[name], params).fetchall()

    def within(self, connection: sqlite3.Connection, work: Callable[[], Answer]) -> Answer:
        connection.execute("SAVEPOINT sagad_effect")
        answer = work()
        if isinstance(answer, Refused):
            connection.execute("ROLLBACK TO sagad_effect")
        connection.execute("RELEASE sagad_effect")
        return answer


class Barrier(_Barrier[sqlite3.Connection]):
    __doc__ = _Barrier.__doc__

    _db = _Sqlite()
