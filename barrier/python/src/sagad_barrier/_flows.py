"""What each call does, in order, over either database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from importlib import resources
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from . import _rules as rules
from ._answers import Answer, Done, InProgress, Look, NotThere, Purged, Reply, There, Unsettled
from ._calls import Action, Compensation, Probe
from ._errors import NeedsLook, Overtaken
from ._rules import Claim, Mark, Next, Row

_LEASE_DEFAULT = timedelta(seconds=30)
_PURGE_BATCH_ROWS = 5_000
"""Rows deleted in one transaction of a purge."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ConnectionT = TypeVar("ConnectionT")
Param = str | int | None
P = ParamSpec("P")
S = TypeVar("S")


class Busy(Exception):
    """Another call is at work and the connection waits no longer."""


def _busy_is_in_progress(method: Callable[Concatenate[S, P], Reply]) -> Callable[Concatenate[S, P], Reply]:
    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Reply:
        try:
            return method(self, *args, **kwargs)
        except Busy:
            return InProgress()

    return call


def statement(dialect: str, name: str) -> str:
    """A statement as `sql/` documents it."""
    return resources.files(__package__).joinpath("sql", dialect, f"{name}.sql").read_text("utf-8")


class Database(ABC, Generic[ConnectionT]):
    """What the two databases do differently."""

    @abstractmethod
    def transaction(self, connection: ConnectionT) -> AbstractContextManager[None]:
        """Begins; commits behind the block, or rolls back what it raises. `Busy` if it cannot begin now."""

    @abstractmethod
    def run(self, connection: ConnectionT, name: str, params: Sequence[Param]) -> list[tuple[Any, ...]]:
        """Runs a statement to its end. `Busy` if another call was in its way."""

    @abstractmethod
    def within(self, connection: ConnectionT, work: Callable[[], Answer]) -> Answer:
        """Runs the participant's code behind a savepoint: a refusal takes back what it wrote before, and
        heals a transaction in which one of its statements failed, but leaves the barrier's row.
        """


class Barrier(Generic[ConnectionT]):
    """The barrier. It holds settings only: make it once, share it, hand it a connection for each call."""

    _db: Database[ConnectionT]

    def __init__(self, *, lease: timedelta = _LEASE_DEFAULT) -> None:
        """`lease`: how long a call outside the database keeps others from looking and trying. It must be
        longer than any such call can take to have its effect, its own timeout included.
        """
        self._lease_ms = lease // timedelta(milliseconds=1)

    @_busy_is_in_progress
    def act(
        self, connection: ConnectionT, call: Action, effect: Callable[[ConnectionT], Answer]
    ) -> Reply:
        """Runs an action whose effect is in this database. `effect` gets the connection, in the transaction
        that also holds the barrier's row: it checks, changes and answers. It must not commit, and does
        nothing outside.
        """
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_action(call))
            if row is not None:
                return _answered(rules.action(row), call.key)
            answer = self._db.within(connection, lambda: effect(connection))
            self._settle_action(connection, call.key, answer, 0)
        return answer

    @_busy_is_in_progress
    def undo(
        self,
        connection: ConnectionT,
        call: Compensation,
        undo: Callable[[ConnectionT, str], Answer],
    ) -> Reply:
        """Runs a compensation whose undo is in this database. `undo` is called only while the action's
        effect stands, with the connection and the output that the action answered.
        """
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_compensation(call))
            if row is None:
                return rules.NOTHING_TO_UNDO
            answer: Answer = rules.NOTHING_TO_UNDO
            match rules.undo(row):
                case Next.EMPTY:
                    pass
                case Next.RUN:
                    output = _output(row)
                    answer = self._db.within(connection, lambda: undo(connection, output))
                case known:
                    return _answered(known, call.action_key)
            self._settle_undo(connection, call, answer, row.lease_no)
        return answer

    @_busy_is_in_progress
    def probe(self, connection: ConnectionT, call: Probe) -> Reply:
        """Answers a probe from the rows. An action that was never seen gets a tombstone: it is turned away
        if it still arrives.
        """
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_probe(call))
        return rules.NEVER_ARRIVED if row is None else _answered(rules.probe(row), call.action_key)

    @_busy_is_in_progress
    def act_outside(
        self,
        connection: ConnectionT,
        call: Action,
        effect: Callable[[], Answer],
        look: Callable[[], Look],
    ) -> Reply:
        """Runs an action whose effect is outside this database.

        `effect` must be over well before the lease ends, one way or the other. `look` is asked when an
        earlier call began and never reported back. At most one of the two is running at any time for an
        action, as long as the lease is longer than either.
        """
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_action(call, self._lease_ms))
            if row is not None:
                known = rules.action(row)
                if not isinstance(known, Next):
                    return known
                self._take_lease(connection, call.key, row.lease_no + 1)
        lease_no = 1 if row is None else row.lease_no + 1
        answer: Answer
        if row is None:
            answer = effect()
        else:
            match self._look(connection, call.key, lease_no, look):
                case There(output):
                    answer = Done(output)
                case NotThere():
                    answer = effect()
                case _:
                    return Unsettled()
        with self._db.transaction(connection):
            self._settle_action(connection, call.key, answer, lease_no)
        return answer

    @_busy_is_in_progress
    def undo_outside(
        self,
        connection: ConnectionT,
        call: Compensation,
        undo: Callable[[str], Answer],
        look: Callable[[], Look],
    ) -> Reply:
        """Runs a compensation whose undo is outside this database. `undo` gets the output that the action
        answered (empty if it never did). `look` tells whether the *action's* effect is there.
        """
        turn = self._undo_intent(connection, call)
        if not isinstance(turn, tuple):
            return turn
        row, todo = turn
        lease_no = row.lease_no + 1
        if todo is Next.RUN:
            answer = undo(_output(row))
        else:
            match self._look(connection, call.action_key, lease_no, look), todo:
                case There(), Next.LOOK_FOR_UNDO:
                    answer = undo(_output(row))
                case There(output), _:
                    lease_no = self._begin_undo(connection, call, lease_no, output)
                    answer = undo(output)
                case NotThere(), Next.LOOK_FOR_UNDO:
                    answer = rules.NOTHING_TO_UNDO
                case NotThere(), _:
                    with self._db.transaction(connection):
                        self._settle_action(connection, call.action_key, Mark.TOMBSTONE, lease_no)
                        self._settle_undo(connection, call, rules.NOTHING_TO_UNDO, lease_no)
                    return rules.NOTHING_TO_UNDO
                case _:
                    return Unsettled()
        with self._db.transaction(connection):
            self._settle_undo(connection, call, answer, lease_no)
        return answer

    @_busy_is_in_progress
    def probe_outside(self, connection: ConnectionT, call: Probe, look: Callable[[], Look]) -> Reply:
        """Answers a probe of an action whose effect is outside this database: from the rows, and by a look
        if the action began and never reported back.
        """
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_probe(call))
            if row is None:
                return rules.NEVER_ARRIVED
            known = rules.probe(row)
            if not isinstance(known, Next):
                return known
            self._take_lease(connection, call.action_key, row.lease_no + 1)
        lease_no = row.lease_no + 1
        found: Answer | Mark
        reply: Reply
        match self._look(connection, call.action_key, lease_no, look):
            case There(output):
                found = reply = Done(output)
            case NotThere():
                found, reply = Mark.TOMBSTONE, rules.NEVER_ARRIVED
            case _:
                return Unsettled()
        with self._db.transaction(connection):
            self._settle_action(connection, call.action_key, found, lease_no)
        return reply

    def reopen(self, connection: ConnectionT, action_key: str) -> bool:
        """Forgets that a compensation was refused, so that its next call runs: for an operator who has
        mended the cause and is about to retry it. Whether there was a refusal to forget.
        """
        with self._by_hand(connection):
            return bool(self._db.run(connection, "reopen", (action_key,)))

    def purge(self, connection: ConnectionT, before: datetime) -> Purged:
        """Deletes the settled rows made before a time (with its zone), which must be safe: see "Deleting old
        rows" in the README. It goes in small transactions.
        """
        before_ms = (before - _EPOCH) // timedelta(milliseconds=1)
        deleted, batch = 0, _PURGE_BATCH_ROWS
        while batch == _PURGE_BATCH_ROWS:
            with self._by_hand(connection):
                batch = len(self._db.run(connection, "purge", (before_ms, _PURGE_BATCH_ROWS)))
            deleted += batch
        with self._by_hand(connection):
            [(unfinished,)] = self._db.run(connection, "unfinished", (before_ms,))
        return Purged(deleted, unfinished)

    @contextmanager
    def _by_hand(self, connection: ConnectionT) -> Iterator[None]:
        """A transaction that is no call's: that it cannot begin now is the database's own error."""
        try:
            with self._db.transaction(connection):
                yield
        except Busy as busy:
            raise busy.__cause__ or busy from None

    def _find(self, connection: ConnectionT, claim: Claim) -> Row | None:
        """Writes the row of a first call (`None`), or reads the one that is there."""
        if self._db.run(connection, "claim", claim.params()):
            return None
        rows = self._db.run(connection, "read", (claim.action_key,))
        if not rows:
            # A purge has deleted it this moment. The next call is a first one.
            raise Busy
        return Row.parse(rows[0], claim)

    def _undo_intent(self, connection: ConnectionT, call: Compensation) -> tuple[Row, Next] | Reply:
        """The answer, or what to do under the lease that follows the row's."""
        with self._db.transaction(connection):
            row = self._find(connection, Claim.of_compensation(call))
            if row is None:
                return rules.NOTHING_TO_UNDO
            todo = rules.undo(row)
            if not isinstance(todo, Next):
                return todo
            if todo is Next.EMPTY:
                self._settle_undo(connection, call, rules.NOTHING_TO_UNDO, row.lease_no)
                return rules.NOTHING_TO_UNDO
            undo_key = None if todo is Next.LOOK_FOR_ACTION else call.key
            self._take_lease(connection, call.action_key, row.lease_no + 1, undo_key)
        return row, todo

    def _begin_undo(self, connection: ConnectionT, call: Compensation, lease_no: int, output: str) -> int:
        """Stores that the action's effect was found, and the intent to undo it. The new lease."""
        with self._db.transaction(connection):
            self._settle_action(connection, call.action_key, Done(output), lease_no)
            self._take_lease(connection, call.action_key, lease_no + 1, call.key)
        return lease_no + 1

    def _look(
        self, connection: ConnectionT, action_key: str, lease_no: int, look: Callable[[], Look]
    ) -> Look:
        """Looks. If that fails or cannot tell, the lease is given back: nothing of ours is under way."""
        found: Look | None = None
        try:
            found = look()
            return found
        finally:
            if not isinstance(found, There | NotThere):
                with self._db.transaction(connection):
                    self._db.run(connection, "release", (action_key, lease_no))

    def _settle_action(
        self, connection: ConnectionT, action_key: str, answer: Answer | Mark, lease_no: int
    ) -> None:
        params = (action_key, *rules.columns(answer), lease_no)
        _held(self._db.run(connection, "settle_action", params), action_key)

    def _settle_undo(
        self, connection: ConnectionT, call: Compensation, answer: Answer, lease_no: int
    ) -> None:
        params = (call.action_key, call.key, *rules.columns(answer), lease_no)
        _held(self._db.run(connection, "settle_undo", params), call.action_key)

    def _take_lease(
        self, connection: ConnectionT, action_key: str, lease_no: int, undo_key: str | None = None
    ) -> None:
        undo = None if undo_key is None else "started"
        params = (action_key, lease_no, self._lease_ms, undo, undo_key)
        _held(self._db.run(connection, "lease", params), action_key)


def _answered(known: Reply | Next, action_key: str) -> Reply:
    """The answer, where nobody can look."""
    if isinstance(known, Next):
        raise NeedsLook(action_key)
    return known


def _output(row: Row) -> str:
    assert isinstance(row.action, Done), "only an effect that stands is undone"
    return row.action.output_json


def _held(rows: list[tuple[Any, ...]], action_key: str) -> None:
    """Whether the lease was still ours when the outcome was written."""
    if not rows:
        raise Overtaken(action_key)
