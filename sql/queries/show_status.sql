-- All that `status` shows of the database, as one document of one snapshot. $1 the slot.
select jsonb_build_object(
    'server', jsonb_build_object(
        'version', current_setting('server_version'),
        'database', current_database(),
        'keep_bytes', (select setting::bigint * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size'),
        -- The average since the statistics were last reset.
        'wal_bytes_per_second', (
            select round(w.wal_bytes / greatest(extract(epoch from clock_timestamp() - w.stats_reset), 1))::bigint
            from pg_stat_wal as w
        )
    ),
    'slot', (
        select to_jsonb(s) || jsonb_build_object(
            'unconfirmed_bytes', greatest(pg_wal_lsn_diff(s.wal_end, s.confirmed_flush_lsn), 0)::bigint,
            'retained_bytes', greatest(pg_wal_lsn_diff(s.wal_end, s.restart_lsn), 0)::bigint,
            'unreceived_bytes', greatest(pg_wal_lsn_diff(s.wal_end, s.received_lsn), 0)::bigint
        )
        from benefits.replication_status($1::text::name) as s
    ),
    'oldest_transaction', (select to_jsonb(t) from benefits.oldest_transactions(1) as t),
    'site', (
        select jsonb_build_object(
            'platform_id', s.platform_id, 'described', s.record_query is not null, 'paused', s.paused_reason,
            'halted', s.halted_code, 'doubt', s.doubt
        )
        from benefits.site as s
    ),
    'checkpoint', (
        select jsonb_build_object(
            'slot', c.slot_name, 'lsn', c.lsn,
            'reconciled_seconds_ago', extract(epoch from clock_timestamp() - c.reconciled_at)::float8
        )
        from benefits.checkpoint as c
    ),
    'employees', (
        select jsonb_object_agg(c.state, c.n) from (select state, count(*) as n from benefits.employee_status group by state) as c
    ),
    'pending', (
        select jsonb_build_object(
            'employees', count(*),
            'oldest_seconds', extract(epoch from clock_timestamp() - min(p.pending_since) filter (where p.hold_id is null))::float8,
            'held', count(p.hold_id),
            'under_way', count(p.claim),
            'retrying', count(*) filter (where p.attempts > 0)
        )
        from benefits.pending as p
    ),
    'requests', (select count(*) from benefits.request),
    'last_hour', (
        select jsonb_build_object(
            'sent', count(*) filter (where h.outcome = 'successful'),
            'failed', count(*) filter (where h.outcome = 'failed'),
            'median_latency_seconds', (
                percentile_disc(0.5) within group (order by extract(epoch from h.latency)::float8)
                filter (where h.outcome = 'successful')
            )
        )
        from benefits.history as h
        where h.at > clock_timestamp() - interval '1 hour'
    ),
    'errors', (
        select coalesce(jsonb_agg(to_jsonb(e) order by e.employees desc, e.code), '[]')
        from (
            select
                f.error_code as code,
                count(*) as employees,
                extract(epoch from clock_timestamp() - max(r.at))::float8 as newest_seconds,
                (array_agg(f.employee_id order by r.at desc nulls last))[1] as newest_employee
            from benefits.enrolment as f
            left join lateral (
                select h.at from benefits.history as h
                where h.employee_id = f.employee_id and h.outcome = 'failed'
                order by h.at desc
                limit 1
            ) as r on true
            where f.outcome = 'failed'
            group by f.error_code
            order by count(*) desc
            limit 20
        ) as e
    )
)
