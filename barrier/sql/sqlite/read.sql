-- What is known of the action; BEGIN IMMEDIATE holds the lock. ?1 action key.
SELECT saga_id, step, action, action_code, action_text, undo, undo_code, undo_text, lease_no,
       COALESCE(lease_until > CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0) AS leased
FROM sagad_barrier WHERE action_key = ?1
