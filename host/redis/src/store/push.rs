//! What is published when an entry was replaced, and the task behind a watch.

use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use circuitry_store::push::Pushes;
use circuitry_store::store::check_name;
use circuitry_store::{Push, StoreError, Watch};
use futures_util::stream;
use redis::RedisError;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::RedisStore;
use crate::error::{Operation, Trouble, is_denied};
use crate::link::{Request, Subscription};

/// A connection on which nothing comes in may be dead: it is asked so often.
const BEAT: Duration = Duration::from_secs(10);
/// Between two attempts to subscribe, longer each time, and up to twice as long by chance: a fleet does not come back
/// in step.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A subscription that lived for so long is no part of a row of failures.
const STEADY: Duration = Duration::from_secs(5);

impl RedisStore {
    /// The channel on which transitions are announced: the prefix itself, which is no circuit's key, since no circuit
    /// has an empty name. A message is the name of a circuit, as it is.
    ///
    /// Channels belong to the server, not to a database of it: stores that differ in the database only hear each
    /// other, and look once more than they need to.
    ///
    /// # Example
    /// ```
    /// use circuitry_redis::RedisStore;
    /// let store = RedisStore::builder().prefix("billing:").lazy();
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = store.connect("redis://127.0.0.1:6379").await?;
    /// assert_eq!(store.channel(), "billing:");
    /// # Ok::<(), circuitry_store::StoreError>(()) }).unwrap();
    /// ```
    pub fn channel(&self) -> &str {
        &self.inner.prefix
    }

    pub(super) async fn publish(&self, circuit: &str) -> Result<(), StoreError> {
        let key = self.key(circuit);
        let (task, deadline) = (self.task(Operation::Announce, &key), self.deadline());
        let link = &self.inner.link;
        // On a cluster the channel's name is a key that chooses the node.
        let request = |command: &str| {
            let mut command = redis::cmd(command);
            command.arg(self.channel()).arg(circuit);
            Request::one(self.channel().as_bytes(), command)
        };
        let mut answer =
            link.send(&request(if link.is_cluster() { "SPUBLISH" } else { "PUBLISH" }), deadline).await;
        if link.is_cluster() && answer.as_ref().is_err_and(is_unknown_command) {
            // Older than Redis 7. It says that it has told nobody, so this is no second time.
            answer = link.send(&request("PUBLISH"), deadline).await;
        }
        answer.map(drop).map_err(|trouble| {
            if let Trouble::NoConnection(error) | Trouble::Answer(error) = &trouble {
                self.warn_if_denied(error);
            }
            task.failed(trouble)
        })
    }

    pub(super) async fn subscribed(&self) -> Option<Watch> {
        if !self.inner.link.can_subscribe() {
            return None;
        }
        let pushes = Pushes::new();
        let mut watch = pushes.watch();
        let (began, begins) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().hear_for_ever(pushes, began));
        // A first attempt that fails ends the wait as well.
        let _ = timeout(self.inner.operation_timeout, begins).await;
        Some(Box::pin(stream::poll_fn(move |context| {
            // Dropped with the watch, it ends the task.
            let _ = &tasks;
            watch.as_mut().poll_next(context)
        })))
    }

    /// Subscribes, again and again, and passes on what comes in.
    async fn hear_for_ever(self, pushes: Pushes, began: oneshot::Sender<()>) {
        let mut began = Some(began);
        let mut pauses = pauses();
        loop {
            match self.inner.link.subscribe(self.channel()).await {
                Ok(subscription) => {
                    tracing::debug!(channel = self.channel(), "subscribed");
                    // Whoever still waits for the beginning has announced nothing that could have been missed.
                    if began.take().is_none_or(|began| began.send(()).is_err()) {
                        pushes.push(Push::Missed);
                    }
                    let since = Instant::now();
                    self.hear(subscription, &pushes).await;
                    tracing::debug!(channel = self.channel(), "the subscription is lost");
                    if since.elapsed() >= STEADY {
                        pauses = self::pauses();
                    }
                }
                Err(error) => {
                    began = None;
                    tracing::debug!(channel = self.channel(), %error, "could not subscribe");
                    self.warn_if_denied(&error);
                }
            }
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// Passes on what comes in, until the subscription is lost.
    async fn hear(&self, mut subscription: Subscription, pushes: &Pushes) {
        let mut beat = Instant::now() + BEAT;
        loop {
            match timeout_at(beat, subscription.next()).await {
                Ok(Some(message)) => match circuit_in(message) {
                    Some(circuit) => pushes.push(Push::Changed(circuit)),
                    None => tracing::debug!(channel = self.channel(), "a message is no circuit's name"),
                },
                Ok(None) => return,
                Err(_) => {
                    if !subscription.is_alive(self.channel(), self.inner.operation_timeout).await {
                        return;
                    }
                    beat = Instant::now() + BEAT;
                }
            }
        }
    }

    /// Says once that the user may not use the channel, however often it is tried.
    fn warn_if_denied(&self, error: &RedisError) {
        if is_denied(error) && !self.inner.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                channel = self.channel(),
                place = self.inner.place,
                %error,
                "this user may not publish or subscribe, so transitions are learned later, by polling; the documentation \
                 of circuitry-redis lists the permissions for pushes"
            );
        }
    }
}

/// A message is the name of a circuit, or somebody else's.
fn circuit_in(message: Vec<u8>) -> Option<String> {
    let circuit = String::from_utf8(message).ok()?;
    check_name(&circuit).is_ok().then_some(circuit)
}

#[cfg(feature = "cluster")]
fn is_unknown_command(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Answer(error) if crate::error::is_unknown_command(error))
}

/// Without clusters every server knows what it is asked.
#[cfg(not(feature = "cluster"))]
fn is_unknown_command(_: &Trouble) -> bool {
    false
}

fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
