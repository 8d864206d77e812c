-- Gives the lease back after a look that could not tell. ?1 action key, ?2 the lease number held.
UPDATE sagad_barrier SET lease_until = NULL WHERE action_key = ?1 AND lease_no = ?2
RETURNING action_key
