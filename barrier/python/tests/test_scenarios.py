"""The scenarios that the Rust, Python and TypeScript barriers share, played over both databases."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import ROOT, Connect

import sagad_barrier as barriers
from sagad_barrier import (
    Action,
    Answer,
    CannotTell,
    Compensation,
    Done,
    InProgress,
    Look,
    NotThere,
    Probe,
    Refused,
    Reply,
    Superseded,
    There,
    Unsettled,
    postgres,
    sqlite,
)

SCENARIOS: list[dict[str, Any]] = json.loads((ROOT / "scenarios" / "calls.json").read_text("utf-8"))
FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)
WORLD = "CREATE TABLE world (id INTEGER PRIMARY KEY, effects INTEGER NOT NULL, undos INTEGER NOT NULL)"


class Failed(Exception):
    """The participant's own code failed, or its process died."""


@dataclass
class Outside:
    """What happens outside the database."""

    counts: dict[str, int] = field(default_factory=lambda: {"effects": 0, "undos": 0})


class Play:
    """One scenario over one database."""

    def __init__(self, module: Any, db: Any, other: Any, scenario: dict[str, Any]) -> None:
        lease = timedelta(milliseconds=scenario.get("lease_ms", 0))
        self.barrier = module.Barrier(lease=lease)
        self.db, self.other, self.scenario = db, other, scenario
        self.outside = Outside()

    def run(self) -> None:
        for statement in ("DELETE FROM sagad_barrier", "DELETE FROM world", "INSERT INTO world VALUES (1, 0, 0)"):
            self.db.execute(statement)
        self.db.commit()
        for at, call in enumerate(self.scenario["calls"]):
            reply = self.make(call)
            name = f"{self.scenario['name']}: call {at} ({call['call']})"
            assert reply == call["reply"], name
            effects, undos = self.db.execute("SELECT effects, undos FROM world").fetchone()
            self.db.commit()
            counts = effects + self.outside.counts["effects"], undos + self.outside.counts["undos"]
            assert counts == (call["effects"], call["undos"]), name

    def make(self, call: dict[str, Any]) -> list[str]:
        try:
            return self._make(call)
        except Failed:
            return ["failed"]
        except barriers.InvalidCall:
            return ["invalid call"]
        except barriers.KeyReused:
            return ["key reused"]
        except barriers.NeedsLook:
            return ["needs a look"]
        except barriers.Overtaken:
            return ["overtaken"]

    def _make(self, call: dict[str, Any]) -> list[str]:
        kind, is_outside = call["call"], call.get("outside", self.scenario.get("outside", False))
        names = {"saga_id": call.get("saga", "order-1"), "step": call.get("step", "deduct-stock/0")}
        if kind == "reopen":
            return ["yes" if self.barrier.reopen(self.db, "a") else "no"]
        if kind == "purge":
            purged = self.barrier.purge(self.db, FAR_AHEAD)
            return [f"{purged.deleted} deleted, {purged.unfinished} unfinished"]
        reply: Reply
        if kind == "action":
            action = Action(key=call.get("key", "a"), **names)
            if is_outside:
                reply = self.barrier.act_outside(
                    self.db, action, lambda: self.effect_outside(call, names), lambda: look(call)
                )
            else:
                reply = self.barrier.act(self.db, action, lambda db: within(db, call, "effects"))
        elif kind == "compensation":
            undo = Compensation(key=call.get("key", "c"), action_key="a", **names)
            if is_outside:
                reply = self.barrier.undo_outside(
                    self.db, undo, lambda output: self.undo_outside(call, output), lambda: look(call)
                )
            else:
                reply = self.barrier.undo(self.db, undo, lambda db, output: undo_within(db, call, output))
        else:
            probe = Probe(action_key="a", **names)
            if is_outside:
                reply = self.barrier.probe_outside(self.db, probe, lambda: look(call))
            else:
                reply = self.barrier.probe(self.db, probe)
        return words(reply)

    def effect_outside(self, call: dict[str, Any], names: dict[str, str]) -> Answer:
        if call.get("does") == "done, overtaken":
            undo = Compensation(key="c", action_key="a", **names)
            reply = self.barrier.undo_outside(self.other, undo, never, NotThere)
            assert reply == Done("")
        return outside(call, self.outside.counts, "effects")

    def undo_outside(self, call: dict[str, Any], output: str) -> Answer:
        assert output == call["gets"], "the action's output"
        return outside(call, self.outside.counts, "undos")


def never(*_: object) -> Answer:
    raise AssertionError("the participant's code was run")


def does(call: dict[str, Any]) -> str:
    assert "does" in call, f"{call['call']}: the participant's code was run"
    deed: str = call["does"]
    return deed


def within(db: Any, call: dict[str, Any], column: str) -> Answer:
    db.execute(f"UPDATE world SET {column} = {column} + 1")
    match does(call):
        case "done":
            return Done(call["says"])
        case "refused":
            return Refused(call["code"], call["says"])
        case "refused after a failed statement":
            with pytest.raises((psycopg.errors.UniqueViolation, sqlite3.IntegrityError)):
                db.execute("INSERT INTO world VALUES (1, 0, 0)")
            return Refused(call["code"], call["says"])
        case "fails":
            raise Failed
        case other:
            raise AssertionError(f"unknown deed {other!r}")


def undo_within(db: Any, call: dict[str, Any], output: str) -> Answer:
    assert output == call["gets"], "the action's output"
    return within(db, call, "undos")


def outside(call: dict[str, Any], counts: dict[str, int], column: str) -> Answer:
    if does(call).startswith("done"):
        counts[column] += 1
    match does(call):
        case "done" | "done, overtaken":
            return Done(call["says"])
        case "refused":
            return Refused(call["code"], call["says"])
        case "crashes" | "done, then crashes":
            raise Failed
        case other:
            raise AssertionError(f"unknown deed {other!r}")


def look(call: dict[str, Any]) -> Look:
    match call["look"]:
        case "there":
            return There(call.get("finds", call.get("says", "")))
        case "not there":
            return NotThere()
        case "cannot tell":
            return CannotTell()
        case "fails":
            raise Failed
        case other:
            raise AssertionError(f"unknown look {other!r}")


def words(reply: Reply) -> list[str]:
    match reply:
        case Done(output):
            return ["done", output]
        case Refused(code, message):
            return ["refused", code, message]
        case Superseded():
            return ["superseded"]
        case InProgress():
            return ["in progress"]
        case Unsettled():
            return ["unsettled"]


@pytest.mark.parametrize("has_autocommit", [True, False])
def test_the_scenarios_over_postgresql(connect: Connect, has_autocommit: bool) -> None:
    db, other = connect(), connect()
    db.execute(postgres.SCHEMA.encode())
    db.execute(WORLD)
    db.autocommit = has_autocommit
    assert len(SCENARIOS) > 20
    for scenario in SCENARIOS:
        Play(postgres, db, other, scenario).run()


def test_the_scenarios_over_sqlite(tmp_path: Path) -> None:
    db, other = sqlite3.connect(tmp_path / "shop.db"), sqlite3.connect(tmp_path / "shop.db")
    db.executescript(sqlite.SCHEMA)
    db.execute(WORLD)
    for scenario in SCENARIOS:
        Play(sqlite, db, other, scenario).run()
    db.close()
    other.close()


ACTION = Action(saga_id="order-1", step="deduct-stock", key="a")


def test_a_duplicate_waits_for_the_first_and_gets_its_answer(connect: Connect) -> None:
    db, other, watcher = connect(), connect(), connect()
    db.execute(postgres.SCHEMA.encode())
    barrier = postgres.Barrier()
    replies: list[Reply] = []
    second = threading.Thread(target=lambda: replies.append(barrier.act(other, ACTION, never)))

    def effect(_: object) -> Answer:
        second.start()
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s"
        while not watcher.execute(waiting, (other.info.backend_pid,)).fetchone():
            pass
        return Done("1")

    assert barrier.act(db, ACTION, effect) == Done("1")
    second.join()
    assert replies == [Done("1")]


def test_a_duplicate_that_may_not_wait_is_in_progress(connect: Connect) -> None:
    db, other = connect(), connect()
    db.execute(postgres.SCHEMA.encode())
    other.execute("SET lock_timeout = '1ms'")
    barrier = postgres.Barrier()

    def effect(_: object) -> Answer:
        assert barrier.act(other, ACTION, never) == InProgress()
        undo = Compensation(saga_id="order-1", step="deduct-stock", key="c", action_key="a")
        assert barrier.undo(other, undo, never) == InProgress()
        return Done("1")

    assert barrier.act(db, ACTION, effect) == Done("1")


def test_a_call_that_finds_sqlite_busy_is_in_progress(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "shop.db")
    other = sqlite3.connect(tmp_path / "shop.db", timeout=0)
    db.executescript(sqlite.SCHEMA)
    barrier = sqlite.Barrier()

    def effect(_: object) -> Answer:
        assert barrier.act(other, ACTION, never) == InProgress()
        with pytest.raises(sqlite3.OperationalError):
            barrier.purge(other, FAR_AHEAD)
        return Done("1")

    assert barrier.act(db, ACTION, effect) == Done("1")
    db.close()
    other.close()


def test_the_connection_may_default_to_another_isolation_level(connect: Connect) -> None:
    db = connect()
    db.execute(postgres.SCHEMA.encode())
    db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    db.read_only = True
    level: list[Any] = []

    def effect(tx: psycopg.Connection[Any]) -> Answer:
        level.append(tx.execute("SHOW transaction_isolation").fetchone())
        return Done("1")

    assert postgres.Barrier().act(db, ACTION, effect) == Done("1")
    assert level == [("read committed",)]
    assert (db.isolation_level, db.read_only) == (psycopg.IsolationLevel.REPEATABLE_READ, True)


def test_a_connection_in_a_transaction_is_turned_away(connect: Connect, tmp_path: Path) -> None:
    db = connect()
    db.execute("BEGIN")
    with pytest.raises(barriers.OpenTransaction):
        postgres.Barrier().act(db, ACTION, never)
    local = sqlite3.connect(tmp_path / "shop.db")
    local.execute("BEGIN")
    with pytest.raises(barriers.OpenTransaction):
        sqlite.Barrier().act(local, ACTION, never)
    local.close()
    db.execute("ROLLBACK")


def test_an_effect_that_answers_nothing_leaves_no_trace(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "shop.db")
    db.executescript(sqlite.SCHEMA)
    with pytest.raises(TypeError, match="Done or Refused"):
        sqlite.Barrier().act(db, ACTION, lambda _: None)  # type: ignore[arg-type, return-value]
    assert db.execute("SELECT count(*) FROM sagad_barrier").fetchone() == (0,)
    db.close()


def test_a_table_without_its_key_is_an_error_and_not_a_barrier_that_lets_all_through(
    connect: Connect,
) -> None:
    db = connect()
    db.execute(postgres.SCHEMA.replace("PRIMARY KEY", "").encode())
    with pytest.raises(psycopg.errors.InvalidColumnReference):
        postgres.Barrier().act(db, ACTION, never)
