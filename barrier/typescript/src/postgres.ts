/**
 * The barrier over PostgreSQL, with `pg`.
 *
 * Every call begins with an `INSERT … ON CONFLICT DO NOTHING`. The primary key lets one of several concurrent
 * first calls through and has the others wait until it has committed, so there is no moment between looking and
 * writing. Transactions are READ COMMITTED, whatever the database's default is: the statement after such a wait
 * must see what was committed during it.
 *
 * Set `lock_timeout` in the pool's options: a duplicate that waits longer is answered `in progress` instead of
 * holding a connection.
 */

import type { Pool, PoolClient } from "pg";

import type { Answer, Look, Purged, Reply } from "./answers.js";
import type { Action, Compensation, Probe } from "./calls.js";
import { driveAsync } from "./drive.js";
import * as flows from "./flows.js";
import { schema, statements } from "./statements.js";

/** The table, to run with the participant's own migrations. */
export const SCHEMA = schema("postgres");
const STATEMENTS = statements("postgres");

/** `lock_not_available`, `serialization_failure`, `deadlock_detected`. */
const WAITS: readonly unknown[] = ["55P03", "40001", "40P01"];

/** The barrier over a pool's connections. */
export class Barrier {
  readonly #pool: Pool;
  readonly #leaseMs: number;

  constructor(pool: Pool, settings: flows.Settings = {}) {
    this.#pool = pool;
    this.#leaseMs = settings.leaseMs ?? flows.LEASE_MS_DEFAULT;
  }

  /**
   * Runs an action whose effect is in this database. `effect` gets the connection in the transaction that also
   * holds the barrier's row: it checks, changes and answers. It must not commit, and does nothing outside.
   */
  act(call: Action, effect: (tx: PoolClient) => Promise<Answer>): Promise<Reply> {
    return this.#run((session) => flows.act(call, () => effect(session.client)));
  }

  /**
   * Runs a compensation whose undo is in this database. `undo` is called only while the action's effect stands,
   * with the connection and the output that the action answered.
   */
  undo(call: Compensation, undo: (tx: PoolClient, output: string) => Promise<Answer>): Promise<Reply> {
    return this.#run((session) => flows.undo(call, (output) => undo(session.client, output)));
  }

  /**
   * Answers a probe from the rows. An action that was never seen gets a tombstone: it is turned away if it still
   * arrives.
   */
  probe(call: Probe): Promise<Reply> {
    return this.#run(() => flows.probe(call));
  }

  /**
   * Runs an action whose effect is outside this database.
   *
   * `effect` must be over well before the lease ends, one way or the other. `look` is asked when an earlier call
   * began and never reported back. At most one of the two is running at any time for an action, as long as the
   * lease is longer than either.
   */
  actOutside(call: Action, effect: () => Promise<Answer>, look: () => Promise<Look>): Promise<Reply> {
    return this.#run(() => flows.actOutside(call, this.#leaseMs, effect, look));
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
    return this.#run(() => flows.undoOutside(call, this.#leaseMs, undo, look));
  }

  /**
   * Answers a probe of an action whose effect is outside this database: from the rows, and by a look if the
   * action began and never reported back.
   */
  probeOutside(call: Probe, look: () => Promise<Look>): Promise<Reply> {
    return this.#run(() => flows.probeOutside(call, this.#leaseMs, look));
  }

  /**
   * Forgets that a compensation was refused, so that its next call runs: for an operator who has mended the cause
   * and is about to retry it. Whether there was a refusal to forget.
   */
  reopen(actionKey: string): Promise<boolean> {
    return this.#run(() => flows.reopen(actionKey));
  }

  /**
   * Deletes the settled rows made before a time, which must be safe: see "Deleting old rows" in the README. It goes
   * in small transactions.
   */
  purge(before: Date): Promise<Purged> {
    return this.#run(() => flows.purge(before));
  }

  #run<T>(script: (session: Session) => flows.Script<T>): Promise<T> {
    const session = new Session(this.#pool);
    return driveAsync(script(session), (ask) => session.answer(ask));
  }
}

/** One call's connection: there is one from each begin to its commit or rollback. */
class Session {
  readonly #pool: Pool;
  #client: PoolClient | undefined;

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  get client(): PoolClient {
    if (this.#client === undefined) {
      throw new Error("there is a connection only within a transaction");
    }
    return this.#client;
  }

  async answer(ask: flows.Ask): Promise<unknown> {
    switch (ask.ask) {
      case "begin":
        return this.#begin();
      case "commit":
        return this.#commit();
      case "rollback":
        return this.#rollback();
      case "savepoint":
        return this.client.query("SAVEPOINT sagad_effect");
      case "release savepoint":
        return this.client.query("RELEASE SAVEPOINT sagad_effect");
      case "rollback to savepoint":
        return this.client.query("ROLLBACK TO SAVEPOINT sagad_effect");
      case "run":
        return this.#statement(ask);
      case "call":
        return ask.work();
    }
  }

  async #begin(): Promise<void> {
    const client = await this.#pool.connect();
    this.#client = client;
    client.on("error", reportedByTheNextQuery);
    try {
      await client.query("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
    } catch (error) {
      this.#giveBack(true);
      throw error;
    }
  }

  async #commit(): Promise<void> {
    const { command } = await this.client.query("COMMIT");
    if (command !== "COMMIT") {
      throw new Error(`the commit was answered ${command}: a statement's failure was ignored`);
    }
    this.#giveBack(false);
  }

  /** A connection that cannot even roll back is thrown away, and its transaction with it. */
  async #rollback(): Promise<void> {
    let isBroken = false;
    try {
      await this.client.query("ROLLBACK");
    } catch {
      isBroken = true;
    }
    this.#giveBack(isBroken);
  }

  #giveBack(isBroken: boolean): void {
    this.#client?.off("error", reportedByTheNextQuery);
    this.#client?.release(isBroken);
    this.#client = undefined;
  }

  async #statement({ statement, params }: Extract<flows.Ask, { ask: "run" }>): Promise<unknown> {
    try {
      return (await this.client.query(STATEMENTS[statement], [...params])).rows;
    } catch (error) {
      const isWait = statement === "claim" || statement === "read";
      throw isWait && WAITS.includes((error as { code?: unknown }).code) ? new flows.Busy("", { cause: error }) : error;
    }
  }
}

/** Without a listener a lost connection would end the process. */
function reportedByTheNextQuery(): void {}
