-- Brings a page of HR's roster into the ledger: who is new is recorded, whose starter flag was missed is asked for, and whose
-- went down unseen is a starter when it comes up again.
-- A request, not an enrolment: the reader must meet it in the WAL. $1 after this id (null: from the start); $2 how many;
-- $3 only count.
with page as materialized (
    select r.employee_id, r.starter, r.n
    from benefits.read_roster($1::text, $2::integer) with ordinality as r (employee_id, starter, n)
),
state as materialized (
    select
        g.employee_id, g.n, k.employee_id is null or k.gone_at is not null as is_new,
        g.starter and e.employee_id is null and not coalesce(k.starter_baseline, false) and not exists (
            select from benefits.request as q where q.employee_id = g.employee_id
        ) as is_missed
    from page as g
    left join benefits.employee as k on k.employee_id = g.employee_id
    left join benefits.enrolment as e on e.employee_id = g.employee_id
),
hired as (
    insert into benefits.employee as k (employee_id)
    select s.employee_id from state as s where s.is_new and not $3::boolean order by s.employee_id
    on conflict (employee_id) do update set gone_at = null where k.gone_at is not null
),
lowered as (
    update benefits.employee as k
    set starter_baseline = false
    from page as g
    where k.employee_id = g.employee_id and k.starter_baseline and not g.starter and k.gone_at is null and not $3::boolean
),
asked as (
    insert into benefits.request (employee_id, kind, requested_by)
    select s.employee_id, 'sync', 'starter flag' from state as s where s.is_missed and not $3::boolean order by s.n
)
select
    count(*) as seen, (array_agg(s.employee_id order by s.n desc))[1] as last_id,
    count(*) filter (where s.is_new) as hired, count(*) filter (where s.is_missed) as starters
from state as s
