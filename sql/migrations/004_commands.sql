-- What HR applications and people may ask for. Commands are rows: they are written in the caller's transaction, show as
-- In progress at once, and are released to delivery when the reader passes that commit in the WAL.


-- Who may act is checked twice: by the right to execute, and here, whoever has been given that right by mistake.
create function benefits.require_manager() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pg_has_role(session_user, 'benefits_manager', 'member') and not pg_has_role(session_user, 'benefits_service', 'member') then
        raise exception 'permission denied: only a member of benefits_manager does this'
            using errcode = 'insufficient_privilege', hint = 'A DBA can: grant benefits_manager to ' || quote_ident(session_user) || ';';
    end if;
end
$$;
comment on function benefits.require_manager() is 'Raises unless the session''s user may act.';

create function benefits.requester() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select session_user || coalesce(' (' || left(nullif(current_setting('benefits.page_user', true), ''), 100) || ')', '')
$$;
comment on function benefits.requester() is
'Who asks: the database user, and beside it the page''s user, whom the page sets as benefits.page_user.';

-- The distinct ids of employees that there are. An unknown one raises.
create function benefits.known_employees(employee_ids text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    wanted text[] := array(select distinct w from unnest(employee_ids) as w where w is not null order by w);
    strangers text[];
    newcomers text[];
begin
    strangers := array(
        select w from unnest(wanted) as w
        where not exists (select from benefits.employee as k where k.employee_id = w and k.gone_at is null)
    );
    if cardinality(strangers) > 0 and to_regprocedure('benefits.find_in_roster(text[])') is not null then
        -- Perhaps hired a moment ago, in this very transaction even: HR's own table decides.
        begin
            newcomers := array(select benefits.find_in_roster(strangers));
        exception
            when data_exception then newcomers := '{}';
        end;
        strangers := array(select s from unnest(strangers) as s where not s = any (newcomers));
    end if;
    if cardinality(strangers) > 0 then
        raise exception 'unknown employee: %', array_to_string(strangers[1:5], ', ')
            || case when cardinality(strangers) > 5 then format(' and %s more', cardinality(strangers) - 5) else '' end
            using errcode = 'no_data_found', hint = 'Nothing was requested. Give ids as the record query''s employee_id shows them.';
    end if;
    return wanted;
end
$$;

create function benefits.sync(employee_ids text[]) returns integer
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
declare
    wanted text[];
begin
    perform benefits.require_manager();
    wanted := benefits.known_employees(employee_ids);
    -- Somebody hired a moment ago shows at once, too.
    insert into benefits.employee (employee_id) select w from unnest(wanted) as w order by w on conflict do nothing;
    insert into benefits.request (employee_id, kind, requested_by)
    select w, 'sync', benefits.requester() from unnest(wanted) as w;
    return cardinality(wanted);
end
$$;
comment on function benefits.sync(text[]) is
'First sync, or send again in full; the number of distinct ids accepted. An unknown id raises and nothing is requested.';

create function benefits.pause(reason text) returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
begin
    perform benefits.require_manager();
    update benefits.site
    set paused_reason = coalesce(nullif(trim(pause.reason), ''), 'no reason given') || ', by ' || benefits.requester();
end
$$;
comment on function benefits.pause(text) is 'Stops delivery for the site; changes go on being collected.';

create function benefits.resume() returns void
language plpgsql security definer
set search_path = pg_catalog, benefits, pg_temp
as $$
begin
    perform benefits.require_manager();
    update benefits.site set paused_reason = null, halted_code = null, halted_reason = null;
end
$$;
comment on function benefits.resume() is 'Lifts a pause, and a halt whose cause was mended.';
