-- The barrier's one table, for PostgreSQL 13 or newer. It must be in the same database as what the
-- participant changes, so that one transaction covers both. One row stands for one action of one
-- saga: its calls, its compensation's calls and its probes all meet on it.
--
-- The primary key is what makes things happen once. Do not partition the table by time (a unique key
-- would have to hold the time too, and two calls have two times), and do not read it from a replica.
CREATE TABLE IF NOT EXISTS sagad_barrier (
    action_key  varchar(64)  PRIMARY KEY,       -- the action's idempotency key
    saga_id     varchar(200) NOT NULL,          -- for people, and to notice a key used twice
    step        varchar(200) NOT NULL,
    action      varchar(9)   NOT NULL CHECK (action IN ('started', 'done', 'refused', 'tombstone')),
    action_code text,                           -- refused: the code
    action_text text,                           -- done: the output as JSON; refused: the message
    undo_key    varchar(64),                    -- the compensation's own idempotency key
    undo        varchar(9)   CHECK (undo IN ('started', 'done', 'refused')),
    undo_code   text,
    undo_text   text,
    lease_no    bigint       NOT NULL DEFAULT 0,-- effects outside the database: who may write the outcome
    lease_until timestamptz,                    -- and until when nobody else may look or try
    created_at  timestamptz  NOT NULL DEFAULT clock_timestamp(),
    CHECK (undo IS NULL OR action <> 'started')
);
CREATE INDEX IF NOT EXISTS sagad_barrier_created_at ON sagad_barrier (created_at);
