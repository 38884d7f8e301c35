-- The lease is read `for share`: the one who takes over waits for claims that are being committed.
lease as materialized (
    select partitions from worker_lease where worker = $1 and expires_at > now() for share)
