-- Stores what came of the compensation. ?1 action key, ?2 the compensation's key, ?3 'done' or
-- 'refused', ?4 code, ?5 output or message, ?6 the lease number that this call holds or has read.
UPDATE sagad_barrier
SET undo_key = ?2, undo = ?3, undo_code = ?4, undo_text = ?5, lease_until = NULL
WHERE action_key = ?1 AND (undo IS NULL OR undo = 'started') AND lease_no = ?6
RETURNING action_key
