//! Loads of strict starts: concurrent ones of a circuit share one, begun after the last of them asked.

use std::sync::Arc;

use circuitry_store::Loaded;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use crate::circuit::Circuit;
use crate::gathering::{Gathering, Role};
use crate::node::Node;
use crate::runtime::asking::{self, Deadline, Trouble};

/// Those who wait for a load.
pub(crate) type Loads = Gathering<oneshot::Sender<Loaded>>;

/// Loads the entry of a circuit, together with whoever asks for it at the same time.
///
/// # Cancel safety
/// It only reads.
pub(crate) async fn load(node: &Node, circuit: &Arc<Circuit>, deadline: Deadline) -> Result<Loaded, Trouble> {
    let mut told = None;
    let role = circuit.loads.come(|| {
        let (tell, receiver) = oneshot::channel();
        told = Some(receiver);
        tell
    });
    if role == Role::Alone {
        let _alone = Alone(circuit);
        return asking::load(&*node.store, &circuit.name, deadline).await;
    }
    if role == Role::Begin {
        let (store, circuit, patience) = (node.store.clone(), circuit.clone(), node.patience());
        node.tasks.spawn(async move {
            // Those who are about to come, too.
            yield_now().await;
            let rounds = Rounds(&circuit);
            loop {
                let waiting = rounds.0.loads.round();
                if waiting.is_empty() {
                    std::mem::forget(rounds);
                    return;
                }
                // On an error they are dropped, and each asks for himself.
                if let Ok(loaded) = asking::load(&*store, &circuit.name, Deadline::within(patience)).await {
                    for tell in waiting {
                        // Who no longer waits does not want to know.
                        let _ = tell.send(loaded.clone());
                    }
                }
            }
        });
    }
    if let Some(told) = told
        && let Ok(Ok(loaded)) = timeout_at(deadline.at, told).await
    {
        return Ok(loaded);
    }
    asking::load(&*node.store, &circuit.name, deadline).await
}

/// Whoever asks for himself; also where he is dropped.
struct Alone<'a>(&'a Circuit);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.loads.left();
    }
}

/// Rounds that end early (a store that panics, a runtime that ends): those who wait ask for themselves.
struct Rounds<'a>(&'a Circuit);

impl Drop for Rounds<'_> {
    fn drop(&mut self) {
        while !self.0.loads.round().is_empty() {}
    }
}
