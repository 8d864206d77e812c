-- Takes the lease: before an undo outside the database, and before looking whether a call that never
-- reported back had its effect. $1 action key, $2 the new lease number (the one read, plus 1),
-- $3 milliseconds, $4 'started' and $5 the compensation's key before an undo, otherwise null.
UPDATE sagad_barrier
SET lease_no = $2::bigint, lease_until = clock_timestamp() + $3::bigint * interval '1 millisecond',
    undo = COALESCE($4::text, undo), undo_key = COALESCE($5::text, undo_key)
WHERE action_key = $1::text AND lease_no = $2 - 1
RETURNING action_key
