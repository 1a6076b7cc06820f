-- An HR schema of one wide table in public, keyed by a code that people type; names with capitals and spaces.
create table public."Staff" (
    "Staff Code" varchar(12) primary key,
    "Title" text,
    "Forenames" text,
    "Surname" text,
    "DoB" text,
    "Gender" char(1),
    "E-mail" text,
    "Address" text[],
    "Post Code" char(8),
    "Salary" money,
    "Hours" real,
    "Reason" varchar(30),
    "Leaver" timestamp,
    "Level" text,
    "New" smallint not null default 0,
    "Photo" text
);
insert into public."Staff"
select
    'AB-' || n, 'Mrs', 'Wanda', 'Wide ' || n, '17/03/1975', 'F', 'w' || n || '@example.org', array['1 High Street', 'Leeds'],
    'LS1 4AP', 28000.40::numeric::money, 37.5, 'Correction', null, null, 0, repeat(md5(n::text), 200)
from generate_series(1, 3) as n;

-- DESCRIPTION
begin;
select benefits.describe_record($$
    select
        "Staff Code" as employee_id, "Staff Code" as employee_number, "Title" as title, "Forenames" as forenames,
        "Surname" as surname, to_date("DoB", 'DD/MM/YYYY') as date_of_birth, "Gender" as gender, "E-mail" as work_email,
        "Address"[1] as address_line_1, "Address"[2] as address_line_2, "Post Code" as postcode,
        "Salary"::numeric as annual_pay, round("Hours"::numeric, 2) as weekly_hours, 'Annual' as pay_basis,
        'Monthly' as pay_frequency, "Reason" as pay_change_reason, "Leaver"::date as leave_date, "Level" as benefits_level
    from public."Staff"
$$);
select benefits.describe_source('public."Staff"', employee_key => 'Staff Code', starter_flag => 'New');
insert into benefits.picklist_value values ('gender', 'F', 'Female');
create function benefits.set_level(employee_id text, level text) returns void language sql
as $set_level$ update public."Staff" set "Level" = set_level.level where "Staff Code" = set_level.employee_id $set_level$;
commit;
