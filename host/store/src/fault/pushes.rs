//! What goes wrong with pushes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::stream::{self, StreamExt};

use super::{Fault, FaultStore};
use crate::error::StoreError;
use crate::push::{Push, Pushes, Watch};
use crate::store::Store;

/// The way from the inner store to those who watch it.
#[derive(Debug, Default)]
pub(super) struct Way {
    is_down: AtomicBool,
    /// What the watchers are told beside the inner store's pushes.
    own: Pushes,
}

impl Way {
    pub(super) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::SeqCst)
    }

    pub(super) fn go_down(&self) {
        self.is_down.store(true, Ordering::SeqCst);
    }

    pub(super) fn come_up(&self) {
        if self.is_down.swap(false, Ordering::SeqCst) {
            self.own.push(Push::Missed);
        }
    }
}

/// The pushes of `inner` that come through; it ends with `inner`.
pub(super) fn through(way: &Arc<Way>, mut inner: Watch) -> Watch {
    let mut own = way.own.watch();
    // Not the way's whole life long: its own pushes end with the store, the inner ones with the inner store.
    let way = Arc::downgrade(way);
    let is_down = move || way.upgrade().is_some_and(|way| way.is_down());
    Box::pin(stream::poll_fn(move |context| {
        let is_back = matches!(own.poll_next_unpin(context), Poll::Ready(Some(_)));
        loop {
            match inner.poll_next_unpin(context) {
                Poll::Ready(None) => return Poll::Ready(None),
                // Lost on the way, and told as such when it is up again.
                Poll::Ready(Some(_)) if is_back || is_down() => {}
                Poll::Ready(Some(push)) => return Poll::Ready(Some(push)),
                Poll::Pending if is_back => return Poll::Ready(Some(Push::Missed)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }))
}

impl<S> FaultStore<S> {
    /// How many pushes are held now.
    pub fn held_pushes(&self) -> usize {
        self.faults().held_pushes.len()
    }
}

impl<S: Store> FaultStore<S> {
    /// Tells the watchers of the pushes that are held, in their order.
    ///
    /// # Errors
    /// The inner store's; what it did not take is lost.
    ///
    /// # Cancel safety
    /// Dropped before its end, it leaves the others held.
    ///
    /// # Example
    /// ```
    /// use circuitry_store::fault::{Fault, FaultStore};
    /// use circuitry_store::{MemoryStore, Push, Store};
    /// use futures_util::{FutureExt, StreamExt};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = FaultStore::new(MemoryStore::new());
    /// let mut watch = store.watch().await?.expect("the memory store pushes");
    /// store.on_next_announce(Fault::HeldPush);
    /// store.announce("late").await?;
    /// assert_eq!(watch.next().now_or_never(), None);
    /// store.release_pushes().await?;
    /// assert_eq!(watch.next().await, Some(Push::Changed("late".to_owned())));
    /// # Ok::<(), circuitry_store::StoreError>(()) }).unwrap();
    /// ```
    pub async fn release_pushes(&self) -> Result<(), StoreError> {
        while let Some(circuit) = self.take_held_push() {
            self.shared.inner.announce(&circuit).await?;
        }
        Ok(())
    }

    /// Apart, so that the lock is not held while the inner store is told.
    fn take_held_push(&self) -> Option<String> {
        self.faults().held_pushes.pop_front()
    }

    pub(super) async fn announce_with(&self, fault: Option<&Fault>, circuit: &str) -> Result<(), StoreError> {
        let inner = &self.shared.inner;
        match fault {
            Some(Fault::LostPush) => Ok(()),
            Some(Fault::HeldPush) => {
                self.faults().held_pushes.push_back(circuit.to_owned());
                Ok(())
            }
            Some(Fault::DoubledPush) => {
                inner.announce(circuit).await?;
                inner.announce(circuit).await
            }
            _ => inner.announce(circuit).await,
        }
    }
}
