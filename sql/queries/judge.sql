-- Notes what delivery thinks of employees of a mass change. Arrays: $1 id, $2 seq as read, $3 what would end them (null:
-- nothing), $4 its kind. Who was marked again meanwhile is judged again.
with j as materialized (
    select * from unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[]) as j (employee_id, seq, ending, kind)
),
turn as materialized (
    select p.employee_id
    from j
    inner join benefits.pending as p on p.employee_id = j.employee_id and p.seq = j.seq
    where p.batch is not null
    order by p.employee_id
    for update of p
)
update benefits.pending as p
set batch = case when j.ending is null then null else p.batch end, ending = j.ending, ending_kind = j.kind
from j inner join turn as t on t.employee_id = j.employee_id
where p.employee_id = j.employee_id
