"""The barrier: what a saga's participant puts around its work so that each effect and each undo happens
at most once, whatever the network does to the calls.

Calls come twice, late, in the wrong order and at the same time. The barrier keeps one row for each action
in the participant's own database and answers by it: a duplicate gets the stored answer, an undo of what
never happened leaves a tombstone, and an action behind a tombstone is turned away.

The effect belongs in the participant's database: `act` and `undo` run it in the transaction that also holds
the row. For an effect outside of it (a mail, a bank) `act_outside` and `undo_outside` commit the intent
first; what that can and cannot promise is in the README.

`sagad_barrier.postgres` (psycopg 3) and `sagad_barrier.sqlite` (the standard library) each have a `Barrier`
and its `SCHEMA`.

Every exception is an unknown outcome to the daemon: answer it with a gRPC error status such as ABORTED or
INTERNAL, never with `refused`. The same call may then be made again.
"""

from ._answers import (
    Answer,
    CannotTell,
    Done,
    InProgress,
    Look,
    NotThere,
    Purged,
    Refused,
    Reply,
    Superseded,
    There,
    Unsettled,
)
from ._calls import Action, Compensation, InvalidCall, Probe
from ._errors import BarrierError, DamagedRow, KeyReused, NeedsLook, OpenTransaction, Overtaken

__all__ = [
    "Action",
    "Answer",
    "BarrierError",
    "CannotTell",
    "Compensation",
    "DamagedRow",
    "Done",
    "InProgress",
    "InvalidCall",
    "KeyReused",
    "Look",
    "NeedsLook",
    "NotThere",
    "OpenTransaction",
    "Overtaken",
    "Probe",
    "Purged",
    "Refused",
    "Reply",
    "Superseded",
    "There",
    "Unsettled",
]
