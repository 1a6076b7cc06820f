-- What a site's DBA writes once, here for the demo's HR schema: psql -f sql/demo/describe.sql, after `benefits-sync setup`.
-- It may be run again after a change. Where an HR schema differs, this file is all that differs.

begin;

-- One row an employee, columns named as the API's properties. "Today" is the site's, by benefits.today().
select benefits.describe_record($record$
    select
        e.id as employee_id,
        e.employee_number,
        e.title,
        e.forenames,
        e.known_as,
        e.surname,
        e.date_of_birth,
        e.gender,
        e.ni_number as national_insurance_number,
        home.address as home_email,
        work.address as work_email,
        services.address as services_email,
        landline.number as telephone,
        mobile.number as mobile,
        a.line_1 as address_line_1,
        a.line_2 as address_line_2,
        a.line_3 as address_line_3,
        a.line_4 as address_line_4,
        a.postcode,
        a.country_code,
        e.start_date,
        e.continuous_service_date,
        e.leave_date,
        j.title as job_title,
        g.name as grade,
        d.name as department,
        l.name as location,
        j.weekly_hours,
        j.fte,
        p.annual_pay,
        p.currency,
        p.basis as pay_basis,
        p.frequency as pay_frequency,
        p.change_reason as pay_change_reason,
        p.effective_from as pay_effective_date,
        e.benefits_level
    from hr.employee as e
    left join hr.email as home on home.employee_id = e.id and home.kind = 'home'
    left join hr.email as work on work.employee_id = e.id and work.kind = 'work'
    left join hr.email as services on services.employee_id = e.id and services.kind = 'services'
    left join hr.phone as landline on landline.employee_id = e.id and landline.kind = 'home'
    left join hr.phone as mobile on mobile.employee_id = e.id and mobile.kind = 'mobile'
    left join lateral (
        select * from hr.address
        where address.employee_id = e.id and address.kind = 'home' and address.from_date <= benefits.today()
        order by address.from_date desc, address.id desc
        limit 1
    ) as a on true
    -- The primary job of today; before the first day it is the one that is to come, after the last the one that was.
    left join lateral (
        select * from hr.job
        where job.employee_id = e.id and job.is_primary
        order by job.started_on <= benefits.today() desc, abs(job.started_on - benefits.today()), job.id desc
        limit 1
    ) as j on true
    left join hr.grade as g on g.id = j.grade_id
    left join hr.department as d on d.id = j.department_id
    left join hr.location as l on l.id = j.location_id
    left join lateral (
        select * from hr.job_pay
        where job_pay.job_id = j.id and job_pay.effective_from <= greatest(benefits.today(), j.started_on)
        order by job_pay.effective_from desc, job_pay.id desc
        limit 1
    ) as p on true
$record$);

-- The tables under it: whose a changed row is, and which date makes a row current later.
select benefits.describe_source(
    'hr.employee', employee_key => 'id', starter_flag => 'create_benefits_record'
);
select benefits.describe_source('hr.email', employee_key => 'employee_id');
select benefits.describe_source('hr.phone', employee_key => 'employee_id');
select benefits.describe_source('hr.address', employee_key => 'employee_id', effective_from => 'from_date');
select benefits.describe_source('hr.job', employee_key => 'employee_id', effective_from => 'started_on');
select benefits.describe_source('hr.job_pay', employee_key => 'employee_id', effective_from => 'effective_from');

-- Lookups: whom a changed row affects; $1 is an array of its keys.
select benefits.describe_source('hr.department', affected => $$
    select job.employee_id from hr.job where job.is_primary and job.department_id = any($1)
$$);
select benefits.describe_source('hr.location', affected => $$
    select job.employee_id from hr.job where job.is_primary and job.location_id = any($1)
$$);
select benefits.describe_source('hr.grade', affected => $$
    select job.employee_id from hr.job where job.is_primary and job.grade_id = any($1)
$$);

-- How people are found by name, and what they are called; nothing of it is stored.
select benefits.describe_search($$
    select
        e.id as employee_id, concat_ws(' ', coalesce(e.known_as, e.forenames), e.surname) as name, e.forenames,
        e.employee_number
    from hr.employee as e
$$);

-- How this schema stores a Benefits Level, for "Assign Level".
create or replace function benefits.set_level(employee_id text, level text) returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $function$
    update hr.employee
    set benefits_level = set_level.level, updated_at = now()
    where employee.id = set_level.employee_id::bigint;
$function$;
-- With the rights of whoever runs this file: managers need none on HR's tables, and nobody else may call it.
revoke all on function benefits.set_level(text, text) from public;
grant execute on function benefits.set_level(text, text) to benefits_manager;

-- HR's words where Benefits has others. What both spell alike needs no row.
delete from benefits.picklist_value;
insert into benefits.picklist_value (field, hr_value, benefits_value)
values
('gender', 'F', 'Female'),
('gender', 'M', 'Male'),
('gender', 'X', 'Non-binary'),
('gender', 'U', 'Prefer not to say'),
('pay_basis', 'Per annum', 'Annual'),
('pay_basis', 'Per hour', 'Hourly'),
('pay_frequency', 'Calendar monthly', 'Monthly'),
('pay_frequency', '4-weekly', 'Four-weekly'),
('pay_change_reason', 'Starter', 'New starter');

-- HR's levels and the platform's packages.
delete from benefits.level_package;
insert into benefits.level_package (level, package_id)
values
('Apprentice', 'apprentice'),
('Standard', 'core'),
('Enhanced', 'plus'),
('Executive', 'executive');

commit;
