/** The scenarios that the Rust, Python and TypeScript barriers share, played over both databases. */

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { DatabaseSync, type DatabaseSyncInstance } from "@photostructure/sqlite";
import type { Pool, PoolClient } from "pg";

import { type Answer, type Look, type Reply, BarrierError, done, refused } from "../src/index.js";
import * as postgres from "../src/postgres.js";
import * as sqlite from "../src/sqlite.js";
import { connect, connectNew } from "./support.js";

/** One call, what the participant's code does if it is run, and what must have come of it. */
interface Call {
  call: "action" | "compensation" | "probe" | "reopen" | "purge";
  outside?: boolean;
  saga?: string;
  step?: string;
  key?: string;
  does?: string;
  says?: string;
  code?: string;
  gets?: string;
  look?: string;
  finds?: string;
  reply: string[];
  effects: number;
  undos: number;
}

interface Scenario {
  name: string;
  outside?: boolean;
  lease_ms?: number;
  calls: Call[];
}

const SCENARIOS = JSON.parse(
  readFileSync(new URL("../../../scenarios/calls.json", import.meta.url), "utf8"),
) as Scenario[];
const FAR_AHEAD = new Date("2200-01-01T00:00:00Z");
const WORLD = "CREATE TABLE world (id INTEGER PRIMARY KEY, effects INTEGER NOT NULL, undos INTEGER NOT NULL)";
const WORLD_AS_IT_WAS = "DELETE FROM sagad_barrier; DELETE FROM world; INSERT INTO world VALUES (1, 0, 0)";
const ERRORS: Record<string, string> = {
  InvalidCall: "invalid call",
  KeyReused: "key reused",
  NeedsLook: "needs a look",
  Overtaken: "overtaken",
};

/** The participant's own code failed, or its process died. */
class Failed extends Error {}

/** The barrier over one database, with the world that the scenarios change. */
interface World {
  barrier: postgres.Barrier | sqlite.Barrier<DatabaseSyncInstance>;
  act(call: Call, ids: { sagaId: string; step: string; key: string }): Promise<Reply>;
  undo(call: Call, ids: { sagaId: string; step: string; key: string; actionKey: string }): Promise<Reply>;
  counts(): Promise<{ effects: number; undos: number }>;
}

async function play(scenario: Scenario, world: World): Promise<void> {
  const outside = { effects: 0, undos: 0 };
  for (const [at, call] of scenario.calls.entries()) {
    const name = `${scenario.name}: call ${at} (${call.call})`;
    const reply = await make(call, call.outside ?? scenario.outside ?? false, world, outside);
    assert.deepEqual(reply, call.reply, name);
    const within = await world.counts();
    const counts = [within.effects + outside.effects, within.undos + outside.undos];
    assert.deepEqual(counts, [call.effects, call.undos], name);
  }
}

type Outside = { effects: number; undos: number };

async function make(call: Call, isOutside: boolean, world: World, outside: Outside): Promise<string[]> {
  const ids = { sagaId: call.saga ?? "order-1", step: call.step ?? "deduct-stock/0" };
  const action = { ...ids, key: call.key ?? "a" };
  const compensation = { ...ids, key: call.key ?? "c", actionKey: "a" };
  const { barrier } = world;
  const look = async () => lookOf(call);
  try {
    switch (call.call) {
      case "action": {
        const effect = async () => {
          if (call.does === "done, overtaken") {
            const undo = { ...compensation, key: "c" };
            const reply = await barrier.undoOutside(undo, never, async () => ({ kind: "not there" }));
            assert.deepEqual(reply, done());
          }
          return deed(call, outside, "effects");
        };
        return words(await (isOutside ? barrier.actOutside(action, effect, look) : world.act(call, action)));
      }
      case "compensation": {
        const undo = async (output: string) => {
          assert.equal(output, call.gets, "the action's output");
          return deed(call, outside, "undos");
        };
        const reply = isOutside ? barrier.undoOutside(compensation, undo, look) : world.undo(call, compensation);
        return words(await reply);
      }
      case "probe": {
        const probe = { ...ids, actionKey: "a" };
        return words(await (isOutside ? barrier.probeOutside(probe, look) : barrier.probe(probe)));
      }
      case "reopen":
        return [(await barrier.reopen("a")) ? "yes" : "no"];
      case "purge": {
        const { deleted, unfinished } = await barrier.purge(FAR_AHEAD);
        return [`${deleted} deleted, ${unfinished} unfinished`];
      }
    }
  } catch (error) {
    if (error instanceof Failed) {
      return ["failed"];
    }
    if (error instanceof BarrierError) {
      return [ERRORS[error.name] ?? error.message];
    }
    throw error;
  }
}

async function never(): Promise<Answer> {
  assert.fail("the participant's code was run");
}

function does(call: Call): string {
  return call.does ?? assert.fail(`${call.call}: the participant's code was run`);
}

/** What a deed within the database answers, once it has counted and, if it is to, failed a statement. */
function answer(call: Call): Answer {
  switch (does(call)) {
    case "done":
    case "done, overtaken":
      return done(call.says);
    case "refused":
    case "refused after a failed statement":
      return refused(call.code ?? "", call.says ?? "");
    case "fails":
    case "crashes":
    case "done, then crashes":
      throw new Failed();
    default:
      assert.fail(`unknown deed ${call.does}`);
  }
}

function deed(call: Call, outside: Outside, column: "effects" | "undos"): Answer {
  if (does(call).startsWith("done")) {
    outside[column] += 1;
  }
  return answer(call);
}

function lookOf(call: Call): Look {
  switch (call.look) {
    case "there":
      return { kind: "there", outputJson: call.finds ?? call.says ?? "" };
    case "not there":
    case "cannot tell":
      return { kind: call.look };
    case "fails":
      throw new Failed();
    default:
      assert.fail(`nobody may look: ${call.look}`);
  }
}

function words(reply: Reply): string[] {
  switch (reply.kind) {
    case "done":
      return [reply.kind, reply.outputJson];
    case "refused":
      return [reply.kind, reply.code, reply.message];
    default:
      return [reply.kind];
  }
}

function overPostgres(pool: Pool, leaseMs: number): World {
  const barrier = new postgres.Barrier(pool, { leaseMs });
  const change = async (tx: PoolClient, call: Call, column: string) => {
    await tx.query(`UPDATE world SET ${column} = ${column} + 1`);
    if (call.does === "refused after a failed statement") {
      await assert.rejects(tx.query("INSERT INTO world VALUES (1, 0, 0)"), { code: "23505" });
    }
    return answer(call);
  };
  return {
    barrier,
    act: (call, ids) => barrier.act(ids, (tx) => change(tx, call, "effects")),
    undo: (call, ids) =>
      barrier.undo(ids, (tx, output) => {
        assert.equal(output, call.gets, "the action's output");
        return change(tx, call, "undos");
      }),
    counts: async () => (await pool.query("SELECT effects, undos FROM world")).rows[0],
  };
}

function overSqlite(db: DatabaseSyncInstance, leaseMs: number): World {
  const barrier = new sqlite.Barrier(db, { leaseMs });
  const change = (call: Call, column: string) => {
    db.exec(`UPDATE world SET ${column} = ${column} + 1`);
    if (call.does === "refused after a failed statement") {
      assert.throws(() => db.exec("INSERT INTO world VALUES (1, 0, 0)"));
    }
    return answer(call);
  };
  return {
    barrier,
    act: async (call, ids) => barrier.act(ids, () => change(call, "effects")),
    undo: async (call, ids) =>
      barrier.undo(ids, (_, output) => {
        assert.equal(output, call.gets, "the action's output");
        return change(call, "undos");
      }),
    counts: async () =>
      db.prepare("SELECT effects, undos FROM world").all()[0] as { effects: number; undos: number },
  };
}

function inFolder(body: (path: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const folder = mkdtempSync(join(tmpdir(), "sagad-barrier-"));
    try {
      await body(join(folder, "shop.db"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
}

test("the scenarios over PostgreSQL", async () => {
  assert(SCENARIOS.length > 20, "the scenarios were not found");
  const pool = await connectNew("typescript_scenarios");
  await pool.query(WORLD);
  for (const scenario of SCENARIOS) {
    await pool.query(WORLD_AS_IT_WAS);
    await play(scenario, overPostgres(pool, scenario.lease_ms ?? 0));
  }
  assert.equal(pool.totalCount, pool.idleCount, "every connection was given back");
  await pool.end();
});

test(
  "the scenarios over SQLite",
  inFolder(async (path) => {
    const db = new DatabaseSync(path);
    db.exec(sqlite.SCHEMA);
    db.exec(WORLD);
    for (const scenario of SCENARIOS) {
      db.exec(WORLD_AS_IT_WAS);
      await play(scenario, overSqlite(db, scenario.lease_ms ?? 0));
    }
    db.close();
  }),
);

const ACTION = { sagaId: "order-1", step: "deduct-stock", key: "a" };
const COMPENSATION = { ...ACTION, key: "c", actionKey: "a" };

test("a duplicate waits for the first and gets its answer", async () => {
  const pool = await connectNew("typescript_waits");
  const barrier = new postgres.Barrier(pool);
  let second: Promise<Reply> | undefined;
  const first = await barrier.act(ACTION, async () => {
    second = barrier.act(ACTION, never);
    const waiting = `SELECT 1 FROM pg_stat_activity
      WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO sagad_barrier%'`;
    while ((await pool.query(waiting)).rows.length === 0);
    return done("1");
  });
  assert.deepEqual([first, await second], [done("1"), done("1")]);
  await pool.end();
});

test("a duplicate that may not wait is in progress", async () => {
  const pool = await connectNew("typescript_busy");
  const hasty = connect("typescript_busy", "-c lock_timeout=1ms");
  const [barrier, other] = [new postgres.Barrier(pool), new postgres.Barrier(hasty)];
  const reply = await barrier.act(ACTION, async () => {
    assert.deepEqual(await other.act(ACTION, never), { kind: "in progress" });
    assert.deepEqual(await other.undo(COMPENSATION, never), { kind: "in progress" });
    return done("1");
  });
  assert.deepEqual(reply, done("1"));
  await Promise.all([pool.end(), hasty.end()]);
});

test("the database may default to another isolation level", async () => {
  const pool = await connectNew("typescript_isolation");
  const strict = connect(
    "typescript_isolation",
    "-c default_transaction_isolation=serializable -c default_transaction_read_only=on",
  );
  const reply = await new postgres.Barrier(strict).act(ACTION, async (tx) => {
    return done((await tx.query("SHOW transaction_isolation")).rows[0].transaction_isolation);
  });
  assert.deepEqual(reply, done("read committed"));
  await Promise.all([pool.end(), strict.end()]);
});

test("a connection that is lost within an effect is an error, and the call may be made again", async () => {
  const pool = await connectNew("typescript_lost");
  const barrier = new postgres.Barrier(pool);
  const lost = barrier.act(ACTION, async (tx) => {
    const { rows } = await tx.query("SELECT pg_backend_pid() AS pid");
    await pool.query("SELECT pg_terminate_backend($1)", [rows[0].pid]);
    await tx.query("SELECT 1");
    return done("1");
  });
  await assert.rejects(lost);
  assert.deepEqual(await barrier.act(ACTION, async () => done("2")), done("2"));
  await pool.end();
});

test("a failed statement that is passed over in silence does not count as done", async () => {
  const pool = await connectNew("typescript_silence");
  const barrier = new postgres.Barrier(pool);
  const silent = barrier.act(ACTION, async (tx) => {
    await tx.query("SELECT 1 / 0").catch(() => undefined);
    return done("1");
  });
  await assert.rejects(silent, { code: "25P02" });
  assert.deepEqual(await barrier.act(ACTION, async () => done("2")), done("2"));
  await pool.end();
});

test("a table without its key is an error and not a barrier that lets all through", async () => {
  const pool = await connectNew("typescript_keyless");
  await pool.query(`DROP TABLE sagad_barrier; ${postgres.SCHEMA.replace("PRIMARY KEY", "")}`);
  await assert.rejects(new postgres.Barrier(pool).act(ACTION, never), { code: "42P10" });
  await pool.end();
});

test(
  "a call that finds SQLite busy is in progress",
  inFolder((path) => {
    const [db, other] = [new DatabaseSync(path), new DatabaseSync(path)];
    db.exec(sqlite.SCHEMA);
    const [barrier, second] = [new sqlite.Barrier(db), new sqlite.Barrier(other)];
    const reply = barrier.act(ACTION, () => {
      assert.deepEqual(second.act(ACTION, () => assert.fail("it runs twice")), { kind: "in progress" });
      assert.throws(() => second.purge(FAR_AHEAD), { errcode: 5 });
      return done("1");
    });
    assert.deepEqual(reply, done("1"));
    db.close();
    other.close();
  }),
);

test(
  "a promise is no answer of an effect within SQLite",
  inFolder((path) => {
    const db = new DatabaseSync(path);
    db.exec(sqlite.SCHEMA);
    const barrier = new sqlite.Barrier(db);
    const effect = (async () => done("1")) as unknown as () => Answer;
    assert.throws(() => barrier.act(ACTION, effect), TypeError);
    assert.deepEqual(db.prepare("SELECT * FROM sagad_barrier").all(), []);
    db.close();
  }),
);

test(
  "many calls outside SQLite at the same time share one connection",
  inFolder(async (path) => {
    const db = new DatabaseSync(path);
    db.exec(sqlite.SCHEMA);
    const barrier = new sqlite.Barrier(db);
    let effects = 0;
    const calls = Array.from({ length: 60 }, (_, at) =>
      barrier.actOutside(
        { ...ACTION, key: `a${at % 20}` },
        async () => {
          await new Promise(setImmediate);
          effects += 1;
          return done("1");
        },
        () => assert.fail("nobody died"),
      ),
    );
    const kinds = (await Promise.all(calls)).map((reply) => reply.kind);
    assert.deepEqual([effects, kinds.filter((kind) => kind === "done").length], [20, 20]);
    db.close();
  }),
);
