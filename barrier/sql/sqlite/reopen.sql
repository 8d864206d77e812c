-- An operator's: forgets that a compensation was refused, so that the next call of it runs. ?1 action
-- key.
UPDATE sagad_barrier SET undo = NULL, undo_key = NULL, undo_code = NULL, undo_text = NULL
WHERE action_key = ?1 AND undo = 'refused'
RETURNING action_key
