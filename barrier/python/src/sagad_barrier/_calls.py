"""The calls as they come from the daemon. Three types, so that none can be taken for another."""

from __future__ import annotations

from dataclasses import dataclass

_KEY_CHARS_MAX = 64
_NAME_CHARS_MAX = 200


class InvalidCall(ValueError):
    """The call cannot be one of the daemon's. Nothing was read or written; a retry does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action's call (`Execute`)."""

    saga_id: str
    step: str
    """The step, with `/` and the item's index for an instance."""
    key: str
    """The call's `idempotency_key`."""

    def __post_init__(self) -> None:
        _check_names(self.saga_id, self.step)
        _check_key("key", self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """A compensation's call (`Compensate`)."""

    saga_id: str
    step: str
    key: str
    """The call's own `idempotency_key`."""
    action_key: str
    """The `action_idempotency_key`: which action to undo."""

    def __post_init__(self) -> None:
        _check_names(self.saga_id, self.step)
        _check_key("key", self.key)
        _check_key("action_key", self.action_key)
        if self.key == self.action_key:
            # The daemon never sends this: one of them was filled in from the wrong field.
            raise _invalid("key", "a compensation's key is not its action's")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe's call (`Probe`)."""

    saga_id: str
    step: str
    action_key: str
    """The `action_idempotency_key`: which action is asked about."""

    def __post_init__(self) -> None:
        _check_names(self.saga_id, self.step)
        _check_key("action_key", self.action_key)


def _check_names(saga_id: str, step: str) -> None:
    for field, name in (("saga_id", saga_id), ("step", step)):
        if not 1 <= len(name) <= _NAME_CHARS_MAX:
            raise _invalid(field, f"has 1 to {_NAME_CHARS_MAX} characters")


def _check_key(field: str, key: str) -> None:
    is_printable = all("!" <= char <= "~" for char in key)
    if not 1 <= len(key) <= _KEY_CHARS_MAX or not is_printable:
        raise _invalid(field, f"has 1 to {_KEY_CHARS_MAX} printable ASCII characters")


def _invalid(field: str, rule: str) -> InvalidCall:
    return InvalidCall(f"{field}: {rule}; take it from the request unchanged")
