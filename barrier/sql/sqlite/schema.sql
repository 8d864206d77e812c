-- The barrier's one table, for SQLite 3.35 or newer, in the same database file as what the participant
-- changes. One row stands for one action of one saga; times are milliseconds since the Unix epoch.
-- Every call runs in a transaction begun with BEGIN IMMEDIATE: a second writer waits for the first
-- (`busy_timeout`), it never works from a stale read.
CREATE TABLE IF NOT EXISTS sagad_barrier (
    action_key  TEXT    PRIMARY KEY NOT NULL,   -- the action's idempotency key
    saga_id     TEXT    NOT NULL,               -- for people, and to notice a key used twice
    step        TEXT    NOT NULL,
    action      TEXT    NOT NULL CHECK (action IN ('started', 'done', 'refused', 'tombstone')),
    action_code TEXT,                           -- refused: the code
    action_text TEXT,                           -- done: the output as JSON; refused: the message
    undo_key    TEXT,                           -- the compensation's own idempotency key
    undo        TEXT    CHECK (undo IN ('started', 'done', 'refused')),
    undo_code   TEXT,
    undo_text   TEXT,
    lease_no    INTEGER NOT NULL DEFAULT 0,     -- effects outside the database: who may write the outcome
    lease_until INTEGER,                        -- and until when nobody else may look or try
    created_at  INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    CHECK (undo IS NULL OR action <> 'started')
);
CREATE INDEX IF NOT EXISTS sagad_barrier_created_at ON sagad_barrier (created_at);
