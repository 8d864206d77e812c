/**
 * Why there is no answer. The database's own errors and those of the participant's code pass through
 * unchanged; after each of them the transaction is rolled back, unless it was the commit that failed: then it
 * may have been committed. Either way the same call may be made again.
 *
 * Every error is an unknown outcome to the daemon: answer it with a gRPC error status such as ABORTED or
 * INTERNAL, never with `refused`.
 */

/** The barrier itself has no answer. */
export class BarrierError extends Error {
  constructor(message: string) {
    super(message);
    this.name = new.target.name;
  }
}

/** The call cannot be one of the daemon's. Nothing was read or written; a retry does not help. */
export class InvalidCall extends BarrierError {
  constructor(field: string, rule: string) {
    super(`${field}: ${rule}; take it from the request unchanged`);
  }
}

/**
 * The key belongs to another saga or step. A retry does not help: two daemons without common state use one
 * participant, or the fields were mixed up.
 */
export class KeyReused extends BarrierError {
  constructor(actionKey: string, sagaId: string, step: string) {
    super(`key ${actionKey} belongs to step ${step} of saga ${sagaId}: was a field mixed up?`);
  }
}

/**
 * An earlier call had an effect outside the database and did not report back. Make this call with the
 * `…Outside` method, which can look.
 */
export class NeedsLook extends BarrierError {
  constructor(actionKey: string) {
    super(
      `key ${actionKey}: an earlier call outside the database never reported back; use the method that looks`,
    );
  }
}

/**
 * The effect took longer than the lease and somebody else settled the call meanwhile. Its answer is not
 * stored. The call may be made again and gets the stored answer, but a person has to look: the effect may
 * have happened twice, or behind its compensation. Let effects time out well before the lease ends.
 */
export class Overtaken extends BarrierError {
  constructor(actionKey: string) {
    super(
      `key ${actionKey}: it took longer than the lease and another call settled it; ` +
        "look at the effect, and make the lease longer",
    );
  }
}

/** The row holds what the barrier never writes. A retry does not help. */
export class DamagedRow extends BarrierError {
  constructor(actionKey: string, why: string) {
    super(`key ${actionKey}: the stored row makes no sense (${why})`);
  }
}
