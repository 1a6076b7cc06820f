-- An HR schema with uuid keys throughout, one pay record a person, departments as a lookup.
create schema people;

create table people.department (
    department_uuid uuid primary key default gen_random_uuid(),
    label text not null
);

create table people.person (
    person_uuid uuid primary key,
    staff_number text not null,
    salutation text not null,
    first_name text not null,
    middle_names text,
    last_name text not null,
    born_on date not null,
    sex text not null,
    company_email text,
    department_uuid uuid references people.department,
    hired_on date not null,
    left_on date,
    package text,
    send_to_benefits text not null default 'N'
);

create table people.salary (
    salary_uuid uuid primary key default gen_random_uuid(),
    person_uuid uuid not null references people.person,
    from_date date not null,
    pennies bigint not null,
    reason text not null
);

insert into people.department values ('d0000000-0000-4000-8000-000000000001', 'Engineering');
insert into people.person
select
    ('a0000000-0000-4000-8000-00000000000' || n)::uuid, 'S' || n, 'Dr', 'Ada', 'May', 'Person ' || n, '1980-01-02', 'Female',
    'p' || n || '@example.org', 'd0000000-0000-4000-8000-000000000001', '2020-01-01'
from generate_series(1, 3) as n;
insert into people.salary (person_uuid, from_date, pennies, reason)
select person_uuid, '2020-01-01', 3000050, 'New starter' from people.person;

-- DESCRIPTION
begin;
select benefits.describe_record($$
    select
        p.person_uuid as employee_id, p.staff_number as employee_number, p.salutation as title,
        concat_ws(' ', p.first_name, p.middle_names) as forenames, p.last_name as surname, p.born_on as date_of_birth,
        p.sex as gender, p.company_email as work_email, p.hired_on as start_date, p.left_on as leave_date,
        d.label as department, s.pennies / 100.0 as annual_pay, 'Annual' as pay_basis, 'Monthly' as pay_frequency,
        s.reason as pay_change_reason, s.from_date as pay_effective_date, p.package as benefits_level
    from people.person as p
    left join people.department as d using (department_uuid)
    left join (
        select distinct on (person_uuid) * from people.salary where from_date <= benefits.today()
        order by person_uuid, from_date desc
    ) as s using (person_uuid)
$$);
select benefits.describe_source('people.person', employee_key => 'person_uuid', starter_flag => 'send_to_benefits');
select benefits.describe_source('people.salary', employee_key => 'person_uuid', effective_from => 'from_date');
select benefits.describe_source('people.department', affected => $$
    select person_uuid from people.person where department_uuid = any($1)
$$);
create function benefits.set_level(employee_id text, level text) returns void language sql
as $set_level$ update people.person set package = set_level.level where person_uuid = set_level.employee_id::uuid $set_level$;
commit;
