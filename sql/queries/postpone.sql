-- Gives claims back, to be tried later; the intents stay. $1 claim token; arrays, in the order of ids so that two
-- instances lock in one order: $2 id, $3 seconds to wait, $4 attempts.
-- Keys are compared so that no plan reads a whole table: see Session::connect_by_key.
update benefits.pending as p
set claim = null, attempts = o.attempts, not_before = clock_timestamp() + make_interval(secs => o.wait)
from unnest($2::text[], $3::float8[], $4::integer[]) as o (employee_id, wait, attempts)
where p.employee_id = any (array[o.employee_id]) and (p.claim is null or p.claim = $1::bigint)
