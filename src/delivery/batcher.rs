//! Many deliveries, one statement: requests to the ledger are gathered while the statement before is under way.
//!
//! No timer: an idle batcher runs a lone request at once, a busy one finds more waiting each time. So batches grow with the
//! load and a single change waits for nobody.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::ledger::LedgerError;

/// Requests that may wait. Deliveries under way are bounded well below.
const QUEUE_MAX: usize = 4096;
/// Requests in one statement.
const BATCH_MAX: usize = 512;

/// The ledger is away: the session ends, and everything under way with it.
#[derive(Debug, thiserror::Error)]
#[error("the ledger session has ended")]
pub struct Ended;

/// A way to hand in requests of type `T` for answers of type `R`.
#[derive(Debug)]
pub struct Batcher<T, R> {
    queue: mpsc::Sender<(T, oneshot::Sender<R>)>,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts one. `run` answers every request of a batch, in order. Its first error ends the task with that error.
    pub fn spawn<F, Running>(tasks: &mut JoinSet<Result<(), LedgerError>>, run: F) -> Self
    where
        F: Fn(Vec<T>) -> Running + Send + 'static,
        Running: Future<Output = Result<Vec<R>, LedgerError>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
                let (requests, answers): (Vec<T>, Vec<oneshot::Sender<R>>) = batch.drain(..).unzip();
                for (answer, to) in run(requests).await?.into_iter().zip(answers) {
                    // A delivery that was given up no longer wants its answer.
                    drop(to.send(answer));
                }
            }
            Ok(())
        });
        Self { queue }
    }

    /// Hands a request in and waits for its answer.
    pub async fn call(&self, request: T) -> Result<R, Ended> {
        let (to, answer) = oneshot::channel();
        self.queue.send((request, to)).await.or(Err(Ended))?;
        answer.await.or(Err(Ended))
    }
}
