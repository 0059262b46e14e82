//! An answer's body on its way to the client. The upload may still be under way, and where that fails the answer does too.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use circuitry_tower::BoxError;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::upload::Progress;

/// The body of an answer. Its errors are the upstream's, unless it is the upload that failed or stalls.
#[derive(Debug)]
pub(crate) struct Download<B> {
    body: B,
    upload: Progress,
    /// How long nothing may come while nothing goes either.
    limit: Duration,
    /// Since when the upstream has been waited for.
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Download<B> {
    pub(crate) fn new(body: B, upload: Progress, limit: Duration) -> Self {
        Self { body, upload, limit, since: None, alarm: None }
    }

    /// Waits until for so long nothing has moved, either way.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<BoxError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let deadline = since.max(self.upload.last()) + self.limit;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if alarm.is_elapsed() && alarm.deadline() == deadline {
                return Poll::Ready(self.upload.late().into());
            }
            if alarm.deadline() != deadline {
                alarm.as_mut().reset(deadline);
            }
            ready!(alarm.as_mut().poll(context));
        }
    }
}

impl<B> Body for Download<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                self.since = None;
                Poll::Ready(frame.map(|frame| frame.map_err(|error| self.upload.blamed(error))))
            }
            Poll::Pending => self.poll_silence(context).map(|late| Some(Err(late))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use axum::body::Body as AnyBody;
    use circuitry_tower::CallerError;
    use futures_util::stream::{self, StreamExt as _};
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::sleep;

    use crate::upload::{Silent, Upload};

    const LIMIT: Duration = Duration::from_secs(5);

    type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

    /// A body of these frames; what comes then is as late as can be.
    fn body(frames: Frames) -> AnyBody {
        AnyBody::new(StreamBody::new(stream::iter(frames).chain(stream::pending())))
    }

    fn data() -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from_static(b"data")))
    }

    fn broken() -> Result<Frame<Bytes>, std::io::Error> {
        Err(std::io::Error::other("broken off"))
    }

    /// Reads both bodies, and gets the error in which the answer ends.
    async fn fails(upload: Frames, answer: Frames) -> BoxError {
        let (mut upload, progress) = Upload::new(body(upload));
        let uploading = async {
            while upload.frame().await.is_some_and(|frame| frame.is_ok()) {}
            std::future::pending::<()>().await
        };
        tokio::select! {
            biased;
            () = uploading => unreachable!(),
            read = Download::new(body(answer), progress, LIMIT).collect() => read.expect_err("an error"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_breaks_off_is_the_upstreams_fault() {
        assert!(CallerError::find(&*fails(vec![data()], vec![data(), broken()]).await).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_breaks_off_with_the_upload_is_the_clients_fault() {
        let error = fails(vec![data(), broken()], vec![data(), broken()]).await;
        assert!(CallerError::find(&*error).is_some(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_waits_for_the_upload_is_the_clients_fault() {
        let error = fails(vec![data()], vec![data()]).await;
        assert!(CallerError::find(&*error).is_some(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_falls_silent_is_the_upstreams_fault() {
        // It has all of the upload, or leaves it unread.
        for is_read in [true, false] {
            let (mut upload, progress) = Upload::new(AnyBody::from("all of it"));
            while is_read && upload.frame().await.is_some() {}
            let begun = Instant::now();
            let answer = Download::new(body(vec![data()]), progress, LIMIT).collect();
            assert!(answer.await.expect_err("silence").is::<Silent>());
            assert_eq!(begun.elapsed(), LIMIT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_an_upload_goes_on_nobody_is_late() {
        let frames = stream::iter(0..9).then(|_| async {
            sleep(LIMIT * 2 / 3).await;
            data()
        });
        let (mut upload, progress) = Upload::new(AnyBody::new(StreamBody::new(frames)));
        let begun = Instant::now();
        let answer = Download::new(body(vec![]), progress, LIMIT);
        let ((), error) = tokio::join!(async { while upload.frame().await.is_some() {} }, answer.collect());
        assert!(error.expect_err("silence").is::<Silent>());
        assert!(begun.elapsed() >= LIMIT * 6 + LIMIT, "after {:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_to_read_makes_nobody_late() {
        let (mut upload, progress) = Upload::new(AnyBody::empty());
        assert!(upload.frame().await.is_none());
        let frames = stream::iter(0..5).then(|_| async {
            sleep(LIMIT * 2 / 3).await;
            data()
        });
        let mut answer = Download::new(AnyBody::new(StreamBody::new(frames)), progress, LIMIT);
        for _ in 0..5 {
            // It looks, finds nothing, and then takes its time.
            let mut frame = std::pin::pin!(answer.frame());
            assert!(futures_util::poll!(&mut frame).is_pending());
            sleep(LIMIT * 10).await;
            frame.await.expect("a frame").expect("data");
        }
        assert!(answer.frame().await.is_none());
    }
}
