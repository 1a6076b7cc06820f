-- Employees by state, from the ledger alone.
select state, count(*) from benefits.employee_status group by state
union all
select absent.state, 0
from unnest(array['not_syncing', 'in_progress', 'failed', 'successful']) as absent (state)
where not exists (select from benefits.employee_status as s where s.state = absent.state)
