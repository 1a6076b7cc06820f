-- For a DBA who is not a superuser: what a description needs of HR's tables is said before PostgreSQL refuses it.

create function benefits.require_rights() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    held record;
begin
    select c.oid, c.relowner, pg_get_userbyid(c.relowner) as owner, format('%I.%I', n.nspname, c.relname) as name into held
    from pg_class as c
    inner join pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = new.table_schema and c.relname = new.table_name;
    if held.oid is null or pg_has_role(current_user, held.relowner, 'usage') then
        return new;
    end if;
    if tg_table_name = 'source' then
        raise exception 'permission denied: table % belongs to %, and only its owner can publish it', held.name, held.owner
            using errcode = 'insufficient_privilege',
                hint = format('A superuser can: grant %I to %I;', held.owner, current_user);
    end if;
    if not has_table_privilege(current_user, held.oid, 'select with grant option') then
        raise exception 'permission denied: % cannot let benefits_owner read table %, which belongs to %', current_user, held.name, held.owner
            using errcode = 'insufficient_privilege',
                hint = format('A superuser can: grant %I to %I;', held.owner, current_user);
    end if;
    return new;
end
$$;
comment on function benefits.require_rights() is
'Refuses a description whose tables the DBA has no power over, with what mends it. Triggers on our own tables alone call it.';
revoke all on function benefits.require_rights() from public;

create trigger source_rights before insert on benefits.source
for each row execute function benefits.require_rights();
create trigger query_column_rights before insert on benefits.query_column
for each row execute function benefits.require_rights();
