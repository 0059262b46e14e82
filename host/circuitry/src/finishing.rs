//! [`Finishing`]: work that a caller waits for, and that goes on without the caller.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::runtime::Handle;

use crate::error::ComponentError;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Work that runs in the task of whoever awaits it; dropped before its end, it goes on in a task of its own.
///
/// So a caller's cancel never tears an exchange with the store, and a call costs no change of tasks. A panic of the work (of a
/// user's store, say) is an error of the work.
pub(crate) struct Finishing<T: Send + 'static> {
    work: Option<Work<Result<T, ComponentError>>>,
    tasks: Handle,
}

impl<T: Send + 'static> Finishing<T> {
    pub(crate) fn new(tasks: &Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        let work = AssertUnwindSafe(work).catch_unwind();
        let work = work
            .map(|done| done.map_err(|_panic| ComponentError::CutOff("the store's code panicked".into())));
        Self { work: Some(Box::pin(work)), tasks: tasks.clone() }
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = Result<T, ComponentError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(Err(ComponentError::CutOff("it was asked for a second time".into())));
        };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.tasks.spawn(work);
        }
    }
}
