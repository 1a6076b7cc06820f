-- HR of the site that is measured; {key} is the type that people are known by.
create schema hr;
create table hr.person (
    id {key} primary key, n bigint unique, title text, forenames text, surname text, date_of_birth date, gender text,
    email text, mobile text, annual_pay numeric(12,2), pay_basis text, pay_frequency text, pay_change_reason text
) with (fillfactor = 50);
-- A range's size would be guessed from the table's, and its plan, and with it the pace, would follow the number of people.
create procedure hr.change(employees bigint, rows_each bigint, mark text) language plpgsql as $$
begin
    for low in 0 .. employees - 1 by rows_each loop
        update hr.person set mobile = mark || n where n = any (array(select generate_series(low + 1, low + rows_each)));
        commit;
    end loop;
end $$;
create procedure hr.hot(changes bigint, employees bigint, mark bigint) language plpgsql as $$
begin
    for change in 0 .. changes - 1 loop
        update hr.person set mobile = (mark + change / employees)::text where n = 1 + change % employees;
        commit;
    end loop;
end $$;
create procedure hr.noise(changes bigint, employees bigint, strangers bigint, mark text) language plpgsql as $$
declare batch bigint := 0;
begin
    while batch * 100 < changes loop
        update hr.person set mobile = mark || batch
        where n > employees + (batch * 99) % (strangers - 99) and n <= employees + (batch * 99) % (strangers - 99) + 99;
        update hr.person set mobile = mark || batch where n = 1 + batch % employees;
        commit;
        batch := batch + 1;
    end loop;
end $$;
