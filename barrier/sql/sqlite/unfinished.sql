-- Counts the rows made before ?1 (milliseconds since the Unix epoch) that are still 'started': calls
-- that never reported back and that nobody has looked after. They are never deleted.
SELECT count(*) AS unfinished FROM sagad_barrier
WHERE created_at < ?1
  AND (action = 'started' OR undo = 'started')
