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
        begin
            perform pg_drop_replication_slot(held.slot_name);
        exception
            when insufficient_privilege then
                raise exception 'the slot % can be dropped only by a login with REPLICATION', held.slot_name
                    using errcode = 'insufficient_privilege', hint = format(
                        'As benefits_reader or a superuser: select pg_drop_replication_slot(%L);   then run teardown again.', held.slot_name
                    );
        end;
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
                -- Whoever made a role may do with it what it likes, from 16 on after having said so.
                if not pg_has_role(current_user, role_name, 'usage') then
                    execute format('grant %I to %I%s', role_name, current_user,
                        case when current_setting('server_version_num')::integer >= 160000 then ' with inherit true, set true' else '' end);
                end if;
                -- Privileges on HR's schemas and tables in this database.
                execute format('drop owned by %I', role_name);
                insert into pg_temp.benefits_removed (line) values (format('privileges of role %s', role_name));
                execute format('drop role %I', role_name);
                insert into pg_temp.benefits_removed (line) values (format('role %s', role_name));
            exception
                when dependent_objects_still_exist then
                    insert into pg_temp.benefits_removed (line)
                    values (format('(role %s stays: another database uses it)', role_name));
                when insufficient_privilege then
                    insert into pg_temp.benefits_removed (line)
                    values (format('(role %s stays: %s has no power over it; a superuser can: drop role %1$s;)', role_name, current_user));
            end;
        end if;
    end loop;
end
$$;
