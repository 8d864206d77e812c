-- Deletes up to ?2 settled rows made before ?1 (milliseconds since the Unix epoch). Repeat it until
-- it returns fewer. Which time is safe: README.md, "Deleting old rows".
DELETE FROM sagad_barrier WHERE action_key IN (
    SELECT action_key FROM sagad_barrier
    WHERE created_at < ?1
      AND action <> 'started' AND (undo IS NULL OR undo <> 'started')
    ORDER BY created_at LIMIT ?2
)
RETURNING action_key
