/**
 * The barrier over SQLite, with `better-sqlite3` or `node:sqlite`.
 *
 * Every call runs in a transaction begun with `BEGIN IMMEDIATE`: one call at a time looks and writes, so what it
 * read cannot have changed when it writes. Set a busy timeout on the connection: a call that waits longer for
 * another is answered `in progress`.
 *
 * What happens within the database is not async: nothing else may use the connection in between.
 */

import type { Answer, Look, Purged, Reply } from "./answers.js";
import type { Action, Compensation, Probe } from "./calls.js";
import { drive, driveAsync } from "./drive.js";
import * as flows from "./flows.js";
import { schema, statements } from "./statements.js";

/** What the barrier needs of a connection. */
export interface Database {
  exec(sql: string): unknown;
  prepare(sql: string): { all(params: Record<string, string | number | null>): unknown };
}

/** The table, to run with the participant's own migrations. */
export const SCHEMA = schema("sqlite");
/** Named parameters are what the two drivers have in common. */
const STATEMENTS = Object.fromEntries(
  Object.entries(statements("sqlite")).map(([name, sql]) => [name, sql.replaceAll(/\?(\d)/g, ":p$1")]),
);

const TRANSACTIONS: Readonly<Record<Exclude<flows.Ask["ask"], "run" | "call">, string>> = {
  begin: "BEGIN IMMEDIATE",
  commit: "COMMIT",
  rollback: "ROLLBACK",
  savepoint: "SAVEPOINT sagad_effect",
  "release savepoint": "RELEASE sagad_effect",
  "rollback to savepoint": "ROLLBACK TO sagad_effect",
};
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;

/** The barrier over one connection. */
export class Barrier<D extends Database> {
  readonly #db: D;
  readonly #leaseMs: number;

  constructor(db: D, settings: flows.Settings = {}) {
    this.#db = db;
    this.#leaseMs = settings.leaseMs ?? flows.LEASE_MS_DEFAULT;
  }

  /**
   * Runs an action whose effect is in this database. `effect` gets the connection, in the transaction that also
   * holds the barrier's row: it checks, changes and answers. It must not commit, and does nothing outside.
   */
  act(call: Action, effect: (db: D) => Answer): Reply {
    return this.#run(flows.act(call, () => effect(this.#db)));
  }

  /**
   * Runs a compensation whose undo is in this database. `undo` is called only while the action's effect stands,
   * with the connection and the output that the action answered.
   */
  undo(call: Compensation, undo: (db: D, output: string) => Answer): Reply {
    return this.#run(flows.undo(call, (output) => undo(this.#db, output)));
  }

  /**
   * Answers a probe from the rows. An action that was never seen gets a tombstone: it is turned away if it still
   * arrives.
   */
  probe(call: Probe): Reply {
    return this.#run(flows.probe(call));
  }

  /**
   * Runs an action whose effect is outside this database.
   *
   * `effect` must be over well before the lease ends, one way or the other. `look` is asked when an earlier call
   * began and never reported back. At most one of the two is running at any time for an action, as long as the
   * lease is longer than either.
   */
  actOutside(call: Action, effect: () => Promise<Answer>, look: () => Promise<Look>): Promise<Reply> {
    return this.#runAsync(flows.actOutside(call, this.#leaseMs, effect, look));
  }

  /**
   * Runs a compensation whose undo is outside this database. `undo` gets the output that the action answered
   * (empty if it never did). `look` tells whether the *action's* effect is there.
   */
  undoOutside(
    call: Compensation,
    undo: (output: string) => Promise<Answer>,
    look: () => Promise<Look>,
  ): Promise<Reply> {
    return this.#runAsync(flows.undoOutside(call, this.#leaseMs, undo, look));
  }

  /**
   * Answers a probe of an action whose effect is outside this database: from the rows, and by a look if the
   * action began and never reported back.
   */
  probeOutside(call: Probe, look: () => Promise<Look>): Promise<Reply> {
    return this.#runAsync(flows.probeOutside(call, this.#leaseMs, look));
  }

  /**
   * Forgets that a compensation was refused, so that its next call runs: for an operator who has mended the cause
   * and is about to retry it. Whether there was a refusal to forget.
   */
  reopen(actionKey: string): boolean {
    return this.#run(flows.reopen(actionKey));
  }

  /**
   * Deletes the settled rows made before a time, which must be safe: see "Deleting old rows" in the README. It goes
   * in small transactions.
   */
  purge(before: Date): Purged {
    return this.#run(flows.purge(before));
  }

  #run<T>(script: flows.Script<T>): T {
    return drive(script, (ask) => this.#answer(ask));
  }

  #runAsync<T>(script: flows.Script<T>): Promise<T> {
    return driveAsync(script, (ask) => this.#answer(ask));
  }

  #answer(ask: flows.Ask): unknown {
    switch (ask.ask) {
      case "call":
        return ask.work();
      case "run": {
        const params = Object.fromEntries(ask.params.map((param, at) => [`p${at + 1}`, param]));
        return this.#db.prepare(STATEMENTS[ask.statement] ?? "").all(params);
      }
      case "begin":
        try {
          return this.#db.exec(TRANSACTIONS.begin);
        } catch (error) {
          throw isBusy(error) ? new flows.Busy("", { cause: error }) : error;
        }
      case "rollback":
        try {
          return this.#db.exec(TRANSACTIONS.rollback);
        } catch {
          // SQLite has rolled back by itself; what went wrong before is thrown.
          return undefined;
        }
      default:
        return this.#db.exec(TRANSACTIONS[ask.ask]);
    }
  }
}

/** `better-sqlite3` has the code as a word, `node:sqlite` as a number. */
function isBusy(error: unknown): boolean {
  const { code, errcode } = error as { code?: unknown; errcode?: unknown };
  if (typeof errcode === "number") {
    // The lower byte is the cause; the others say more about it.
    return [SQLITE_BUSY, SQLITE_LOCKED].includes(errcode & 0xff);
  }
  return typeof code === "string" && /^SQLITE_(BUSY|LOCKED)/.test(code);
}
