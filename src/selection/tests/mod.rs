//! The selector fed with encoded messages, as a server would send them. `histories` holds it against a model.

mod feed;
mod histories;
mod marks;
mod owners;
mod shapes;
mod transactions;

use self::feed::*;
use super::*;
use crate::lsn::Lsn;

fn changes(ids: &[&str]) -> Vec<(String, Mark)> {
    ids.iter().map(|id| ((*id).to_owned(), Mark::Change)).collect()
}

fn starters(touched: &Touched) -> Vec<&str> {
    touched.marked.iter().filter(|(_, mark)| *mark == Mark::Starter).map(|(id, _)| id.as_str()).collect()
}
