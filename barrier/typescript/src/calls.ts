/** The calls as they come from the daemon. */

import { InvalidCall } from "./errors.js";

const KEY_CHARS_MAX = 64;
const NAME_CHARS_MAX = 200;

/** An action's call (`Execute`). */
export interface Action {
  readonly sagaId: string;
  /** The step, with `/` and the item's index for an instance. */
  readonly step: string;
  /** The call's `idempotency_key`. */
  readonly key: string;
}

/** A compensation's call (`Compensate`). */
export interface Compensation {
  readonly sagaId: string;
  readonly step: string;
  /** The call's own `idempotency_key`. */
  readonly key: string;
  /** The `action_idempotency_key`: which action to undo. */
  readonly actionKey: string;
}

/** A probe's call (`Probe`). */
export interface Probe {
  readonly sagaId: string;
  readonly step: string;
  /** The `action_idempotency_key`: which action is asked about. */
  readonly actionKey: string;
}

export function checkAction(call: Action): void {
  checkNames(call);
  checkKey("key", call.key);
}

export function checkCompensation(call: Compensation): void {
  checkNames(call);
  checkKey("key", call.key);
  checkKey("actionKey", call.actionKey);
  if (call.key === call.actionKey) {
    // The daemon never sends this: one of them was filled in from the wrong field.
    throw new InvalidCall("key", "a compensation's key is not its action's");
  }
}

export function checkProbe(call: Probe): void {
  checkNames(call);
  checkKey("actionKey", call.actionKey);
}

function checkNames({ sagaId, step }: { sagaId: string; step: string }): void {
  for (const [field, name] of Object.entries({ sagaId, step })) {
    const chars = [...name].length;
    if (chars < 1 || chars > NAME_CHARS_MAX) {
      throw new InvalidCall(field, `has 1 to ${NAME_CHARS_MAX} characters`);
    }
  }
}

function checkKey(field: string, key: string): void {
  if (key.length < 1 || key.length > KEY_CHARS_MAX || !/^[!-~]+$/.test(key)) {
    throw new InvalidCall(field, `has 1 to ${KEY_CHARS_MAX} printable ASCII characters`);
  }
}
