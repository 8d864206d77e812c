"""The rule that every participant keeps: one call has one effect.

A call may come twice, late, or after its own compensation: a network does that, and so does a daemon
that was killed before it could store an answer. Every attempt has the same key, so one row for each
action, written in the same transaction as the effect, is enough to tell.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from sqlite3 import Connection

# What was answered to each action; `superseded` stands for one that its compensation overtook. The rows
# stay: a call may come very late.
SCHEMA = """
    CREATE TABLE IF NOT EXISTS calls (
        action_key TEXT PRIMARY KEY NOT NULL,
        outcome    TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'superseded')),
        code       TEXT NOT NULL,
        text       TEXT NOT NULL,
        undone     INTEGER NOT NULL DEFAULT FALSE
    )"""


@dataclass(frozen=True)
class Act:
    """Execute."""

    key: str
    """Its `idempotency_key`."""


@dataclass(frozen=True)
class Undo:
    """Compensate."""

    key: str
    """Its `action_idempotency_key`: that is how it finds what it is to undo."""


@dataclass(frozen=True)
class Done:
    """It happened."""

    output_json: str = ""


@dataclass(frozen=True)
class Refused:
    """It did not happen and will not: a definite no."""

    code: str
    message: str


@dataclass(frozen=True)
class Superseded:
    """Too late: its compensation was here before it."""


Call = Act | Undo
Answer = Done | Refused | Superseded


def once(db: Connection, call: Call, effect: Callable[[], Answer]) -> Answer:
    """Answer a call and let `effect` happen if this is the first time that it should.

    An effect that answers `Refused` must not have changed anything. An exception leaves everything as
    it was; the daemon asks again.
    """
    with transaction(db):
        match call, seen(db, call.key):
            # Seen before: the same answer again. Behind its compensation that is Superseded.
            case Act(), (answer, _):
                return answer
            case Act(), None:
                answer = effect()
                store(db, call.key, answer)
                return answer
            case Undo(), (Done(), False):
                answer = effect()
                if isinstance(answer, Done):
                    db.execute("UPDATE calls SET undone = TRUE WHERE action_key = ?", [call.key])
                return answer
            # Refused, or undone already: nothing is left to undo, and that is what was asked for.
            case Undo(), (_, _):
                return Done()
            # The action never came. If it still does, it must not have an effect any more.
            case _:
                store(db, call.key, Superseded())
                return Done()


@contextmanager
def transaction(db: Connection) -> Iterator[None]:
    """Commit what is done inside, or nothing of it."""
    # Immediate: of two calls with one key the second waits here until the first is through.
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def seen(db: Connection, key: str) -> tuple[Answer, bool] | None:
    """Return what was answered to this action, and whether it has been undone since."""
    sql = "SELECT outcome, code, text, undone FROM calls WHERE action_key = ?"
    match db.execute(sql, [key]).fetchone():
        case None:
            return None
        case "done", _, text, undone:
            return Done(text), bool(undone)
        case "refused", code, text, _:
            return Refused(code, text), False
        case _:
            return Superseded(), False


def store(db: Connection, key: str, answer: Answer) -> None:
    """Remember what is answered to this action."""
    match answer:
        case Done(output_json):
            row = ("done", "", output_json)
        case Refused(code, message):
            row = ("refused", code, message)
        case Superseded():
            row = ("superseded", "", "")
    db.execute("INSERT INTO calls (action_key, outcome, code, text) VALUES (?, ?, ?, ?)", [key, *row])
