/** What the participant's own code says, and what the daemon is told. */

/** It happened. */
export interface Done {
  readonly kind: "done";
  /** The output as JSON; empty is null. */
  readonly outputJson: string;
}

/**
 * It did not happen and will not: a definite no. What the code wrote in the transaction before it said so is
 * rolled back. A timeout or any other doubt is no refusal: throw, and the call will come again.
 */
export interface Refused {
  readonly kind: "refused";
  /** A short word for programs, such as `OUT_OF_STOCK`. */
  readonly code: string;
  /** What is wrong, for people. */
  readonly message: string;
}

/** What came of an effect or an undo: the participant's own code returns it, the barrier stores it. */
export type Answer = Done | Refused;

/**
 * What to answer the daemon.
 *
 * - `superseded` (only to Execute): the compensation or a probe was here first.
 * - `in progress`: the same call, or the one it depends on, is at work at this moment. Answer the status
 *   ABORTED (over HTTP 409), which is an unknown outcome, and `pending` to a probe: it is asked again.
 * - `unsettled`: whether an earlier call had its effect cannot be told yet. Answer the status ABORTED (over
 *   HTTP 409), also to a probe.
 */
export type Reply =
  | Answer
  | { readonly kind: "superseded" }
  | { readonly kind: "in progress" }
  | { readonly kind: "unsettled" };

/**
 * What a look at the outside world found.
 *
 * - `there`: the effect is there; its output as JSON, as the action would have answered.
 * - `not there`: it is not, and no call that is still under way will bring it about. For an undo: it is gone.
 * - `cannot tell`: not now; the call stays unknown and is made again.
 */
export type Look =
  | { readonly kind: "there"; readonly outputJson: string }
  | { readonly kind: "not there" }
  | { readonly kind: "cannot tell" };

/** What a purge did. */
export interface Purged {
  readonly deleted: number;
  /**
   * Rows as old that were kept: an effect outside the database was begun and nobody ever learnt what came of
   * it. Their sagas have ended, so a person has to look.
   */
  readonly unfinished: number;
}

/** It happened, and this is the output as JSON; empty is null. */
export function done(outputJson = ""): Done {
  return { kind: "done", outputJson };
}

/** It did not happen and will not. */
export function refused(code: string, message: string): Refused {
  return { kind: "refused", code, message };
}
