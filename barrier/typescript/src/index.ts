/**
 * The barrier: what a saga's participant puts around its work so that each effect and each undo happens at most
 * once, whatever the network does to the calls.
 *
 * Calls come twice, late, in the wrong order and at the same time. The barrier keeps one row for each action in the
 * participant's own database and answers by it: a duplicate gets the stored answer, an undo of what never happened
 * leaves a tombstone, and an action behind a tombstone is turned away.
 *
 * The effect belongs in the participant's database: `act` and `undo` run it in the transaction that also holds the
 * row. For an effect outside of it (a mail, a bank) `actOutside` and `undoOutside` commit the intent first; what that
 * can and cannot promise is in the README.
 *
 * `@sagad/barrier/postgres` and `@sagad/barrier/sqlite` each have a `Barrier` and its `SCHEMA`.
 */

export { type Answer, type Done, type Look, type Purged, type Refused, type Reply, done, refused } from "./answers.js";
export type { Action, Compensation, Probe } from "./calls.js";
export { BarrierError, DamagedRow, InvalidCall, KeyReused, NeedsLook, Overtaken } from "./errors.js";
