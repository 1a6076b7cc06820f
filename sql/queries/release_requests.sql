-- Releases commands that the reader has passed. $1 their ids; $2 the platform; $3 the commit's time.
with taken as (
    delete from benefits.request where request_id = any ($1::bigint[]) and kind in ('sync', 'level') returning *
),
latest as (
    select distinct on (t.employee_id) t.*, count(*) over () > 100 as bulk
    from taken as t
    where not exists (
        select from benefits.enrolment as e where e.employee_id = t.employee_id and e.transferred_to is not null
    )
    -- A new level is an ordinary change; Sync sends everything.
    order by t.employee_id, t.kind desc, t.request_id desc
),
enrolled as (
    insert into benefits.enrolment as e (employee_id, platform_id, requested_by)
    select l.employee_id, $2::text, l.requested_by from latest as l order by l.employee_id
    -- Who asks for Sync wants what was discarded, too.
    on conflict (employee_id) do update set discarded = null where e.discarded is not null
)
insert into benefits.pending as p
    (employee_id, cause, bulk, in_full, requested_by, pending_since, changed_at, last_changed_at)
select
    l.employee_id, case l.kind when 'level' then 'change' else l.kind end, l.bulk, l.kind = 'sync', l.requested_by,
    l.requested_at, $3::timestamptz, $3::timestamptz
from latest as l
order by l.employee_id
on conflict (employee_id) do update
set
    seq = p.seq + 1, in_full = p.in_full or excluded.in_full, requested_by = excluded.requested_by, attempts = 0,
    not_before = null, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
returning p.employee_id
