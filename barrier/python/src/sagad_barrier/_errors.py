"""Why there is no answer. The database's own errors and those of the participant's code pass through
unchanged; after each of them the transaction is rolled back, unless it was the commit that failed: then it
may have been committed. Either way the same call may be made again.
"""

from __future__ import annotations


class BarrierError(Exception):
    """The barrier itself has no answer."""


class KeyReused(BarrierError):
    """The key belongs to another saga or step. A retry does not help: two daemons without common state use
    one participant, or the fields were mixed up.
    """

    def __init__(self, action_key: str, saga_id: str, step: str) -> None:
        super().__init__(f"key {action_key} belongs to step {step} of saga {saga_id}: was a field mixed up?")


class NeedsLook(BarrierError):
    """An earlier call had an effect outside the database and did not report back. Make this call with the
    `…_outside` method, which can look.
    """

    def __init__(self, action_key: str) -> None:
        super().__init__(
            f"key {action_key}: an earlier call outside the database never reported back;"
            " use the method that looks"
        )


class Overtaken(BarrierError):
    """The effect took longer than the lease and somebody else settled the call meanwhile. Its answer is not
    stored. The call may be made again and gets the stored answer, but a person has to look: the effect may
    have happened twice, or behind its compensation. Let effects time out well before the lease ends.
    """

    def __init__(self, action_key: str) -> None:
        super().__init__(
            f"key {action_key}: it took longer than the lease and another call settled it;"
            " look at the effect, and make the lease longer"
        )


class DamagedRow(BarrierError):
    """The row holds what the barrier never writes. A retry does not help."""

    def __init__(self, action_key: str, why: str) -> None:
        super().__init__(f"key {action_key}: the stored row makes no sense ({why})")


class OpenTransaction(BarrierError):
    """The connection is in a transaction already: the barrier must begin and commit its own. Commit or roll
    back first; a retry as it is does not help.
    """

    def __init__(self) -> None:
        super().__init__("the connection is in a transaction: commit or roll back before calling the barrier")
