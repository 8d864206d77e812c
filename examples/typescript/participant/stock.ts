/** The shop's own part: what a service does without any saga. */

import type Database from 'libsql';

import type { Answer } from './barrier.js';

/** Three items to play with, a hundred pieces each. */
export const SCHEMA = `
  CREATE TABLE IF NOT EXISTS stock (
    item_id INTEGER PRIMARY KEY,
    amount  INTEGER NOT NULL CHECK (amount >= 0)
  );
  INSERT INTO stock VALUES (1, 100), (2, 100), (3, 100) ON CONFLICT DO NOTHING`;

/** The input of both actions, as the saga's definition makes it. */
export interface Pieces {
  item_id: number;
  amount: number;
}

/** Reads an input; throws what does not fit. */
export function parse(inputJson: string): Pieces {
  const { item_id, amount } = JSON.parse(inputJson) as Record<string, unknown>;
  // JSON.parse rounds integers past 2^53: they are turned away, not taken for another item.
  if (!isCount(item_id) || !isCount(amount)) {
    throw new TypeError('item_id and amount must be integers from 1 to 2^53 - 1');
  }
  return { item_id, amount };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

/** Takes pieces out of stock. */
export function deduct(db: Database.Database, { item_id, amount }: Pieces): Answer {
  // Check and change are one statement, so no other order can come in between.
  const sql = 'UPDATE stock SET amount = amount - ?2 WHERE item_id = ?1 AND amount >= ?2 RETURNING amount';
  const left = db.prepare(sql).get(item_id, amount) as { amount: number } | undefined;
  if (!left) {
    return {
      refused: { code: 'OUT_OF_STOCK', message: `fewer than ${amount} pieces of item ${item_id} are left` },
    };
  }
  return { done: { outputJson: JSON.stringify({ left: left.amount }) } };
}

/** Puts pieces back. */
export function restore(db: Database.Database, { item_id, amount }: Pieces): Answer {
  db.prepare('UPDATE stock SET amount = amount + ?2 WHERE item_id = ?1').run(item_id, amount);
  return { done: { outputJson: '' } };
}
