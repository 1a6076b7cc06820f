//! Many deliveries, one statement: requests to the ledger are gathered while the statement before is under way.
//!
//! An idle batcher runs a lone request at once, so that a single change waits for nobody. A statement has a price however few
//! requests it carries (its start, its flush), so that one which nobody waits for may be given a [`Gather`]: requests that
//! follow upon a statement are then gathered for a moment.

use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::ledger::LedgerError;

/// Requests that may wait. Deliveries under way are bounded well below.
const QUEUE_MAX: usize = 4096;
/// Requests in one statement.
const BATCH_MAX: usize = 768;
/// So many requests are worth a statement, however soon after the one before.
const ENOUGH: usize = 512;

/// How long requests are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gather {
    /// Not at all: while a statement is under way the next ones wait, and no longer.
    AtOnce,
    /// Two statements begin so far apart, unless many requests wait.
    Every(Duration),
}

/// The ledger is away: the session ends, and everything under way with it.
#[derive(Debug, thiserror::Error)]
#[error("the ledger session has ended")]
pub struct Ended;

/// A way to hand in requests of type `T` for answers of type `R`.
#[derive(Debug)]
pub struct Batcher<T, R> {
    queue: mpsc::Sender<(T, Option<oneshot::Sender<R>>)>,
}

impl<T: Send + 'static, R: Send + 'static> Batcher<T, R> {
    /// Starts one. `run` answers every request of a batch, in order. Its first error ends the task with that error.
    pub fn spawn<F, Running>(tasks: &mut JoinSet<Result<(), LedgerError>>, gather: Gather, run: F) -> Self
    where
        F: Fn(Vec<T>) -> Running + Send + 'static,
        Running: Future<Output = Result<Vec<R>, LedgerError>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        tasks.spawn(async move {
            let mut batch = Vec::new();
            let mut began = None;
            while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
                if let (Gather::Every(pause), Some(began)) = (gather, began) {
                    more_until(began + pause, &mut waiting, &mut batch).await;
                }
                began = Some(Instant::now());
                let (requests, answers): (Vec<T>, Vec<Option<oneshot::Sender<R>>>) = batch.drain(..).unzip();
                for (answer, to) in run(requests).await?.into_iter().zip(answers) {
                    if let Some(to) = to {
                        // A delivery that was given up no longer wants its answer.
                        drop(to.send(answer));
                    }
                }
            }
            Ok(())
        });
        Self { queue }
    }

    /// Hands a request in and waits for its answer.
    pub async fn call(&self, request: T) -> Result<R, Ended> {
        let (to, answer) = oneshot::channel();
        self.queue.send((request, Some(to))).await.or(Err(Ended))?;
        answer.await.or(Err(Ended))
    }

    /// Hands a request in; its answer is not waited for.
    pub async fn post(&self, request: T) -> Result<(), Ended> {
        self.queue.send((request, None)).await.or(Err(Ended))
    }
}

impl<T, R> Clone for Batcher<T, R> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

/// Gathers until a time, or until there is enough.
async fn more_until<T>(until: Instant, waiting: &mut mpsc::Receiver<T>, batch: &mut Vec<T>) {
    while batch.len() < ENOUGH {
        let room = BATCH_MAX - batch.len();
        match tokio::time::timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A batcher that takes no time, and the sizes of its batches.
    fn batcher(
        tasks: &mut JoinSet<Result<(), LedgerError>>,
        gather: Gather,
    ) -> (Batcher<usize, usize>, Arc<Mutex<Vec<usize>>>) {
        let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = Arc::clone(&sizes);
        let batcher = Batcher::spawn(tasks, gather, move |requests: Vec<usize>| {
            seen.lock().unwrap().push(requests.len());
            std::future::ready(Ok(requests))
        });
        (batcher, sizes)
    }

    const PAUSE: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn a_lone_request_waits_for_nobody() {
        let mut tasks = JoinSet::new();
        let (batcher, _) = batcher(&mut tasks, Gather::Every(PAUSE));
        for n in 0..3 {
            let began = Instant::now();
            assert_eq!(batcher.call(n).await.unwrap(), n);
            assert_eq!(began.elapsed(), Duration::ZERO);
            tokio::time::sleep(PAUSE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_follow_upon_a_statement_are_gathered_and_each_has_its_own_answer() {
        let mut tasks = JoinSet::new();
        let (batcher, sizes) = batcher(&mut tasks, Gather::Every(PAUSE));
        batcher.call(0).await.unwrap();
        let one_by_one = (1..=4).map(|n| {
            let batcher = &batcher;
            async move {
                tokio::time::sleep(Duration::from_millis(1) * u32::try_from(n).unwrap()).await;
                batcher.call(n).await.unwrap()
            }
        });
        let began = Instant::now();
        assert_eq!(futures_util::future::join_all(one_by_one).await, [1, 2, 3, 4]);
        assert!(began.elapsed() <= PAUSE + Duration::from_millis(1));
        assert_eq!(*sizes.lock().unwrap(), [1, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_are_not_kept_waiting() {
        let mut tasks = JoinSet::new();
        let (batcher, sizes) = batcher(&mut tasks, Gather::Every(Duration::from_hours(1)));
        batcher.call(0).await.unwrap();
        let began = Instant::now();
        futures_util::future::join_all((0..ENOUGH).map(|n| batcher.call(n))).await;
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(*sizes.lock().unwrap(), [1, ENOUGH]);
    }
}
