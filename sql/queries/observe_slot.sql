-- The slot and what is pending, all LSNs as of one moment. $1 the slot.
select
    pg_current_wal_lsn() as wal_end,
    s.slot_name is not null as has_slot,
    s.confirmed_flush_lsn,
    s.restart_lsn,
    s.safe_wal_size,
    r.write_lsn as received_lsn,
    p.pending,
    p.oldest_seconds,
    (select count(distinct h.hold_id) from benefits.pending as h where h.hold_id is not null) as holds
from (
    select
        count(*) as pending,
        coalesce(extract(epoch from clock_timestamp() - min(pending_since) filter (where hold_id is null)), 0)::float8 as oldest_seconds
    from benefits.pending
) as p
left join pg_replication_slots as s on s.slot_name = $1::text::name
left join pg_stat_replication as r on r.pid = s.active_pid
