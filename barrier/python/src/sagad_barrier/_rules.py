"""The rules, without a database: what a stored row says about the call that has just come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ._answers import Answer, Done, InProgress, Refused, Reply, Superseded
from ._calls import Action, Compensation, Probe
from ._errors import DamagedRow, KeyReused

NOTHING_TO_UNDO = Done("")
"""What a compensation is told that had nothing to undo."""

NEVER_ARRIVED = Refused("SUPERSEDED", "the action had no effect, and is turned away if it still arrives")
"""What a probe is told that finds no row, once it has left a tombstone."""

_UNDONE = Refused("UNDONE", "the action was undone")


class Mark(Enum):
    """The states that are no answer."""

    STARTED = "started"
    """An effect (or undo) outside the database was begun; nothing is known of what came of it."""
    TOMBSTONE = "tombstone"
    """A compensation or a probe was here before the action."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The row that a call would be the first to write."""

    action_key: str
    saga_id: str
    step: str
    action: Mark
    undo_key: str | None = None
    lease_ms: int | None = None

    @staticmethod
    def of_action(call: Action, lease_ms: int | None = None) -> Claim:
        return Claim(call.key, call.saga_id, call.step, Mark.STARTED, lease_ms=lease_ms)

    @staticmethod
    def of_compensation(call: Compensation) -> Claim:
        return Claim(call.action_key, call.saga_id, call.step, Mark.TOMBSTONE, undo_key=call.key)

    @staticmethod
    def of_probe(call: Probe) -> Claim:
        return Claim(call.action_key, call.saga_id, call.step, Mark.TOMBSTONE)

    def params(self) -> tuple[str | int | None, ...]:
        """As `claim.sql` has them."""
        undo = None if self.undo_key is None else "done"
        lease_no = 0 if self.lease_ms is None else 1
        return (
            self.action_key,
            self.saga_id,
            self.step,
            self.action.value,
            self.undo_key,
            undo,
            lease_no,
            self.lease_ms,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of an action."""

    action: Answer | Mark
    undo: Answer | Mark | None
    """`None`: no compensation has been here."""
    lease_no: int
    """Grows with every lease that is taken."""
    is_leased: bool
    """Whether the lease is still held."""

    @staticmethod
    def parse(columns: Sequence[Any], claim: Claim) -> Row:
        """A row of `read.sql`, which must be of the same saga and step as the call."""
        saga_id, step, action, action_code, action_text, undo, undo_code, undo_text, lease_no, leased = columns
        if (saga_id, step) != (claim.saga_id, claim.step):
            raise KeyReused(claim.action_key, saga_id, step)
        states = _state(action, action_code, action_text), _state(undo, undo_code, undo_text)
        if states[0] is None or (states[1] is None and undo is not None) or states[1] is Mark.TOMBSTONE:
            raise DamagedRow(claim.action_key, f"states {action!r} and {undo!r}")
        return Row(states[0], states[1], lease_no, bool(leased))


def _state(state: str | None, code: str | None, text: str | None) -> Answer | Mark | None:
    match state, code, text:
        case "started", _, _:
            return Mark.STARTED
        case "tombstone", _, _:
            return Mark.TOMBSTONE
        case "done", None, str(output):
            return Done(output)
        case "refused", str(why), str(message):
            return Refused(why, message)
    return None


def columns(answer: Answer | Mark) -> tuple[str, str | None, str | None]:
    """An answer's three columns."""
    match answer:
        case Done(output):
            return "done", None, output
        case Refused(code, message):
            return "refused", code, message
        case Mark():
            return answer.value, None, None
        case _:
            raise TypeError(f"an effect or undo answers Done or Refused, and this one {answer!r}")


class Next(Enum):
    """What to do about a call that finds a row and has no answer in it."""

    EMPTY = "there is nothing to undo; that is stored and answered"
    RUN = "the effect stands: undo it"
    LOOK_FOR_ACTION = "the action's effect was begun by a call that is gone: look"
    LOOK_FOR_UNDO = "the undo was begun by a call that is gone: look"


def action(row: Row) -> Reply | Next:
    """What to do about an action that finds a row."""
    match row.action:
        case Mark.STARTED:
            return InProgress() if row.is_leased else Next.LOOK_FOR_ACTION
        case Mark.TOMBSTONE:
            return Superseded()
        case answer:
            return answer


def undo(row: Row) -> Reply | Next:
    """What to do about a compensation that finds a row."""
    if isinstance(row.undo, Done | Refused):
        return row.undo
    if row.is_leased and Mark.STARTED in (row.action, row.undo):
        return InProgress()
    if row.action is Mark.STARTED:
        return Next.LOOK_FOR_ACTION
    if not isinstance(row.action, Done):
        return Next.EMPTY
    return Next.RUN if row.undo is None else Next.LOOK_FOR_UNDO


def probe(row: Row) -> Reply | Next:
    """What to do about a probe that finds a row."""
    if row.action is Mark.STARTED and not row.is_leased:
        return Next.LOOK_FOR_ACTION
    if Mark.STARTED in (row.action, row.undo):
        return InProgress()
    match row.action:
        case Mark():
            return NEVER_ARRIVED
        case Done() if isinstance(row.undo, Done):
            return _UNDONE
        case answer:
            return answer
