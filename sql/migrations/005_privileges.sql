-- Who may do what. The service keeps the ledger; viewers read; managers act; nobody else sees anything.

alter schema benefits owner to benefits_owner;

do $$
declare
    thing record;
begin
    for thing in
        select c.oid::regclass as name, c.relkind
        from pg_class as c
        where c.relnamespace = 'benefits'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
            and not exists (select from pg_depend as d where d.objid = c.oid and d.deptype in ('i', 'a') and c.relkind = 'S')
    loop
        execute format('alter %s %s owner to benefits_owner',
            case thing.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end, thing.name);
    end loop;
    for thing in
        select p.oid::regprocedure as name from pg_proc as p
        where p.pronamespace = 'benefits'::regnamespace and p.prosecdef
    loop
        execute format('alter function %s owner to benefits_owner', thing.name);
    end loop;
end
$$;

grant usage on schema benefits to benefits_service, benefits_reader, benefits_viewer, benefits_manager;
revoke all on all functions in schema benefits from public;
grant select, insert, update, delete on all tables in schema benefits to benefits_service;
grant usage on all sequences in schema benefits to benefits_service;
grant execute on function benefits.today(), benefits.field_names(bigint), benefits.record_columns()
to benefits_service, benefits_viewer, benefits_manager, benefits_owner;
grant execute on function benefits.sync(text[]), benefits.pause(text), benefits.resume()
to benefits_manager, benefits_service;
grant select on benefits.employee_status, benefits.sync_history to benefits_viewer, benefits_manager;
