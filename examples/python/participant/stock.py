"""The shop's own part: what a service does without any saga."""

import json
from dataclasses import dataclass
from sqlite3 import Connection

from barrier import Answer, Done, Refused

# Three items to play with, a hundred pieces each.
SCHEMA = """
    CREATE TABLE IF NOT EXISTS stock (
        item_id INTEGER PRIMARY KEY,
        amount  INTEGER NOT NULL CHECK (amount >= 0)
    );
    INSERT INTO stock VALUES (1, 100), (2, 100), (3, 100) ON CONFLICT DO NOTHING"""

# SQLite's largest integer.
MAX = 2**63 - 1


@dataclass(frozen=True)
class Pieces:
    """The input of both actions, as the saga's definition makes it."""

    item_id: int
    amount: int

    @classmethod
    def parse(cls, input_json: str) -> "Pieces":
        """Read an input; a ValueError says what does not fit."""
        match json.loads(input_json):
            case {"item_id": int(item_id), "amount": int(amount)} if 0 < amount <= MAX and 0 < item_id <= MAX:
                return cls(item_id, amount)
        message = "item_id and amount must be integers, 1 or more"
        raise ValueError(message)


def deduct(db: Connection, pieces: Pieces) -> Answer:
    """Take pieces out of stock."""
    # Check and change are one statement, so no other order can come in between.
    sql = "UPDATE stock SET amount = amount - ?2 WHERE item_id = ?1 AND amount >= ?2 RETURNING amount"
    left = db.execute(sql, [pieces.item_id, pieces.amount]).fetchone()
    if left is None:
        return Refused("OUT_OF_STOCK", f"fewer than {pieces.amount} pieces of item {pieces.item_id} are left")
    return Done(json.dumps({"left": left[0]}))


def restore(db: Connection, pieces: Pieces) -> Answer:
    """Put pieces back."""
    db.execute("UPDATE stock SET amount = amount + ?2 WHERE item_id = ?1", [pieces.item_id, pieces.amount])
    return Done()
