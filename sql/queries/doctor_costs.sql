-- What our sessions cost at the moment; the session is the service's. $1 the slot.
with ours as (
    select a.pid, a.application_name, a.backend_start, r.sent_lsn is not null as is_stream
    from pg_stat_activity as a
    left join pg_stat_replication as r on r.pid = a.pid
    where a.pid <> pg_backend_pid()
        and (
            (a.application_name like 'benefits-sync%' and a.datname = current_database())
            or a.pid = (select s.active_pid from pg_replication_slots as s where s.slot_name = $1::text::name)
        )
)

select jsonb_build_object(
    'pids', (select coalesce(jsonb_agg(o.pid), '[]') from ours as o),
    -- A backup of ours that is seconds old says nothing of a day.
    'oldest_seconds', (select extract(epoch from clock_timestamp() - min(o.backend_start))::float8 from ours as o),
    'locks', (select count(*) from pg_locks as l inner join ours as o on o.pid = l.pid where l.locktype = 'relation' and l.granted),
    'locks_beyond_reading', (
        select count(*)
        from pg_locks as l
        inner join ours as o on o.pid = l.pid
        inner join pg_class as c on c.oid = l.relation
        where l.locktype = 'relation' and l.database = (select d.oid from pg_database as d where d.datname = current_database())
            and l.mode <> 'AccessShareLock' and c.relnamespace <> 'benefits'::regnamespace
            and c.relnamespace <> 'pg_catalog'::regnamespace and c.relnamespace <> 'pg_toast'::regnamespace
    ),
    'waits', (select count(*) from pg_locks as l inner join ours as o on o.pid = l.pid where not l.granted),
    'acknowledged', (
        select count(*) from benefits.history as h
        where h.outcome = 'successful' and h.at > (select min(o.backend_start) from ours as o where not o.is_stream)
    ),
    'counts_statements', (
        select format('%I.pg_stat_statements', n.nspname)
        from pg_extension as e inner join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements'
    )
)
