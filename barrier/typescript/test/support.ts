/** The database of the tests. `with-postgres` says where the server is. */

import assert from "node:assert/strict";

import pg from "pg";

import { SCHEMA } from "../src/postgres.js";

/** A pool whose connections are in a schema. */
export function connect(schema: string, options = ""): pg.Pool {
  const host = process.env["SAGAD_BARRIER_PGHOST"];
  assert(host, "run it with ../with-postgres (npm test does)");
  return new pg.Pool({
    host,
    user: "postgres",
    database: "postgres",
    max: 16,
    options: `-c search_path=${schema} -c synchronous_commit=off ${options}`,
  });
}

/** A pool in a new schema, with the barrier's table in it. */
export async function connectNew(schema: string): Promise<pg.Pool> {
  const pool = connect(schema);
  await pool.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE; CREATE SCHEMA ${schema}`);
  await pool.query(SCHEMA);
  return pool;
}
