/**
 * The storm: calls that are duplicated, reordered, cut off and made at the same time from many connections, against
 * a shop in a real PostgreSQL; then every figure is checked.
 *
 * `SAGAD_BARRIER_CALLS` sets how many calls, `SAGAD_BARRIER_SEED` which storm.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import type { Pool, PoolClient } from "pg";

import { type Answer, type Reply, done, refused } from "../src/index.js";
import { Barrier } from "../src/postgres.js";
import { connectNew } from "./support.js";

const CALLS = Number(process.env["SAGAD_BARRIER_CALLS"] ?? 2000);
const SEED = Number(process.env["SAGAD_BARRIER_SEED"] ?? 1);
const WORKERS = 8;
const ROUNDS_MAX = 100;
const ITEMS = 20;
const CLOSE = 24;

type Kind = "action" | "compensation" | "probe";
type Fate = "works" | "fails" | "is cut";

/** One call on its way. */
interface Message {
  readonly action: number;
  readonly kind: Kind;
}

class Broken extends Error {}

/** mulberry32: a number from 0 up to 1. */
function randomFrom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Actions with 1 to 4 calls each, half of them compensated with 1 to 3, one in eight probed. */
function plan(random: () => number): Kind[][] {
  const upTo = (most: number) => 1 + Math.floor(random() * most);
  const plans: Kind[][] = [];
  for (let made = 0; made < CALLS; made += plans.at(-1)?.length ?? 0) {
    const kinds = new Array<Kind>(upTo(4)).fill("action");
    if (random() < 0.5) {
      kinds.push(...new Array<Kind>(upTo(3)).fill("compensation"));
    }
    if (random() < 0.125) {
      kinds.push("probe");
    }
    plans.push(kinds);
  }
  return plans;
}

/** Most of an action's calls close together, so that they meet, and one in five at any time at all. */
function disorder(plans: readonly Kind[][], random: () => number): Message[] {
  const messages = plans.flatMap((kinds, action) => kinds.map((kind) => ({ action, kind })));
  const placed = messages.map((message, at) => ({
    message,
    place: random() < 0.2 ? random() * messages.length : at + random() * CLOSE,
  }));
  return placed.sort((a, b) => a.place - b.place).map(({ message }) => message);
}

class Storm {
  /** All definite answers of each action and each compensation: one each, or something is wrong. */
  readonly answers = new Map<string, Set<string>>();
  readonly tally: Record<string, number> = { runs: 0 };
  readonly #barrier: Barrier;

  constructor(pool: Pool) {
    this.#barrier = new Barrier(pool);
  }

  /** Makes the calls, several at once; the ones without a definite answer come back. */
  async round(messages: readonly Message[], random: () => number, isRough: boolean): Promise<Message[]> {
    const [waiting, left] = [[...messages].reverse(), [] as Message[]];
    const work = async () => {
      for (let message = waiting.pop(); message !== undefined; message = waiting.pop()) {
        const luck = isRough ? random() : 1;
        const fate = luck < 0.03 ? "is cut" : luck < 0.1 ? "fails" : "works";
        const reply = await this.#make(message, fate).catch((error: unknown): Reply => {
          assert(fate !== "works", error as Error);
          return { kind: "in progress" };
        });
        this.tally[reply.kind] = (this.tally[reply.kind] ?? 0) + 1;
        if (reply.kind === "in progress") {
          left.push(message);
        } else {
          this.#note(message, reply);
        }
      }
    };
    await Promise.all(Array.from({ length: WORKERS }, work));
    return left;
  }

  given(action: number, kind: Kind): string[] {
    return [...(this.answers.get(`${kind} ${action}`) ?? [])];
  }

  #note({ action, kind }: Message, reply: Reply): void {
    const known = this.answers.get(`${kind} ${action}`) ?? new Set();
    this.answers.set(`${kind} ${action}`, known.add(JSON.stringify(reply)));
  }

  #make(message: Message, fate: Fate): Promise<Reply> {
    const { action, kind } = message;
    const [ids, key] = [{ sagaId: `order-${action}`, step: "deduct-stock/0" }, `act-${action}`];
    switch (kind) {
      case "action":
        return this.#barrier.act({ ...ids, key }, (tx) => this.#deduct(tx, action, fate));
      case "probe":
        return this.#barrier.probe({ ...ids, actionKey: key });
      case "compensation":
        return this.#barrier.undo({ ...ids, key: `undo-${action}`, actionKey: key }, (tx, output) =>
          this.#restore(tx, action, output, fate),
        );
    }
  }

  async #deduct(tx: PoolClient, action: number, fate: Fate): Promise<Answer> {
    const count = "ON CONFLICT (key) DO UPDATE SET effects = ledger.effects + 1";
    await tx.query(`INSERT INTO ledger VALUES ($1, 1, 0) ${count}`, [`act-${action}`]);
    const take = "UPDATE stock SET amount = amount - 1 WHERE item = $1 AND amount > 0 RETURNING amount";
    const { rows } = await tx.query<{ amount: number }>(take, [action % ITEMS]);
    this.#suffer(tx, fate);
    return rows[0] === undefined
      ? refused("OUT_OF_STOCK", `item ${action % ITEMS} is out of stock`)
      : done(JSON.stringify({ left: rows[0].amount, action }));
  }

  async #restore(tx: PoolClient, action: number, output: string, fate: Fate): Promise<Answer> {
    assert.equal(JSON.parse(output).action, action, "the undo got another action's output");
    await tx.query("UPDATE ledger SET undos = undos + 1 WHERE key = $1", [`act-${action}`]);
    await tx.query("UPDATE stock SET amount = amount + 1 WHERE item = $1", [action % ITEMS]);
    this.#suffer(tx, fate);
    return done("{}");
  }

  #suffer(tx: PoolClient, fate: Fate): void {
    this.tally["runs"] = (this.tally["runs"] ?? 0) + 1;
    if (fate === "is cut") {
      (tx as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    }
    if (fate !== "works") {
      throw new Broken();
    }
  }
}

test("in a storm of calls each effect and each undo happens at most once", async () => {
  const pool = await connectNew("typescript_storm");
  const random = randomFrom(SEED);
  const plans = plan(random);
  const ofEach = Math.floor(plans.length / 3 / ITEMS);
  await pool.query(`
    CREATE TABLE ledger (key TEXT PRIMARY KEY, effects INTEGER, undos INTEGER);
    CREATE TABLE stock (item INTEGER PRIMARY KEY, amount INTEGER CHECK (amount >= 0));
    INSERT INTO stock SELECT item, ${ofEach} FROM generate_series(0, ${ITEMS - 1}) item`);

  const storm = new Storm(pool);
  const made = disorder(plans, random);
  let [messages, rounds] = [made, 0];
  while (messages.length > 0) {
    rounds += 1;
    assert(rounds <= ROUNDS_MAX, `${messages.length} calls never got a definite answer`);
    messages = await storm.round(messages, random, true);
  }
  // Messages that were held up somewhere arrive when all is over.
  const late = made.filter(() => random() < 0.25).reverse();
  assert.deepEqual(await storm.round(late, random, false), []);

  type Entry = { key: string; effects: number; undos: number };
  const entries = (await pool.query<Entry>("SELECT key, effects, undos FROM ledger")).rows;
  const ledger = new Map(entries.map((entry) => [entry.key, entry]));
  const wrong: string[] = [];
  let [standing, effectsInAll, undosInAll] = [0, 0, 0];
  for (const [at, kinds] of plans.entries()) {
    const { effects, undos } = ledger.get(`act-${at}`) ?? { effects: 0, undos: 0 };
    ledger.delete(`act-${at}`);
    const [isCompensated, acted] = [kinds.includes("compensation"), storm.given(at, "action")];
    const isRight =
      undos <= effects &&
      effects <= 1 &&
      (isCompensated ? effects === undos : undos === 0) &&
      // One answer for all calls of a kind, byte for byte, and it tells the truth.
      acted.length === 1 &&
      acted[0]?.includes('"done"') === effects > 0 &&
      (kinds.some((kind) => kind !== "action") || !acted[0]?.includes("superseded")) &&
      storm.given(at, "compensation").length === Number(isCompensated);
    if (!isRight) {
      wrong.push(`${at}: ${effects} effects, ${undos} undos, answered ${acted.join(", ")}`);
    }
    standing += effects - undos;
    effectsInAll += effects;
    undosInAll += undos;
  }
  const { rows } = await pool.query<{ left: string }>("SELECT sum(amount) AS left FROM stock");
  console.log(
    `barrier storm (TypeScript): seed ${SEED}, ${plans.length} actions, ${made.length} calls and ${late.length} late ones,`,
    `${WORKERS} at a time, in ${rounds} rounds: ${effectsInAll} effects, ${undosInAll} undos,`,
    `${JSON.stringify(storm.tally)}; wrong: ${wrong.length}`,
  );
  assert.deepEqual(wrong, []);
  assert.equal(ledger.size, 0, "effects of keys that were never sent");
  assert.equal(Number(rows[0]?.left) + standing, ofEach * ITEMS);
  await pool.end();
});
