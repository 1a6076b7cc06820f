-- What a fast delivery needs of the ledger.

-- A mass change is judged in pages of its people.
drop index benefits.pending_batch_ix;
create index pending_batch_ix on benefits.pending (batch, employee_id) where batch is not null;
