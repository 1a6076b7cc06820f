-- Requests that nobody may ever pass, being older than the slot: touched, so that the reader meets them in the WAL.
-- $1 after this id; $2 how many; $3 at least so many seconds old; $4 only count.
with page as materialized (
    select q.request_id, q.requested_at <= clock_timestamp() - make_interval(secs => $3::float8) as is_stranded
    from benefits.request as q
    where q.request_id > $1::bigint
    order by q.request_id
    limit $2::bigint
    -- One that the reader is releasing at this moment needs no help.
    for update skip locked
),
touched as (
    update benefits.request as q
    set requested_at = q.requested_at
    from page as g
    where q.request_id = g.request_id and g.is_stranded and not $4::boolean
)
select max(g.request_id) as last_id, count(*) filter (where g.is_stranded) as stranded from page as g
