-- What is known of the action, locked until the transaction ends. $1 action key.
SELECT saga_id, step, action, action_code, action_text, undo, undo_code, undo_text, lease_no,
       COALESCE(lease_until > clock_timestamp(), false) AS leased
FROM sagad_barrier WHERE action_key = $1::text FOR UPDATE
