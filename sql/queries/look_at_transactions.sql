-- Writing transactions that are open: those that the snapshot lists, and whoever came after the last that has ended, whom a
-- snapshot does not list (subtransactions among them, which do no harm). About as dear as "select 1".
select array(
    select x::xid::text::bigint from pg_snapshot_xip(s.snapshot) as x
    union all
    select s.first_new::text::bigint + n from generate_series(0, least(age(s.first_new), 100) - 1) as n
) as open
from (select c as snapshot, pg_snapshot_xmax(c)::xid as first_new from pg_current_snapshot() as c) as s
