-- What status, doctor and the metrics look at beyond the ledger. PostgreSQL shows other users' sessions and replication
-- only to members of pg_read_all_stats, and shows them every query's text with it. So these functions run as benefits_owner,
-- which is a member, and return what is needed and no text.

create function benefits.replication_status(slot name) returns table (
    wal_end pg_lsn,
    is_standby boolean,
    has_slot boolean,
    is_ours boolean,
    is_active boolean,
    wal_status text,
    why_lost text,
    confirmed_flush_lsn pg_lsn,
    restart_lsn pg_lsn,
    received_lsn pg_lsn,
    safe_wal_size bigint,
    stream_state text,
    reader_pid integer,
    reader_address text,
    flush_lag_seconds float8,
    inactive_seconds float8,
    failover boolean,
    temporary boolean,
    plugin name
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select
        w.wal_end,
        pg_is_in_recovery(),
        s.slot_name is not null,
        coalesce(s.database = current_database(), false),
        coalesce(s.active, false),
        s.wal_status,
        -- Columns of newer versions: 16 conflicting, 17 failover, inactive_since and invalidation_reason.
        to_jsonb(s) ->> 'invalidation_reason',
        s.confirmed_flush_lsn,
        s.restart_lsn,
        r.write_lsn,
        s.safe_wal_size,
        r.state,
        s.active_pid,
        coalesce(host(r.client_addr), 'this machine'),
        extract(epoch from r.flush_lag)::float8,
        extract(epoch from clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)::float8,
        coalesce((to_jsonb(s) ->> 'failover')::boolean, false),
        s.temporary,
        s.plugin
    from (
        select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as wal_end
    ) as w
    left join pg_replication_slots as s on s.slot_name = $1
    left join pg_stat_replication as r on r.pid = s.active_pid
$$;
comment on function benefits.replication_status(name) is 'The slot and its reader, all LSNs of one moment.';

create function benefits.oldest_transactions(at_most integer) returns table (
    kind text,
    pid integer,
    username name,
    database name,
    application text,
    state text,
    age_seconds float8
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select t.kind, t.pid, t.username, t.database, t.application, t.state, extract(epoch from clock_timestamp() - t.since)::float8
    from (
        select 'session' as kind, a.pid, a.usename as username, a.datname as database, a.application_name as application,
            a.state, a.xact_start as since
        from pg_stat_activity as a
        where a.backend_xid is not null and a.pid <> pg_backend_pid()
        union all
        select 'prepared', null, p.owner, p.database, p.gid, 'prepared', p.prepared
        from pg_prepared_xacts as p
    ) as t
    order by t.since
    limit $1
$$;
comment on function benefits.oldest_transactions(integer) is
'Writing transactions that are open, in any database of the cluster, the oldest first: it keeps the slot''s restart_lsn where it is.';

-- The plan of reading one employee's record, as read_records does it; no value of anybody is read.
create function benefits.explain_record(id text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $$
declare
    site benefits.site;
    path text;
    plan json;
begin
    select * into site from benefits.site;
    if site.record_query is null then
        return null;
    end if;
    select substr(c, length('search_path=') + 1) into path
    from pg_proc as p cross join lateral unnest(p.proconfig) as c
    where p.oid = 'benefits.read_records(text[])'::regprocedure and c like 'search_path=%';
    perform set_config('search_path', path, true);
    execute format(
        'explain (format json, verbose) select r.* from unnest(array[%L]::text[]) as k (id) cross join lateral '
        '(select * from (%s) as q where q.employee_id = k.id::%s offset 0) as r',
        id, site.record_query, site.record_key_type
    ) into plan;
    return plan::jsonb;
end
$$;
comment on function benefits.explain_record(text) is 'How PostgreSQL would read one employee''s record.';


do $$
declare
    name text;
begin
    foreach name in array array[
        'benefits.replication_status(name)', 'benefits.oldest_transactions(integer)', 'benefits.explain_record(text)'
    ] loop
        execute format('alter function %s owner to benefits_owner', name);
        execute format('revoke all on function %s from public', name);
        execute format('grant execute on function %s to benefits_service', name);
    end loop;
end
$$;
