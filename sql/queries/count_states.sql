-- Employees by state, from the ledger alone.
select s.state, coalesce(c.n, 0) as n
from unnest(array['not_syncing', 'in_progress', 'failed', 'successful']) as s (state)
left join (select state, count(*) as n from benefits.employee_status group by state) as c on c.state = s.state
