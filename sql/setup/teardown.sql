-- Takes everything of ours away: slot, publication, schema, and the roles if no other database needs them.
create temporary table benefits_removed (n integer generated always as identity, line text not null);
do $$
declare
    slot_name_ name := :'slot';
    publication_ name := :'publication';
    held record;
    role_name text;
    described record;
begin
    for held in select s.slot_name, s.active_pid from pg_replication_slots as s
        where s.slot_name = slot_name_ and s.database = current_database()
    loop
        if held.active_pid is not null then
            raise exception 'the slot % is in use by process %', held.slot_name, held.active_pid
                using hint = 'Stop benefits-sync first.';
        end if;
        perform pg_drop_replication_slot(held.slot_name);
        insert into pg_temp.benefits_removed (line) values (format('replication slot %s', held.slot_name));
    end loop;
    if exists (select from pg_publication where pubname = publication_) then
        execute format('drop publication %I', publication_);
        insert into pg_temp.benefits_removed (line) values (format('publication %s', publication_));
    end if;
    if to_regnamespace('benefits') is not null then
        drop schema benefits cascade;
        insert into pg_temp.benefits_removed (line) values ('schema benefits with all it holds');
    end if;
    foreach role_name in array array['benefits_manager', 'benefits_viewer', 'benefits_reader', 'benefits_service', 'benefits_owner'] loop
        if exists (select from pg_roles where rolname = role_name) then
            begin
                -- Privileges on HR's schemas and tables in this database.
                execute format('drop owned by %I', role_name);
                insert into pg_temp.benefits_removed (line) values (format('privileges of role %s', role_name));
                execute format('drop role %I', role_name);
                insert into pg_temp.benefits_removed (line) values (format('role %s', role_name));
            exception
                when dependent_objects_still_exist or insufficient_privilege then
                    insert into pg_temp.benefits_removed (line)
                    values (format('(role %s stays: another database uses it)', role_name));
            end;
        end if;
    end loop;
end
$$;
