/** The statements, as `sql/` documents them. */

import { readFileSync } from "node:fs";

const NAMES = [
  "claim",
  "lease",
  "purge",
  "read",
  "release",
  "reopen",
  "settle_action",
  "settle_undo",
  "unfinished",
] as const;

export type StatementName = (typeof NAMES)[number];
export type Statements = Readonly<Record<StatementName, string>>;

function read(dialect: string, name: string): string {
  return readFileSync(new URL(`../sql/${dialect}/${name}.sql`, import.meta.url), "utf8");
}

export function statements(dialect: "postgres" | "sqlite"): Statements {
  return Object.fromEntries(NAMES.map((name) => [name, read(dialect, name)])) as Record<StatementName, string>;
}

export function schema(dialect: "postgres" | "sqlite"): string {
  return read(dialect, "schema");
}
