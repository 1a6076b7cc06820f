-- What doctor wants to know of the server; needs nothing of ours. $1 the slot, $2 the site's time zone.
select jsonb_build_object(
    'version', current_setting('server_version'),
    'version_number', current_setting('server_version_num')::integer,
    'is_standby', pg_is_in_recovery(),
    'encoding', current_setting('server_encoding'),
    'wal_level', current_setting('wal_level'),
    'slots_max', current_setting('max_replication_slots')::integer,
    'slots', (select count(*) from pg_replication_slots),
    'senders_max', current_setting('max_wal_senders')::integer,
    'senders', (select count(*) from pg_stat_replication),
    'standbys', (
        select count(*) from pg_stat_replication as r
        -- A backup or an archive of WAL is no standby.
        where r.application_name not in ('pg_receivewal', 'pg_basebackup') and not exists (
            select from pg_replication_slots as s where s.active_pid = r.pid and s.slot_type = 'logical'
        )
    ),
    'standby_slots_named', coalesce(current_setting('synchronized_standby_slots', true), '') <> '',
    -- The stream waits for these.
    'standby_slots_down', array(
        select n.name
        from string_to_table(nullif(current_setting('synchronized_standby_slots', true), ''), ',') as l (item)
        cross join lateral (select trim(both ' "' from l.item) as name) as n
        where not exists (select from pg_replication_slots as s where s.slot_name = n.name::name and s.active)
        order by 1
    ),
    'keep_megabytes', (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),
    'slot_timeout_seconds', (select setting::bigint from pg_settings where name = 'idle_replication_slot_timeout'),
    'wal_bytes', (select wal_bytes::float8 from pg_stat_wal),
    'wal_seconds', (select extract(epoch from clock_timestamp() - stats_reset)::float8 from pg_stat_wal),
    'wal_end', case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 end,
    'connections_max', current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true), '0')::integer,
    'connections', (select count(*) from pg_stat_activity where backend_type = 'client backend'),
    'connections_ours', (
        select count(*) from pg_stat_activity
        where application_name like 'benefits-sync%' and datname = current_database() and pid <> pg_backend_pid()
    ),
    'role_connections_max', (select nullif(rolconnlimit, -1) from pg_roles where rolname = current_user),
    'database_connections_max', (select nullif(datconnlimit, -1) from pg_database where datname = current_database()),
    'is_encrypted', coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false),
    'is_local', inet_server_addr() is null or inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1',
    'knows_time_zone', exists (select from pg_timezone_names where lower(name) = lower($2::text)),
    'now', extract(epoch from clock_timestamp())::float8,
    'has_schema', to_regclass('benefits.migration') is not null,
    'slot', (
        select jsonb_build_object(
            'is_ours', s.database is not distinct from current_database(),
            'plugin', s.plugin,
            'is_active', s.active,
            'wal_status', s.wal_status,
            'why_lost', to_jsonb(s) ->> 'invalidation_reason',
            'has_failover', coalesce((to_jsonb(s) ->> 'failover')::boolean, false),
            'is_synced', coalesce((to_jsonb(s) ->> 'synced')::boolean, false),
            'is_temporary', s.temporary,
            'safe_wal_bytes', s.safe_wal_size,
            'retained_bytes', case
                when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint
            end
        )
        from pg_replication_slots as s
        where s.slot_name = $1::text::name
    )
)
