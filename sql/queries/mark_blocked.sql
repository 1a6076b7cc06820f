-- Marks everyone whom their record's values have kept from being sent: translations, levels or the platform's lists have
-- changed. $1 when.
insert into benefits.pending as p (employee_id, cause, changed_at, last_changed_at)
select e.employee_id, 'rules', $1::timestamptz, $1::timestamptz
from benefits.enrolment as e
where
    e.outcome = 'failed' and e.transferred_to is null
    and e.error_code in (
        'required', 'unknown-value', 'no-package', 'format', 'too-long', 'out-of-range', 'validation', 'unknown-package'
    )
order by e.employee_id
on conflict (employee_id) do update
set seq = p.seq + 1, last_changed_at = greatest(p.last_changed_at, excluded.last_changed_at)
returning p.employee_id
