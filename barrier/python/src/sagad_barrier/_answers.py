"""What the participant's own code says, and what the daemon is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """It happened. The output as JSON; empty is null."""

    output_json: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """It did not happen and will not: a definite no. What the code wrote in the transaction before it said
    so is rolled back. A timeout or any other doubt is no refusal: raise, and the call will come again.
    """

    code: str
    """A short word for programs, such as `OUT_OF_STOCK`."""
    message: str
    """What is wrong, for people."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """Answer `superseded` (only to Execute): the compensation or a probe was here first."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """The same call, or the one it depends on, is at work at this moment. Answer the status ABORTED (over
    HTTP 409), which is an unknown outcome, and `pending` to a probe: it is asked again.
    """


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Whether an earlier call had its effect cannot be told yet. Answer the status ABORTED (over HTTP 409),
    also to a probe.
    """


@dataclass(frozen=True, slots=True)
class There:
    """The effect is there; its output as JSON, as the action would have answered."""

    output_json: str = ""


@dataclass(frozen=True, slots=True)
class NotThere:
    """The effect is not there, and no call that is still under way will bring it about. For an undo: it is
    gone.
    """


@dataclass(frozen=True, slots=True)
class CannotTell:
    """It cannot be told now: the call stays unknown and is made again."""


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did."""

    deleted: int
    unfinished: int
    """Rows as old that were kept: an effect outside the database was begun and nobody ever learnt what came
    of it. Their sagas have ended, so a person has to look.
    """


Answer = Done | Refused
"""What came of an effect or an undo: the participant's own code returns it, the barrier stores it."""

Reply = Done | Refused | Superseded | InProgress | Unsettled
"""What to answer the daemon."""

Look = There | NotThere | CannotTell
"""What a look at the outside world found."""
