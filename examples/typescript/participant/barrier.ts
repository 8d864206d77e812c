/**
 * The rule that every participant keeps: one call has one effect.
 *
 * A call may come twice, late, or after its own compensation: a network does that, and so does a daemon
 * that was killed before it could store an answer. Every attempt has the same key, so one row for each
 * action, written in the same transaction as the effect, is enough to tell.
 */

import type Database from 'libsql';

/**
 * What was answered to each action; `superseded` stands for one that its compensation overtook. The rows
 * stay: a call may come very late.
 */
export const SCHEMA = `
  CREATE TABLE IF NOT EXISTS calls (
    action_key TEXT PRIMARY KEY NOT NULL,
    outcome    TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'superseded')),
    code       TEXT NOT NULL,
    text       TEXT NOT NULL,
    undone     INTEGER NOT NULL DEFAULT FALSE
  )`;

/** A call, by the key of the *action*: that is how a compensation finds what it is to undo. */
export type Call =
  | { act: string } // Execute: its `idempotencyKey`
  | { undo: string }; // Compensate: its `actionIdempotencyKey`

/** What to answer: an outcome as the response has it. */
export type Answer =
  | { done: { outputJson: string } } // it happened
  | { refused: { code: string; message: string } } // it did not happen and will not: a definite no
  | { superseded: Record<string, never> }; // too late: its compensation was here before it

/**
 * Answers a call and lets `effect` happen if this is the first time that it should.
 *
 * An effect that answers `refused` must not have changed anything. An exception leaves everything as it
 * was; the daemon asks again.
 */
export function once(db: Database.Database, call: Call, effect: () => Answer): Answer {
  const rule = (): Answer => {
    if ('act' in call) {
      // Seen before: the same answer again. Behind its compensation that is `superseded`.
      const before = seen(db, call.act);
      if (before) return before.answer;
      const answer = effect();
      store(db, call.act, answer);
      return answer;
    }
    const before = seen(db, call.undo);
    if (!before) {
      // The action never came. If it still does, it must not have an effect any more.
      store(db, call.undo, { superseded: {} });
    } else if ('done' in before.answer && !before.undone) {
      const answer = effect();
      if ('done' in answer) {
        db.prepare('UPDATE calls SET undone = TRUE WHERE action_key = ?').run(call.undo);
      }
      return answer;
    }
    // Never came, refused or undone already: nothing is left to undo, and that is what was asked for.
    return { done: { outputJson: '' } };
  };
  // Immediate: of two calls with one key the second waits until the first is through.
  return db.transaction(rule).immediate();
}

interface Row {
  outcome: 'done' | 'refused' | 'superseded';
  code: string;
  text: string;
  undone: number;
}

/** What was answered to this action, and whether it has been undone since. */
function seen(db: Database.Database, key: string): { answer: Answer; undone: boolean } | undefined {
  const sql = 'SELECT outcome, code, text, undone FROM calls WHERE action_key = ?';
  const row = db.prepare(sql).get(key) as Row | undefined;
  if (!row) return undefined;
  const undone = row.undone !== 0;
  switch (row.outcome) {
    case 'done':
      return { answer: { done: { outputJson: row.text } }, undone };
    case 'refused':
      return { answer: { refused: { code: row.code, message: row.text } }, undone };
    case 'superseded':
      return { answer: { superseded: {} }, undone };
  }
}

function store(db: Database.Database, key: string, answer: Answer): void {
  const insert = db.prepare('INSERT INTO calls (action_key, outcome, code, text) VALUES (?, ?, ?, ?)');
  if ('done' in answer) insert.run(key, 'done', '', answer.done.outputJson);
  else if ('refused' in answer) insert.run(key, 'refused', answer.refused.code, answer.refused.message);
  else insert.run(key, 'superseded', '', '');
}
