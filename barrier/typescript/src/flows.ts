/**
 * What each call does, in order, over either database. A script asks for one thing after the other; who runs it
 * answers, at once (SQLite) or later (PostgreSQL).
 */

import { type Answer, type Look, type Purged, type Reply, done } from "./answers.js";
import { type Action, type Compensation, type Probe, checkAction, checkCompensation, checkProbe } from "./calls.js";
import { NeedsLook, Overtaken } from "./errors.js";
import * as rules from "./rules.js";
import type { Claim, Row, State, Todo } from "./rules.js";
import type { StatementName } from "./statements.js";

/** How long a call outside the database keeps others from looking and trying, unless it is set. */
export const LEASE_MS_DEFAULT = 30_000;
/** Rows deleted in one transaction of a purge. */
const PURGE_BATCH_ROWS = 5_000;

export interface Settings {
  /**
   * How long a call outside the database keeps others from looking and trying, in milliseconds (30,000 unless
   * set). It must be longer than any such call can take to have its effect, its own timeout included.
   */
  readonly leaseMs?: number;
}

export type Param = string | number | null;
type Rows = readonly Readonly<Record<string, unknown>>[];

export type Ask =
  | { readonly ask: "begin" | "commit" | "rollback" }
  | { readonly ask: "savepoint" | "release savepoint" | "rollback to savepoint" }
  /** A statement, run to its end: answered with its rows. */
  | { readonly ask: "run"; readonly statement: StatementName; readonly params: readonly Param[] }
  /** The participant's own code: answered with what it returns. */
  | { readonly ask: "call"; readonly work: () => unknown };

export type Script<T> = Generator<Ask, T, unknown>;

/** Another call is at work and the connection waits no longer. `cause` is the database's own error. */
export class Busy extends Error {}

export function* act(call: Action, effect: () => unknown): Script<Reply> {
  checkAction(call);
  return yield* calmly(
    transaction(function* () {
      const row = yield* find(claimOfAction(call));
      if (row !== undefined) {
        return answered(rules.action(row), call.key);
      }
      const answer = yield* within(effect);
      yield* settleAction(call.key, answer, 0);
      return answer;
    }),
  );
}

export function* undo(call: Compensation, work: (output: string) => unknown): Script<Reply> {
  checkCompensation(call);
  return yield* calmly(
    transaction(function* () {
      const row = yield* find(claimOfCompensation(call));
      if (row === undefined) {
        return rules.NOTHING_TO_UNDO;
      }
      const next = rules.undo(row);
      let answer = rules.NOTHING_TO_UNDO;
      if ("todo" in next && next.todo === "undo") {
        answer = yield* within(() => work(next.output));
      } else if (!("todo" in next && next.todo === "settle an empty undo")) {
        return answered(next, call.actionKey);
      }
      yield* settleUndo(call, answer, row.leaseNo);
      return answer;
    }),
  );
}

export function* probe(call: Probe): Script<Reply> {
  checkProbe(call);
  return yield* calmly(
    transaction(function* () {
      const row = yield* find(claimOfProbe(call));
      return row === undefined ? rules.NEVER_ARRIVED : answered(rules.probe(row), call.actionKey);
    }),
  );
}

export function* actOutside(
  call: Action,
  leaseMs: number,
  effect: () => unknown,
  look: () => unknown,
): Script<Reply> {
  checkAction(call);
  return yield* calmly(
    (function* (): Script<Reply> {
      const turn = yield* transaction(function* () {
        const row = yield* find({ ...claimOfAction(call), leaseMs });
        if (row === undefined) {
          return { leaseNo: 1, isFirst: true };
        }
        const next = rules.action(row);
        return "todo" in next
          ? { leaseNo: yield* takeLease(call.key, row, leaseMs), isFirst: false }
          : next;
      });
      if ("kind" in turn) {
        return turn;
      }
      let answer: Answer | undefined;
      if (!turn.isFirst) {
        const found = yield* lookOrRelease(call.key, turn.leaseNo, look);
        if (found.kind === "cannot tell") {
          return { kind: "unsettled" };
        }
        answer = found.kind === "there" ? done(found.outputJson) : undefined;
      }
      const settled = answer ?? (yield* perform<Answer>(effect));
      yield* transaction(() => settleAction(call.key, settled, turn.leaseNo));
      return settled;
    })(),
  );
}

export function* undoOutside(
  call: Compensation,
  leaseMs: number,
  work: (output: string) => unknown,
  look: () => unknown,
): Script<Reply> {
  checkCompensation(call);
  return yield* calmly(
    (function* (): Script<Reply> {
      const turn = yield* undoIntent(call, leaseMs);
      if ("kind" in turn) {
        return turn;
      }
      let { leaseNo } = turn;
      let output = "output" in turn.next ? turn.next.output : "";
      let answer: Answer | undefined;
      if (turn.next.todo !== "undo") {
        const found = yield* lookOrRelease(call.actionKey, leaseNo, look);
        const isForAction = turn.next.todo === "look for the action";
        if (found.kind === "cannot tell") {
          return { kind: "unsettled" };
        }
        if (found.kind === "not there") {
          answer = rules.NOTHING_TO_UNDO;
          if (isForAction) {
            yield* closeAction(call, leaseNo);
            return answer;
          }
        } else if (isForAction) {
          output = found.outputJson;
          leaseNo = yield* beginUndo(call, leaseNo, leaseMs, output);
        }
      }
      const settled = answer ?? (yield* perform<Answer>(() => work(output)));
      yield* transaction(() => settleUndo(call, settled, leaseNo));
      return settled;
    })(),
  );
}

export function* probeOutside(call: Probe, leaseMs: number, look: () => unknown): Script<Reply> {
  checkProbe(call);
  return yield* calmly(
    (function* (): Script<Reply> {
      const turn = yield* transaction(function* () {
        const row = yield* find(claimOfProbe(call));
        if (row === undefined) {
          return rules.NEVER_ARRIVED;
        }
        const next = rules.probe(row);
        return "todo" in next ? { leaseNo: yield* takeLease(call.actionKey, row, leaseMs) } : next;
      });
      if ("kind" in turn) {
        return turn;
      }
      const found = yield* lookOrRelease(call.actionKey, turn.leaseNo, look);
      if (found.kind === "cannot tell") {
        return { kind: "unsettled" };
      }
      const answer = found.kind === "there" ? done(found.outputJson) : undefined;
      yield* transaction(() => settleAction(call.actionKey, answer ?? "tombstone", turn.leaseNo));
      return answer ?? rules.NEVER_ARRIVED;
    })(),
  );
}

export function* reopen(actionKey: string): Script<boolean> {
  return yield* byHand(transaction(function* () {
    return (yield* run("reopen", actionKey)).length > 0;
  }));
}

export function* purge(before: Date): Script<Purged> {
  const beforeMs = before.getTime();
  let deleted = 0;
  for (;;) {
    const rows = yield* byHand(transaction(() => run("purge", beforeMs, PURGE_BATCH_ROWS)));
    deleted += rows.length;
    if (rows.length < PURGE_BATCH_ROWS) {
      break;
    }
  }
  const [count] = yield* byHand(transaction(() => run("unfinished", beforeMs)));
  return { deleted, unfinished: Number(count?.["unfinished"]) };
}

/** Being busy is an answer. */
function* calmly(script: Script<Reply>): Script<Reply> {
  try {
    return yield* script;
  } catch (error) {
    if (error instanceof Busy) {
      return { kind: "in progress" };
    }
    throw error;
  }
}

/** Outside of calls, being busy is the database's own error. */
function* byHand<T>(script: Script<T>): Script<T> {
  try {
    return yield* script;
  } catch (error) {
    throw error instanceof Busy ? error.cause : error;
  }
}

function* transaction<T>(body: () => Script<T>): Script<T> {
  yield { ask: "begin" };
  try {
    const result = yield* body();
    yield { ask: "commit" };
    return result;
  } catch (error) {
    yield { ask: "rollback" };
    throw error;
  }
}

/**
 * Runs the participant's code behind a savepoint: a refusal takes back what it wrote before, and heals a
 * transaction in which one of its statements failed, but leaves the barrier's row.
 */
function* within(work: () => unknown): Script<Answer> {
  yield { ask: "savepoint" };
  const answer = yield* perform<Answer>(work);
  const [state] = rules.columns(answer);
  if (state === "refused") {
    yield { ask: "rollback to savepoint" };
  }
  yield { ask: "release savepoint" };
  return answer;
}

function* perform<T>(work: () => unknown): Script<T> {
  return (yield { ask: "call", work }) as T;
}

function* run(statement: StatementName, ...params: Param[]): Script<Rows> {
  return (yield { ask: "run", statement, params }) as Rows;
}

function claimOfAction({ key, sagaId, step }: Action): Claim {
  return { actionKey: key, sagaId, step, action: "started" };
}

function claimOfCompensation({ actionKey, sagaId, step, key }: Compensation): Claim {
  return { actionKey, sagaId, step, action: "tombstone", undoKey: key };
}

function claimOfProbe({ actionKey, sagaId, step }: Probe): Claim {
  return { actionKey, sagaId, step, action: "tombstone" };
}

/** Writes the row of a first call (`undefined`), or reads the one that is there. */
function* find(claim: Claim): Script<Row | undefined> {
  const { actionKey, sagaId, step, action, undoKey, leaseMs } = claim;
  const undo = undoKey === undefined ? null : "done";
  const leaseNo = leaseMs === undefined ? 0 : 1;
  const params = [actionKey, sagaId, step, action, undoKey ?? null, undo, leaseNo, leaseMs ?? null];
  if ((yield* run("claim", ...params)).length > 0) {
    return undefined;
  }
  const [columns] = yield* run("read", actionKey);
  if (columns === undefined) {
    // A purge has deleted it this moment. The next call is a first one.
    throw new Busy();
  }
  return rules.parse(columns, claim);
}

/** The answer, or what to do under which lease. */
function undoIntent(
  call: Compensation,
  leaseMs: number,
): Script<Reply | { readonly leaseNo: number; readonly next: Todo }> {
  return transaction(function* () {
    const row = yield* find(claimOfCompensation(call));
    if (row === undefined) {
      return rules.NOTHING_TO_UNDO;
    }
    const next = rules.undo(row);
    if ("kind" in next) {
      return next;
    }
    if (next.todo === "settle an empty undo") {
      yield* settleUndo(call, rules.NOTHING_TO_UNDO, row.leaseNo);
      return rules.NOTHING_TO_UNDO;
    }
    const undoKey = next.todo === "look for the action" ? undefined : call.key;
    return { leaseNo: yield* takeLease(call.actionKey, row, leaseMs, undoKey), next };
  });
}

/** Stores that the action's effect was found, and the intent to undo it. The new lease. */
function beginUndo(call: Compensation, leaseNo: number, leaseMs: number, output: string): Script<number> {
  return transaction(function* () {
    yield* settleAction(call.actionKey, done(output), leaseNo);
    return yield* takeLease(call.actionKey, { leaseNo }, leaseMs, call.key);
  });
}

/** Stores that the action had no effect, and will have none, and that there is nothing to undo. */
function closeAction(call: Compensation, leaseNo: number): Script<void> {
  return transaction(function* () {
    yield* settleAction(call.actionKey, "tombstone", leaseNo);
    yield* settleUndo(call, rules.NOTHING_TO_UNDO, leaseNo);
  });
}

/** Looks. If that fails or cannot tell, the lease is given back: nothing of ours is under way. */
function* lookOrRelease(actionKey: string, leaseNo: number, look: () => unknown): Script<Look> {
  let found: Look | undefined;
  try {
    found = yield* perform<Look>(look);
    return found;
  } finally {
    if (found?.kind !== "there" && found?.kind !== "not there") {
      yield* transaction(() => run("release", actionKey, leaseNo));
    }
  }
}

function* takeLease(
  actionKey: string,
  before: { readonly leaseNo: number },
  leaseMs: number,
  undoKey?: string,
): Script<number> {
  const leaseNo = before.leaseNo + 1;
  const undo = undoKey === undefined ? null : "started";
  held(yield* run("lease", actionKey, leaseNo, leaseMs, undo, undoKey ?? null), actionKey);
  return leaseNo;
}

function* settleAction(actionKey: string, state: State, leaseNo: number): Script<void> {
  held(yield* run("settle_action", actionKey, ...rules.columns(state), leaseNo), actionKey);
}

function* settleUndo(call: Compensation, answer: Answer, leaseNo: number): Script<void> {
  const { actionKey, key } = call;
  held(yield* run("settle_undo", actionKey, key, ...rules.columns(answer), leaseNo), actionKey);
}

/** The answer, where nobody can look. */
function answered(next: Reply | Todo, actionKey: string): Reply {
  if ("todo" in next) {
    throw new NeedsLook(actionKey);
  }
  return next;
}

/** Whether the lease was still ours when the outcome was written. */
function held(rows: Rows, actionKey: string): void {
  if (rows.length === 0) {
    throw new Overtaken(actionKey);
  }
}
