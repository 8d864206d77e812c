"""The storm: calls that are duplicated, reordered, cut off and made at the same time from many connections,
against a shop in a real PostgreSQL; then every figure is checked.

`SAGAD_BARRIER_CALLS` sets how many calls, `SAGAD_BARRIER_SEED` which storm.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from random import Random
from typing import Any

import psycopg
from conftest import Connect

from sagad_barrier import (
    Action,
    Answer,
    Compensation,
    Done,
    InProgress,
    Probe,
    Refused,
    Reply,
    Superseded,
)
from sagad_barrier.postgres import SCHEMA, Barrier

CALLS = int(os.environ.get("SAGAD_BARRIER_CALLS", "2000"))
SEED = int(os.environ.get("SAGAD_BARRIER_SEED", "1"))
WORKERS = 8
ROUNDS_MAX = 100
ITEMS = 20
CLOSE = 24

BARRIER = Barrier()


class Broken(Exception):
    """The shop failed on purpose."""


@dataclass(frozen=True)
class Message:
    """One call on its way."""

    action: int
    kind: str

    @property
    def key(self) -> str:
        return f"act-{self.action}"

    @property
    def item(self) -> int:
        return self.action % ITEMS


def plan(random: Random) -> list[list[Message]]:
    """Actions with 1 to 4 calls each, half of them compensated with 1 to 3, one in eight probed."""
    plans: list[list[Message]] = []
    made = 0
    while made < CALLS:
        kinds = ["action"] * random.randint(1, 4)
        kinds += ["compensation"] * (random.randint(1, 3) if random.random() < 0.5 else 0)
        kinds += ["probe"] * (random.random() < 0.125)
        plans.append([Message(len(plans), kind) for kind in kinds])
        made += len(kinds)
    return plans


def disorder(plans: list[list[Message]], random: Random) -> list[Message]:
    """Most of an action's calls close together, so that they meet, and one in five at any time at all."""
    messages = [message for messages in plans for message in messages]
    place = {
        at: random.uniform(0, len(messages)) if random.random() < 0.2 else at + random.uniform(0, CLOSE)
        for at in range(len(messages))
    }
    return [messages[at] for at in sorted(place, key=lambda at: place[at])]


class Storm:
    def __init__(self, connect: Connect) -> None:
        self.connect, self.lock = connect, threading.Lock()
        self.answers: dict[tuple[int, str], set[Reply]] = defaultdict(set)
        self.tally: Counter[str] = Counter()

    def round(self, messages: list[Message], seed: int, is_rough: bool) -> list[Message]:
        """Makes the calls from all connections at once; the ones without a definite answer come back."""
        waiting, left = list(reversed(messages)), list[Message]()
        threads = [
            threading.Thread(target=self.work, args=(waiting, left, Random(seed * WORKERS + worker), is_rough))
            for worker in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return left

    def work(self, waiting: list[Message], left: list[Message], random: Random, is_rough: bool) -> None:
        db = self.connect()
        while True:
            with self.lock:
                if not waiting:
                    break
                message = waiting.pop()
            fate = random.choices(["works", "fails", "is cut"], [90, 7, 3])[0] if is_rough else "works"
            try:
                reply = self.make(db, message, fate)
            except (Broken, psycopg.OperationalError) as error:
                assert fate != "works", error
                reply = InProgress()
                if db.closed:
                    db = self.connect()
            with self.lock:
                self.tally[type(reply).__name__] += 1
                if isinstance(reply, InProgress):
                    left.append(message)
                elif message.kind != "probe":
                    self.answers[message.action, message.kind].add(reply)
        db.close()

    def make(self, db: psycopg.Connection[Any], message: Message, fate: str) -> Reply:
        names = {"saga_id": f"order-{message.action}", "step": "deduct-stock/0"}
        if message.kind == "action":
            return BARRIER.act(
                db, Action(key=message.key, **names), lambda tx: self.deduct(tx, message, fate)
            )
        if message.kind == "probe":
            return BARRIER.probe(db, Probe(action_key=message.key, **names))
        undo = Compensation(key=f"undo-{message.action}", action_key=message.key, **names)
        return BARRIER.undo(db, undo, lambda tx, output: self.restore(tx, message, output, fate))

    def deduct(self, tx: psycopg.Connection[Any], message: Message, fate: str) -> Answer:
        count = "ON CONFLICT (key) DO UPDATE SET effects = ledger.effects + 1"
        tx.execute(f"INSERT INTO ledger VALUES (%s, 1, 0) {count}", (message.key,))
        take = "UPDATE stock SET amount = amount - 1 WHERE item = %s AND amount > 0 RETURNING amount"
        left = tx.execute(take, (message.item,)).fetchone()
        self.suffer(tx, fate)
        if left is None:
            return Refused("OUT_OF_STOCK", f"item {message.item} is out of stock")
        return Done(f'{{"left":{left[0]},"key":"{message.key}"}}')

    def restore(self, tx: psycopg.Connection[Any], message: Message, output: str, fate: str) -> Answer:
        assert message.key in output, "the undo got another action's output"
        tx.execute("UPDATE ledger SET undos = undos + 1 WHERE key = %s", (message.key,))
        tx.execute("UPDATE stock SET amount = amount + 1 WHERE item = %s", (message.item,))
        self.suffer(tx, fate)
        return Done("{}")

    def suffer(self, tx: psycopg.Connection[Any], fate: str) -> None:
        with self.lock:
            self.tally["runs"] += 1
        if fate == "is cut":
            tx.close()
        if fate != "works":
            raise Broken


def test_in_a_storm_of_calls_each_effect_and_each_undo_happens_at_most_once(connect: Connect) -> None:
    setup = connect()
    setup.execute(SCHEMA.encode())
    random = Random(SEED)
    plans = plan(random)
    of_each = len(plans) // 3 // ITEMS
    setup.execute("CREATE TABLE ledger (key TEXT PRIMARY KEY, effects INTEGER, undos INTEGER)")
    setup.execute("CREATE TABLE stock (item INTEGER PRIMARY KEY, amount INTEGER CHECK (amount >= 0))")
    setup.execute("INSERT INTO stock SELECT item, %s FROM generate_series(0, %s) item", (of_each, ITEMS - 1))

    storm = Storm(connect)
    messages = disorder(plans, random)
    late = random.sample(messages, len(messages) // 4)
    made, rounds = len(messages), 0
    while messages:
        rounds += 1
        assert rounds <= ROUNDS_MAX, f"{len(messages)} calls never got a definite answer"
        messages = storm.round(messages, SEED + rounds, True)
        random.shuffle(messages)
    # Messages that were held up somewhere arrive when all is over.
    assert storm.round(late, 0, False) == []

    ledger = {key: counts for key, *counts in setup.execute("SELECT key, effects, undos FROM ledger")}
    wrong: list[str] = []
    for messages_of in plans:
        at, kinds = messages_of[0].action, {message.kind for message in messages_of}
        effects, undos = ledger.pop(f"act-{at}", [0, 0])
        acted = storm.answers[at, "action"]
        if not (0 <= undos <= effects <= 1):
            wrong.append(f"{at}: {effects} effects, {undos} undos")
        if effects != undos and "compensation" in kinds:
            wrong.append(f"{at}: compensated, but {effects} effects and {undos} undos are left")
        if undos and "compensation" not in kinds:
            wrong.append(f"{at}: undone without a compensation")
        # One answer for all calls of a kind, byte for byte, and it tells the truth.
        if len(acted) != 1 or isinstance(next(iter(acted)), Done) != bool(effects):
            wrong.append(f"{at}: answered {acted} with {effects} effects")
        if kinds == {"action"} and Superseded() in acted:
            wrong.append(f"{at}: turned away for nothing")
        if "compensation" in kinds and len(storm.answers[at, "compensation"]) != 1:
            wrong.append(f"{at}: the compensation was answered {storm.answers[at, 'compensation']}")
    totals = setup.execute("SELECT sum(effects), sum(undos) FROM ledger").fetchone()
    [(left,)] = setup.execute("SELECT sum(amount) FROM stock").fetchall()
    assert totals is not None
    print(
        f"barrier storm (Python): seed {SEED}, {len(plans)} actions, {made} calls and {len(late)} late ones"
        f" from {WORKERS} connections in {rounds} rounds: {totals[0]} effects, {totals[1]} undos,"
        f" {dict(storm.tally)}; wrong: {len(wrong)}"
    )
    assert wrong == []
    assert ledger == {}
    assert left + totals[0] - totals[1] == of_each * ITEMS
