//! The listener: plain HTTP/1.1, keep-alive, no Nagle; stopping lets open requests end, for a while.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Sandbox, SandboxOptions, api};

/// How long requests that are open at the stop may still take.
const GRACE: Duration = Duration::from_secs(3);

impl Sandbox {
    /// Serves the API until `shutdown` completes, then ends open requests within three seconds.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let app = Router::new().fallback(api::answer).with_state(self.shared.clone());
        let listener = listener.tap_io(|stream| {
            // Without it answers to pipelined small requests wait for acknowledgements; no harm where it fails.
            drop(stream.set_nodelay(true));
        });
        let stopping = CancellationToken::new();
        let stopped = stopping.clone();
        let signal = async move {
            shutdown.await;
            stopped.cancel();
        };
        let serving = axum::serve(listener, app).with_graceful_shutdown(signal).into_future();
        let out_of_time = async {
            stopping.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = serving => result,
            () = out_of_time => Ok(()),
        }
    }

    /// Serves on a free port of the loopback address in the background, until the handle is stopped or dropped.
    pub async fn start(options: SandboxOptions) -> io::Result<RunningSandbox> {
        Self::new(options).start_here().await
    }

    /// [`Sandbox::start`] for a sandbox that is there already.
    pub async fn start_here(self) -> io::Result<RunningSandbox> {
        self.start_at((std::net::Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// [`Sandbox::start_here`] at a given address: where one stopped, say.
    pub async fn start_at(self, address: SocketAddr) -> io::Result<RunningSandbox> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let sandbox = self.clone();
        let serving = tokio::spawn(async move { sandbox.serve(listener, stopped.cancelled_owned()).await });
        Ok(RunningSandbox { sandbox: self, address, stop, serving })
    }
}

/// A sandbox that serves in the background. It derefs to [`Sandbox`].
#[derive(Debug)]
pub struct RunningSandbox {
    sandbox: Sandbox,
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl RunningSandbox {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `benefits.base_url` is to be.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// The state, which outlives the server.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Stops listening and waits for open requests. The same state can be served again with [`Sandbox::start_here`].
    pub async fn stop(mut self) -> io::Result<()> {
        self.stop.cancel();
        (&mut self.serving).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl std::ops::Deref for RunningSandbox {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for RunningSandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
