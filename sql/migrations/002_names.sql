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
as $$
    select coalesce(
        nullif(current_setting('benefits.as_of', true), '')::date,
        (statement_timestamp() at time zone s.time_zone)::date
    )
    from benefits.site as s
$$;
comment on function benefits.today() is
'Today in the site''s time zone, whatever the session''s. benefits.upcoming_change asks for records as of another day.';

-- One arm a state, each with the state as a constant: a filter on the state then reads that arm alone, and an order by
-- employee_id with a limit reads each arm by its key.
create view benefits.employee_status as
-- Queued, whatever came before.
select
    p.employee_id,
    'in_progress'::text as state,
    case when e.linked then e.benefits_id end as benefits_id,
    e.error_code as last_error_code,
    e.error as last_error,
    e.last_synced_at,
    p.pending_since
from benefits.pending as p
left join benefits.enrolment as e on e.employee_id = p.employee_id
union all
-- Asked for; the reader has not come to that commit yet.
select
    q.employee_id,
    'in_progress',
    case when e.linked then e.benefits_id end,
    e.error_code,
    e.error,
    e.last_synced_at,
    q.requested_at
from (
    select r.employee_id, min(r.requested_at) as requested_at
    from benefits.request as r
    where r.kind not in ('release', 'discard')
    group by r.employee_id
) as q
left join benefits.enrolment as e on e.employee_id = q.employee_id
where not exists (select from benefits.pending as p where p.employee_id = q.employee_id)
union all
select e.employee_id, 'in_progress', case when e.linked then e.benefits_id end, null, null, e.last_synced_at, e.enrolled_at
from benefits.enrolment as e
where
    e.outcome is null
    and not exists (select from benefits.pending as p where p.employee_id = e.employee_id)
    and not exists (select from benefits.request as r where r.employee_id = e.employee_id)
union all
select
    e.employee_id, 'failed', case when e.linked then e.benefits_id end, e.error_code, e.error, e.last_synced_at,
    null::timestamptz
from benefits.enrolment as e
where
    e.outcome = 'failed'
    and not exists (select from benefits.pending as p where p.employee_id = e.employee_id)
    and not exists (select from benefits.request as r where r.employee_id = e.employee_id)
union all
select
    e.employee_id, 'successful', case when e.linked then e.benefits_id end, e.error_code, e.error, e.last_synced_at,
    null::timestamptz
from benefits.enrolment as e
where
    e.outcome = 'successful'
    and not exists (select from benefits.pending as p where p.employee_id = e.employee_id)
    and not exists (select from benefits.request as r where r.employee_id = e.employee_id)
union all
select k.employee_id, 'not_syncing', null, null, null, null::timestamptz, null::timestamptz
from benefits.employee as k
where
    k.gone_at is null
    and not exists (select from benefits.enrolment as e where e.employee_id = k.employee_id)
    and not exists (select from benefits.request as r where r.employee_id = k.employee_id);
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
