-- The slot and what is pending, all LSNs as of one moment. $1 the slot.
select
    s.wal_end, s.has_slot, s.confirmed_flush_lsn, s.restart_lsn, s.safe_wal_size, s.received_lsn, s.wal_status, s.is_active,
    p.stuck, p.pending, p.oldest_seconds,
    (select count(distinct h.hold_id) from benefits.pending as h where h.hold_id is not null) as holds,
    extract(epoch from clock_timestamp())::float8 as at
from benefits.replication_status($1::text::name) as s
cross join (
    select
        count(*) as pending,
        -- Without any progress: their own, or anybody's while they wait for their turn.
        count(*) filter (
            where hold_id is null and greatest(pending_since, progressed_at) < clock_timestamp() - interval '15 minutes'
                and (attempts > 0 or not g.goes_on)
        ) as stuck,
        coalesce(extract(epoch from clock_timestamp() - min(pending_since) filter (where hold_id is null)), 0)::float8 as oldest_seconds
    from benefits.pending
    cross join (
        select exists (
            select from benefits.history as h
            where h.at > clock_timestamp() - interval '15 minutes' and h.outcome in ('successful', 'failed')
        ) as goes_on
    ) as g
) as p
