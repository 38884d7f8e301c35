-- The lease is read `for share`: a worker that takes over waits for claims that are being committed.
lease as materialized (
    select partitions from worker_lease where worker = $1 and expires_at > now() for share)
