-- Names for the bits of a field set, and the views that people read.

create function benefits.field_names(fields bigint) returns text[]
language sql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(array_agg(f.name order by f.bit), '{}')
    from unnest(array[
        'employeeNumber', 'title', 'forenames', 'knownAs', 'surname', 'dateOfBirth', 'gender',
        'nationalInsuranceNumber', 'email', 'telephone', 'mobile', 'addressLine1', 'addressLine2',
        'addressLine3', 'addressLine4', 'postcode', 'countryCode', 'startDate', 'continuousServiceDate',
        'leaveDate', 'jobTitle', 'grade', 'department', 'location', 'weeklyHours', 'fte', 'annualPay',
        'currency', 'payBasis', 'payFrequency', 'payChangeReason', 'payEffectiveDate', 'packageId'
    ]) with ordinality as f (name, bit)
    where fields >> (f.bit::integer - 1) & 1 = 1
$$;
comment on function benefits.field_names(bigint) is 'The API''s property names in a field set.';

create function benefits.today() returns date
language sql stable parallel safe
as $$ select (statement_timestamp() at time zone s.time_zone)::date from benefits.site as s $$;
comment on function benefits.today() is 'Today in the site''s time zone, whatever the session''s.';

create view benefits.employee_status as
select
    k.employee_id,
    case
        when p.employee_id is not null or r.waiting is not null then 'in_progress'
        when e.outcome = 'failed' then 'failed'
        when e.outcome = 'successful' then 'successful'
        when e.employee_id is not null then 'in_progress'
        else 'not_syncing'
    end as state,
    case when e.linked then e.benefits_id end as benefits_id,
    e.error_code as last_error_code,
    e.error as last_error,
    e.last_synced_at,
    coalesce(p.pending_since, r.waiting) as pending_since
from benefits.employee as k
left join benefits.enrolment as e on k.employee_id = e.employee_id
left join benefits.pending as p on k.employee_id = p.employee_id
left join lateral (
    select min(q.requested_at) as waiting
    from benefits.request as q
    where q.employee_id = k.employee_id
) as r on true
where k.gone_at is null or e.employee_id is not null
union all
-- Hired and asked for a moment ago: the reader has not come to that commit yet.
select q.employee_id, 'in_progress', null, null, null, null, min(q.requested_at)
from benefits.request as q
where not exists (select from benefits.employee as k where k.employee_id = q.employee_id)
group by q.employee_id;
comment on view benefits.employee_status is 'Every employee, in exactly one of the four states.';

create view benefits.sync_history as
select
    h.employee_id,
    h.at,
    h.event,
    benefits.field_names(h.fields) as fields,
    h.outcome,
    h.error_code,
    h.error,
    h.requested_by,
    h.latency,
    h.request_id
from benefits.history as h;
comment on view benefits.sync_history is 'What was done for whom; order by at desc for the newest first.';
