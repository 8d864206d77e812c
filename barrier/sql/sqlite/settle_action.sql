-- Stores what came of the action. ?1 action key, ?2 'done', 'refused' or 'tombstone', ?3 code,
-- ?4 output or message, ?5 the lease number that this call holds (0 without a lease).
-- No row: the lease was taken over.
UPDATE sagad_barrier
SET action = ?2, action_code = ?3, action_text = ?4, lease_until = NULL
WHERE action_key = ?1 AND action = 'started' AND lease_no = ?5
RETURNING action_key
