-- Mass changes that wait for a person, the oldest first.
select
    h.hold_id, h.reason, cardinality(h.employee_ids)::bigint as employees,
    extract(epoch from clock_timestamp() - h.opened_at)::float8 as age_seconds, h.transaction_user::text as transaction_user
from benefits.hold as h
where h.state = 'open'
order by h.hold_id
limit 20
