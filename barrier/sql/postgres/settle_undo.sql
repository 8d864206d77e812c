-- Stores what came of the compensation. $1 action key, $2 the compensation's key, $3 'done' or
-- 'refused', $4 code, $5 output or message, $6 the lease number that this call holds or has read.
UPDATE sagad_barrier
SET undo_key = $2::text, undo = $3::text, undo_code = $4::text, undo_text = $5::text, lease_until = NULL
WHERE action_key = $1::text AND (undo IS NULL OR undo = 'started') AND lease_no = $6::bigint
RETURNING action_key
