//! A request's body on its way to the upstream, and who keeps whom waiting.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use circuitry_tower::{BoxError, CallerError};
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;

/// The body of a request. Its errors are the client's.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Body,
    progress: Progress,
}

/// How an upload gets on.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// When anything last happened.
    last: Instant,
    /// Whether the upstream has asked for more than the client has sent.
    waits_for_client: bool,
    /// Whether the client's body broke off.
    has_failed: bool,
}

/// The upstream has all that it asked for and says nothing.
#[derive(Debug, thiserror::Error)]
#[error("the upstream was silent for too long")]
pub(crate) struct Silent;

/// The client did not go on with its upload.
#[derive(Debug, thiserror::Error)]
#[error("the upload stalled")]
pub(crate) struct Stalled;

/// Who is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    Client,
    Upstream,
}

impl From<Late> for BoxError {
    fn from(late: Late) -> Self {
        match late {
            Late::Upstream => Silent.into(),
            Late::Client => CallerError::new(Stalled).into(),
        }
    }
}

impl Upload {
    pub(crate) fn new(body: Body) -> (Self, Progress) {
        let state = State { last: Instant::now(), waits_for_client: false, has_failed: false };
        let progress = Progress(Arc::new(Mutex::new(state)));
        (Self { body, progress: progress.clone() }, progress)
    }
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the upload last got on.
    pub(crate) fn last(&self) -> Instant {
        self.state().last
    }

    /// Who is to blame, if somebody is.
    pub(crate) fn late(&self) -> Late {
        if self.state().waits_for_client { Late::Client } else { Late::Upstream }
    }

    /// An error of the connection to the upstream: where the upload has failed, that is why.
    pub(crate) fn blamed(&self, error: impl Into<BoxError>) -> BoxError {
        match self.state().has_failed {
            true => CallerError::new(error).into(),
            false => error.into(),
        }
    }

    /// Waits until for so long nothing has happened, and says who is to blame.
    pub(crate) async fn stalls(&self, after: Duration) -> Late {
        loop {
            let last = self.last();
            tokio::time::sleep_until(last + after).await;
            if self.last() == last {
                return self.late();
            }
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = CallerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallerError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let mut state = self.progress.state();
        if polled.is_ready() || !state.waits_for_client {
            state.last = Instant::now();
            state.waits_for_client = polled.is_pending();
            state.has_failed |= matches!(polled, Poll::Ready(Some(Err(_))));
        }
        drop(state);
        polled.map(|frame| frame.map(|frame| frame.map_err(CallerError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    /// Nobody wants any more of it.
    fn drop(&mut self) {
        self.progress.state().waits_for_client = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use http_body_util::{BodyExt, Empty, StreamBody};

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_a_request_that_was_sent_is_late() {
        let (mut upload, progress) = Upload::new(Body::new(Empty::<Bytes>::new()));
        assert!(upload.frame().await.is_none());
        assert_eq!(progress.stalls(LIMIT).await, Late::Upstream);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_the_upload_is_late() {
        let (_upload, progress) = Upload::new(Body::from("unread"));
        assert_eq!(progress.stalls(LIMIT).await, Late::Upstream);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_go_on_with_the_upload_is_late() {
        let silence = futures_util::stream::pending::<Result<Frame<Bytes>, std::io::Error>>();
        let (mut upload, progress) = Upload::new(Body::new(StreamBody::new(silence)));
        tokio::select! {
            _ = upload.frame() => panic!("a frame of silence"),
            late = progress.stalls(LIMIT) => assert_eq!(late, Late::Client),
        }
    }
}
