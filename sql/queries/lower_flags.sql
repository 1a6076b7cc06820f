-- Employees of the baseline whose starter flag went down: when it comes up again, they are starters. $1 ids.
update benefits.employee set starter_baseline = false where employee_id = any ($1::text[]) and starter_baseline
