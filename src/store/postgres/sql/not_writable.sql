-- The reason why messages cannot be logged on this server, or NULL. $1: ids of a range; $2: this process's
-- sessions, as a pattern.
select case
    when pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' then
        'the server only reads: it is a standby, or was set to be read-only'
    when (select pg_encoding_to_char(encoding) from pg_database where datname = current_database()) <> 'UTF8' then
        'the encoding of the database is not UTF8: texts in other scripts cannot be stored'
    when to_regclass('cdls_' || (coalesce(pg_sequence_last_value(to_regclass('cdls_id_seq')), 0) + 1) / $1) is null then
        'no range of the log has room: run `meta-dispatch migrate` as the owner of the tables'
    when exists (select from pg_stat_activity a
                 where a.application_name like $2 and a.wait_event = 'SyncRep' and a.query_start < now() - interval '5 seconds')
        then 'commits wait for a standby that is away (synchronous_standby_names)'
end
