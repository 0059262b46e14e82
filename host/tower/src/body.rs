//! [`GuardedBody`]: a response's body that holds the permit until it has ended.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use circuitry::{Outcome, Permit, WorkError};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::BoxError;
use crate::classify::Classifier;
use crate::patience::{BodyLimits, Patience};

pin_project! {
    /// A response's body that holds the permit until it has ended.
    ///
    /// | the body | the call |
    /// |---|---|
    /// | ends, with trailers or without | is what the classifier says, by default a success |
    /// | ends in an error | is what the classifier says of the error, by default a failure |
    /// | is not ended by the upstream in time, where a limit is set | is a failure, and the body ends in a [`BodyTimeout`](crate::BodyTimeout) |
    /// | is dropped before its end | is ignored: whoever wanted it has gone |
    ///
    /// Of a call that is settled already (by a failure at its head, by [`Verdict::Settled`](crate::Verdict::Settled)) the body counts
    /// nothing any more; the limit for its silence ends it all the same.
    ///
    /// A body whose length is known has ended when so much of it was read: many readers stop there, and ask for no end.
    ///
    /// No frame waits for the circuit. An outcome is handed over at the end and settled behind it, whatever becomes of the body; in
    /// bounded mode (circuitry's default) this process counts it at once.
    pub struct GuardedBody<B>
    where
        B: Body,
    {
        #[pin]
        content: Content<B>,
    }

    impl<B> PinnedDrop for GuardedBody<B>
    where
        B: Body,
    {
        fn drop(this: Pin<&mut Self>) {
            if let ContentProj::Upstream { body, guard, seen, .. } = this.project().content.project()
                && let Some(guard) = guard.take()
            {
                guard.dropped(&*body, *seen);
            }
        }
    }
}

pin_project! {
    #[project = ContentProj]
    enum Content<B>
    where
        B: Body,
    {
        /// Of the upstream.
        Upstream {
            #[pin]
            body: B,
            // Until the call is settled.
            guard: Option<Guard>,
            patience: Option<Patience>,
            // The bytes that were read.
            seen: u64,
            over: bool,
        },
        /// Of the layer itself.
        Ready { data: Option<B::Data> },
    }
}

/// A call whose outcome the body's end decides. Dropped, it is ignored, as its permit is.
pub(crate) struct Guard {
    permit: Permit,
    classifier: Arc<dyn Classifier>,
    /// What the headers say of the body's length.
    length: Option<u64>,
}

impl Guard {
    pub(crate) fn new(permit: Permit, classifier: Arc<dyn Classifier>, length: Option<u64>) -> Self {
        Self { permit, classifier, length }
    }

    /// The outcome is handed over when `end` is called; what becomes of it nobody waits for, and what goes wrong with it circuitry logs.
    fn settle(self, outcome: Outcome) {
        settle(self.permit, outcome);
    }

    fn ended(self, trailers: Option<&HeaderMap>) {
        let outcome = self.classifier.end(trailers);
        self.settle(outcome);
    }

    fn broke_off(self, error: &BoxError) {
        let outcome = self.classifier.error(WorkError::new(error));
        self.settle(outcome);
    }

    /// Whoever read the body reads no more of it: it may be all there is.
    fn dropped<B: Body>(self, body: &B, seen: u64) {
        if body.is_end_stream() {
            return self.ended(None);
        }
        if body.size_hint().exact() != Some(0) && self.length != Some(seen) {
            return;
        }
        // Trailers may be left, and what they would have said is nobody's failure.
        if self.classifier.end(None) == Outcome::Success {
            self.settle(Outcome::Success);
        }
    }
}

/// Hands an outcome over; it is settled behind the caller.
pub(crate) fn settle(permit: Permit, outcome: Outcome) {
    drop(permit.end(outcome));
}

impl<B: Body> GuardedBody<B> {
    /// A body of the upstream, with the call that its end settles, if that is not settled yet.
    pub(crate) fn upstream(body: B, guard: Option<Guard>, limits: BodyLimits) -> Self {
        // Where nothing comes, often nobody reads.
        let guard = match guard {
            Some(guard) if body.is_end_stream() => {
                guard.ended(None);
                None
            }
            guard => guard,
        };
        // How long all of it may take is asked for the circuit's sake: a stream whose call is settled may go on for ever.
        let total = limits.total.filter(|_| guard.is_some());
        let patience = Patience::within(BodyLimits { total, ..limits });
        Self { content: Content::Upstream { body, guard, patience, seen: 0, over: false } }
    }

    /// A body of these bytes, which holds no permit: for a response of your own, see [`WhenRefused`](crate::WhenRefused).
    pub fn ready(data: impl Into<B::Data>) -> Self {
        Self { content: Content::Ready { data: Some(data.into()) } }
    }

    /// A body of nothing, which holds no permit.
    pub fn empty() -> Self {
        Self { content: Content::Ready { data: None } }
    }
}

impl<B> Body for GuardedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    /// The body's own error, boxed, or a [`BodyTimeout`](crate::BodyTimeout).
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let (mut body, guard, patience, seen, over) = match self.project().content.project() {
            ContentProj::Ready { data } => return Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            ContentProj::Upstream { over, .. } if *over => return Poll::Ready(None),
            ContentProj::Upstream { body, guard, patience, seen, over } => {
                (body, guard, patience, seen, over)
            }
        };
        let polled = match patience {
            None => Ok(ready!(body.as_mut().poll_frame(context))),
            Some(patience) => ready!(patience.poll(context, |context| body.as_mut().poll_frame(context))),
        };
        let frame = match polled {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => {
                *over = true;
                if let Some(guard) = guard.take() {
                    guard.ended(None);
                }
                return Poll::Ready(None);
            }
            Ok(Some(Err(error))) => {
                *over = true;
                let error = error.into();
                if let Some(guard) = guard.take() {
                    guard.broke_off(&error);
                }
                return Poll::Ready(Some(Err(error)));
            }
            Err(timeout) => {
                *over = true;
                if let Some(guard) = guard.take() {
                    guard.settle(Outcome::Failure);
                }
                return Poll::Ready(Some(Err(timeout.into())));
            }
        };
        if let Some(data) = frame.data_ref() {
            let bytes = bytes::Buf::remaining(data);
            *seen = seen.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        // Trailers are the last frame there is, and a reader may stop at any that the body says is the last.
        if (frame.is_trailers() || body.is_end_stream())
            && let Some(guard) = guard.take()
        {
            guard.ended(frame.trailers_ref());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Upstream { over: true, .. } => true,
            Content::Upstream { body, .. } => body.is_end_stream(),
            Content::Ready { data } => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Upstream { over: true, .. } => SizeHint::with_exact(0),
            Content::Upstream { body, .. } => body.size_hint(),
            Content::Ready { data } => {
                let bytes = data.as_ref().map_or(0, bytes::Buf::remaining);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
        }
    }
}

impl<B: Body> fmt::Debug for GuardedBody<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, is_settled) = match &self.content {
            Content::Upstream { guard, .. } => ("upstream", guard.is_none()),
            Content::Ready { .. } => ("layer", true),
        };
        let mut shown = formatter.debug_struct("GuardedBody");
        shown.field("of", &whose).field("settled", &is_settled).finish_non_exhaustive()
    }
}
