-- Every call begins here. A row comes back: this call is the first that was seen of the action.
-- No row: another one was, read it. A concurrent first call is waited for: if it commits, nothing
-- comes back; if it rolls back, this call is the first. Run it after BEGIN IMMEDIATE.
-- ?1 action key, ?2 saga, ?3 step, ?4 action: 'started' for an action, 'tombstone' for a compensation
-- or a probe, ?5 the compensation's key and ?6 undo: 'done' for a compensation, otherwise null,
-- ?7 lease number and ?8 lease in milliseconds: 1 and the lease for an effect outside the database,
-- otherwise 0 and null.
INSERT INTO sagad_barrier (action_key, saga_id, step, action, undo_key, undo, undo_text, lease_no, lease_until)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, CASE WHEN ?6 = 'done' THEN '' END,
        ?7, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + ?8)
ON CONFLICT (action_key) DO NOTHING
RETURNING action_key
