//! [`Patience`]: how long a body's reader waits for the upstream, its own pauses not counted.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// How long a body may be waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BodyLimits {
    /// For its next frame.
    pub(crate) idle: Option<Duration>,
    /// For all of its frames, together.
    pub(crate) total: Option<Duration>,
}

/// The upstream did not end its body in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTimeout {
    limit: Duration,
    is_total: bool,
}

impl BodyTimeout {
    /// The limit that was reached.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether it is the one for the whole body, and not that for one silence.
    pub fn is_total(&self) -> bool {
        self.is_total
    }
}

impl fmt::Display for BodyTimeout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        match self.is_total {
            true => write!(formatter, "the upstream was waited for {limit:?} and its body has not ended"),
            false => write!(formatter, "the upstream sent nothing of its body for {limit:?}"),
        }
    }
}

impl std::error::Error for BodyTimeout {}

/// Waits for frames within the limits.
///
/// A wait begins when the upstream has no frame for the reader and ends when it wakes the reader. What the reader does until it comes
/// back (its own client may be slow, on purpose even) is not the upstream's time.
#[derive(Debug)]
pub(crate) struct Patience {
    limits: BodyLimits,
    /// How much of the total has been waited.
    waited: Duration,
    wait: Option<Wait>,
    /// Kept from wait to wait.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// A wait that has begun.
#[derive(Debug)]
struct Wait {
    since: Instant,
    bell: Arc<Bell>,
}

/// Wakes the reader, and notes when.
#[derive(Debug)]
struct Bell {
    reader: Waker,
    rung_at: OnceLock<Instant>,
}

impl Bell {
    fn of(reader: &Waker) -> Arc<Self> {
        Arc::new(Self { reader: reader.clone(), rung_at: OnceLock::new() })
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung_at.get_or_init(Instant::now);
        self.reader.wake_by_ref();
    }
}

impl Patience {
    /// `None` where there is no limit.
    pub(crate) fn within(limits: BodyLimits) -> Option<Self> {
        let limited = limits.idle.is_some() || limits.total.is_some();
        limited.then_some(Self { limits, waited: Duration::ZERO, wait: None, alarm: None })
    }

    /// Polls for a frame. What is there is taken, however late it is looked at.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        poll_frame: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, BodyTimeout>> {
        let begun = self.wait.take();
        let since = begun.as_ref().map(|wait| wait.since);
        let rung_at = begun.as_ref().and_then(|wait| wait.bell.rung_at.get().copied());
        let bell = match begun {
            Some(Wait { bell, .. }) if rung_at.is_none() && bell.reader.will_wake(context.waker()) => bell,
            _ => Bell::of(context.waker()),
        };
        let waker = Waker::from(bell.clone());
        match poll_frame(&mut Context::from_waker(&waker)) {
            Poll::Ready(frame) => {
                if let Some(since) = since {
                    let until = rung_at.unwrap_or_else(Instant::now);
                    self.waited = self.waited.saturating_add(until.saturating_duration_since(since));
                }
                Poll::Ready(Ok(frame))
            }
            Poll::Pending => {
                let since = since.unwrap_or_else(Instant::now);
                self.wait = Some(Wait { since, bell });
                let Some((left, timeout)) = self.nearest() else { return Poll::Pending };
                // A limit beyond all time is none.
                let Some(deadline) = since.checked_add(left) else { return Poll::Pending };
                let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if alarm.deadline() != deadline {
                    alarm.as_mut().reset(deadline);
                }
                ready!(alarm.as_mut().poll(context));
                Poll::Ready(Err(timeout))
            }
        }
    }

    /// The limit that a wait reaches first, and after which time.
    fn nearest(&self) -> Option<(Duration, BodyTimeout)> {
        let idle = self.limits.idle.map(|limit| (limit, BodyTimeout { limit, is_total: false }));
        let total = self
            .limits
            .total
            .map(|limit| (limit.saturating_sub(self.waited), BodyTimeout { limit, is_total: true }));
        idle.into_iter().chain(total).min_by_key(|(left, _)| *left)
    }
}
