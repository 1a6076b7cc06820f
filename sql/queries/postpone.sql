-- Gives claims back, to be tried later; the intents stay. $1 claim token; arrays: $2 id, $3 seconds to wait, $4 attempts.
with o as materialized (
    select * from unnest($2::text[], $3::float8[], $4::integer[]) as o (employee_id, wait, attempts)
),
turn as materialized (
    select p.employee_id
    from o
    inner join benefits.pending as p on p.employee_id = o.employee_id
    where p.claim is null or p.claim = $1::bigint
    order by p.employee_id
    for update of p
)
update benefits.pending as p
set claim = null, attempts = o.attempts, not_before = clock_timestamp() + make_interval(secs => o.wait)
from o inner join turn as t on t.employee_id = o.employee_id
where p.employee_id = o.employee_id
