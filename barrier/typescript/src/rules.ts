/** The rules, without a database: what a stored row says about the call that has just come. */

import { type Answer, type Reply, done, refused } from "./answers.js";
import { DamagedRow, KeyReused } from "./errors.js";

/** What a compensation is told that had nothing to undo. */
export const NOTHING_TO_UNDO: Answer = done();
/** What a probe is told that finds no row, once it has left a tombstone. */
export const NEVER_ARRIVED: Answer = refused(
  "SUPERSEDED",
  "the action had no effect, and is turned away if it still arrives",
);
const UNDONE = refused("UNDONE", "the action was undone");

/**
 * A state: an answer, or `started` (an effect outside the database was begun; nothing is known of what came of
 * it), or `tombstone` (a compensation or a probe was here before the action).
 */
export type State = Answer | "started" | "tombstone";

/** The row that a call would be the first to write. */
export interface Claim {
  readonly actionKey: string;
  readonly sagaId: string;
  readonly step: string;
  readonly action: "started" | "tombstone";
  readonly undoKey?: string;
  readonly leaseMs?: number;
}

/** What is stored of an action. */
export interface Row {
  readonly action: State;
  /** Not set: no compensation has been here. */
  readonly undo: State | undefined;
  /** Grows with every lease that is taken. */
  readonly leaseNo: number;
  /** Whether the lease is still held. */
  readonly isLeased: boolean;
}

/** A row of `read.sql`, which must be of the same saga and step as the call. */
export function parse(columns: Readonly<Record<string, unknown>>, claim: Claim): Row {
  const { saga_id: sagaId, step, lease_no: leaseNo, leased } = columns;
  if (sagaId !== claim.sagaId || step !== claim.step) {
    throw new KeyReused(claim.actionKey, String(sagaId), String(step));
  }
  const action = state(columns["action"], columns["action_code"], columns["action_text"]);
  const hasUndo = columns["undo"] !== null;
  const undo = hasUndo ? state(columns["undo"], columns["undo_code"], columns["undo_text"]) : undefined;
  if (action === undefined || (hasUndo && undo === undefined) || undo === "tombstone") {
    throw new DamagedRow(claim.actionKey, `states ${String(columns["action"])} and ${String(columns["undo"])}`);
  }
  // PostgreSQL's bigint comes as text, and SQLite has no booleans.
  return { action, undo, leaseNo: Number(leaseNo), isLeased: Boolean(leased) };
}

function state(word: unknown, code: unknown, text: unknown): State | undefined {
  if (word === "started" || word === "tombstone") {
    return word;
  }
  if (word === "done" && code === null && typeof text === "string") {
    return done(text);
  }
  if (word === "refused" && typeof code === "string" && typeof text === "string") {
    return refused(code, text);
  }
  return undefined;
}

/** A state's three columns. */
export function columns(state: State): [string, string | null, string | null] {
  if (state === "started" || state === "tombstone") {
    return [state, null, null];
  }
  switch (state?.kind) {
    case "done":
      return ["done", null, state.outputJson];
    case "refused":
      return ["refused", state.code, state.message];
    default:
      // JavaScript, or a promise where there must be none.
      throw new TypeError("an effect or undo answers done(…) or refused(…), and this one something else");
  }
}

/** What to do about a call that finds a row and has no answer in it. */
export type Todo =
  /** There is nothing to undo; that is stored and answered. */
  | { readonly todo: "settle an empty undo" }
  /** The effect stands, and this is the action's output. */
  | { readonly todo: "undo"; readonly output: string }
  /** The action's effect was begun by a call that is gone: look. */
  | { readonly todo: "look for the action" }
  /** The undo was begun by a call that is gone: look. This is the action's output. */
  | { readonly todo: "look for the undo"; readonly output: string };

const IN_PROGRESS: Reply = { kind: "in progress" };

/** What to do about an action that finds a row. */
export function action(row: Row): Reply | Todo {
  switch (row.action) {
    case "started":
      return row.isLeased ? IN_PROGRESS : { todo: "look for the action" };
    case "tombstone":
      return { kind: "superseded" };
    default:
      return row.action;
  }
}

/** What to do about a compensation that finds a row. */
export function undo(row: Row): Reply | Todo {
  if (row.undo !== undefined && row.undo !== "started" && row.undo !== "tombstone") {
    return row.undo;
  }
  if (row.isLeased && (row.action === "started" || row.undo === "started")) {
    return IN_PROGRESS;
  }
  if (row.action === "started") {
    return { todo: "look for the action" };
  }
  if (row.action === "tombstone" || row.action.kind === "refused") {
    return { todo: "settle an empty undo" };
  }
  const output = row.action.outputJson;
  return row.undo === undefined ? { todo: "undo", output } : { todo: "look for the undo", output };
}

/** What to do about a probe that finds a row. */
export function probe(row: Row): Reply | Todo {
  if (row.action === "started" && !row.isLeased) {
    return { todo: "look for the action" };
  }
  if (row.action === "started" || row.undo === "started") {
    return IN_PROGRESS;
  }
  if (row.action === "tombstone") {
    return NEVER_ARRIVED;
  }
  const isUndone = typeof row.undo === "object" && row.undo.kind === "done";
  return row.action.kind === "done" && isUndone ? UNDONE : row.action;
}
