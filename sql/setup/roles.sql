-- Two logins and three groups. Passwords are the DBA's to set: \password benefits_service
-- benefits_owner    owns the schema and the definer functions; holds SELECT on what is described; nobody logs in as it
-- benefits_service  keeps the ledger and reads records through definer functions
-- benefits_reader   has REPLICATION: it can read every table of the database through a slot, and drop slots
-- benefits_viewer   for HR users: reads states and history;  benefits_manager  acts as well
do $$
declare
    wanted record;
    -- From 16 on a member may have neither the role's rights (INHERIT) nor the power to act as it (SET): whoever makes a role
    -- has ADMIN alone.
    is_16 boolean := current_setting('server_version_num')::integer >= 160000;
    may_act boolean;
begin
    for wanted in
        select * from (values
            ('benefits_owner', 'nologin'), ('benefits_service', 'login'), ('benefits_reader', 'login replication'),
            ('benefits_viewer', 'nologin'), ('benefits_manager', 'nologin')
        ) as w (role_name, options)
    loop
        begin
            if not exists (select from pg_roles where rolname = wanted.role_name) then
                execute format('create role %I %s', wanted.role_name, wanted.options);
            end if;
        exception
            -- Somebody else made it in the same moment.
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                -- A managed service gives REPLICATION by a role of its own.
                if wanted.role_name <> 'benefits_reader' or to_regrole('rds_replication') is null then
                    raise exception 'permission denied to create role %: %', wanted.role_name, sqlerrm
                        using errcode = 'insufficient_privilege', hint = format(
                            'Have a superuser run: create role %I %s;   then run setup again.', wanted.role_name, wanted.options
                        );
                end if;
                create role benefits_reader login;
                grant rds_replication to benefits_reader;
        end;
    end loop;
    begin
        if is_16 then
            may_act := pg_has_role(current_user, 'benefits_owner', 'set') and pg_has_role(current_user, 'benefits_owner', 'usage');
        else
            may_act := pg_has_role(current_user, 'benefits_owner', 'usage');
        end if;
        if not may_act then
            execute format('grant benefits_owner to %I%s', current_user, case when is_16 then ' with inherit true, set true' else '' end);
        end if;
        if not pg_has_role('benefits_manager', 'benefits_viewer', 'member') then
            grant benefits_viewer to benefits_manager;
        end if;
    exception
        when unique_violation or internal_error then null;
    end;
    begin
        -- For status and doctor, whose functions run as benefits_owner: who reads the slot, whose transaction pins the WAL.
        if not pg_has_role('benefits_owner', 'pg_read_all_stats', 'member') then
            grant pg_read_all_stats to benefits_owner;
        end if;
    exception
        when unique_violation or internal_error then null;
        when insufficient_privilege then
            raise warning 'status will not name whose transaction pins the WAL: pg_read_all_stats could not be granted to benefits_owner';
    end;
end
$$;
