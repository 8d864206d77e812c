/** Runs scripts. */

import type { Ask, Script } from "./flows.js";

/** Runs a script whose every ask is answered at once. */
export function drive<T>(script: Script<T>, answer: (ask: Ask) => unknown): T {
  let step = script.next();
  while (!step.done) {
    const ask = step.value;
    let given: unknown;
    try {
      given = answer(ask);
    } catch (error) {
      step = script.throw(error);
      continue;
    }
    step = script.next(given);
  }
  return step.value;
}

/**
 * The same for answers that may be promises. Others are passed on without giving way: what lies between a begin
 * and a commit of SQLite is not interrupted.
 */
export async function driveAsync<T>(script: Script<T>, answer: (ask: Ask) => unknown): Promise<T> {
  let step = script.next();
  while (!step.done) {
    const ask = step.value;
    let given: unknown;
    try {
      given = answer(ask);
      if (given instanceof Promise) {
        given = await given;
      }
    } catch (error) {
      step = script.throw(error);
      continue;
    }
    step = script.next(given);
  }
  return step.value;
}
