-- Notes what delivery thinks of employees of a mass change. Arrays, in the order of ids so that two instances lock in one
-- order: $1 id, $2 seq as read, $3 what would end them (null: nothing), $4 its kind. Who was marked again meanwhile is
-- judged again.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
update benefits.pending as p
set batch = case when j.ending is null then null else p.batch end, ending = j.ending, ending_kind = j.kind
from unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[]) as j (employee_id, seq, ending, kind)
where p.employee_id = any (array[j.employee_id]) and p.seq = j.seq and p.batch is not null
