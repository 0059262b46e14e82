//! [`Push`] and [`Watch`]: what a store tells those who watch it; [`Pushes`]: the queue behind a watch.
//!
//! A push is a hint that shortens a wait. It may be lost, late or doubled, so nobody decides anything on it but to look
//! at the store now instead of later.

use std::pin::Pin;
use std::sync::OnceLock;

use futures_core::Stream;
use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// A watcher who is so many pushes behind loses the oldest, and is told so: at most 256 kB of the longest names.
const QUEUE: usize = 256;

/// What a store tells those who watch it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Push {
    /// The entry of this circuit was replaced: what is known of it may be old.
    Changed(String),
    /// Pushes may have been lost (a connection was lost and is back): what is known of any circuit may be old.
    Missed,
}

/// Pushes as they come in; ends when the store will push no more.
///
/// Dropping it ends the watch. Waiting for the next push is cancel safe: none is lost.
pub type Watch = Pin<Box<dyn Stream<Item = Push> + Send>>;

/// A bounded queue from whoever pushes to all who watch, for authors of stores.
///
/// It never makes the pushing side wait: a watcher who is too far behind loses the oldest pushes and gets
/// [`Push::Missed`] in their place. It takes memory only while somebody watches, or has.
///
/// # Example
/// ```
/// use circuitry_store::push::{Push, Pushes};
/// use futures_util::StreamExt;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let pushes = Pushes::new();
/// let mut watch = pushes.watch();
/// pushes.push(Push::Changed("emails".to_owned()));
/// drop(pushes);
/// assert_eq!(watch.next().await, Some(Push::Changed("emails".to_owned())));
/// assert_eq!(watch.next().await, None, "nobody will push any more");
/// # });
/// ```
#[derive(Debug, Default)]
pub struct Pushes {
    sender: OnceLock<broadcast::Sender<Push>>,
}

impl Pushes {
    /// Makes a queue that nobody watches yet.
    pub const fn new() -> Self {
        Self { sender: OnceLock::new() }
    }

    /// Tells everybody who watches now. Without any it does nothing.
    pub fn push(&self, push: Push) {
        if let Some(sender) = self.sender.get() {
            // It fails when nobody watches.
            let _ = sender.send(push);
        }
    }

    /// Watches from now on. The watch ends when the queue is dropped, after what is still in it.
    pub fn watch(&self) -> Watch {
        let receiver = self.sender.get_or_init(|| broadcast::Sender::new(QUEUE)).subscribe();
        let pushes = stream::unfold(receiver, |mut receiver| async move {
            let push = match receiver.recv().await {
                Ok(push) => push,
                Err(RecvError::Lagged(_)) => Push::Missed,
                Err(RecvError::Closed) => return None,
            };
            Some((push, receiver))
        });
        Box::pin(pushes.fuse())
    }
}
