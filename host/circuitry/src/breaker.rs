//! [`Breaker`]: a handle on one circuit.

use std::future::Future;
use std::sync::Arc;

use crate::call::{Answer, Operation, Problem};
use crate::circuit::Circuit;
use crate::error::{ComponentError, Error, ExecuteError, StartError};
use crate::event::announce;
use crate::finishing::Finishing;
use crate::metering;
use crate::node::{Asked, Node};
use crate::outcome::{Outcome, Settlement, WorkError};
use crate::permit::Permit;
use crate::refusal::{Refusal, RefusalReason};
use crate::settings::StoreFailure;
use crate::state::{Information, Override, State};

/// A handle on a circuit. Cheap to make and to clone; all handles of one name share the circuit.
#[derive(Clone, Debug)]
pub struct Breaker {
    node: Arc<Node>,
    circuit: Arc<Circuit>,
    /// The name given to `breaker_for`; others may have named the circuit otherwise.
    base: Arc<str>,
}

/// Work that ran, with what became of its outcome: see [`Breaker::execute_settled`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Executed<T, E> {
    /// What the work gave.
    pub result: Result<T, E>,
    /// What became of its outcome.
    pub settlement: Result<Settlement, Error>,
}

impl Breaker {
    pub(crate) fn new(node: Arc<Node>, circuit: Arc<Circuit>, base: Arc<str>) -> Self {
        Self { node, circuit, base }
    }

    /// The circuit's name, as it is shared.
    pub fn name(&self) -> &str {
        &self.circuit.name
    }

    /// Asks to begin work. Settle the permit with [`Permit::end`].
    ///
    /// Costs one load when the circuit is closed. Waits at most the store's timeout; when the store does not answer,
    /// the store-failure policy decides.
    ///
    /// # Errors
    /// [`StartError::Refused`] with the time to wait; [`StartError::Circuit`] when the record cannot be read, an
    /// argument is out of its bounds or the component failed. The work has not run.
    ///
    /// # Cancel safety
    /// Dropped, it goes on without the caller, and the permit it may get is settled as ignored.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Context, Factory, Outcome, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let factory = Factory::new(Settings::builder().build()?).await?;
    /// let breaker = factory.breaker_for("emails", &Context::tenant("acme"));
    /// let permit = breaker.start().await?;
    /// // … work …
    /// let settlement = permit.end(Outcome::Success).await?;
    /// # let _ = settlement; Ok(()) }
    /// ```
    pub async fn start(&self) -> Result<Permit, StartError> {
        let breaker = self.clone();
        // To its end also without the caller: what it changed is told, and a permit that nobody takes is given back.
        let started = Finishing::new(&self.node.tasks, async move { breaker.start_whole().await });
        match started.await {
            Ok(started) => started,
            Err(cut_off) => Err(Error::new(self.name(), Problem::Component(cut_off)).into()),
        }
    }

    async fn start_whole(&self) -> Result<Permit, StartError> {
        let verdict = match self.node.ask(&self.circuit, Operation::Start).await? {
            Asked::Shared(Answer::Started { verdict, transitions }) => {
                announce(&self.node.settings, &self.circuit, &transitions, false);
                verdict.map(Some)
            }
            Asked::Local(Answer::Started { verdict, transitions }) => {
                announce(&self.node.settings, &self.circuit, &transitions, true);
                verdict.map(Some)
            }
            Asked::Nobody if self.node.settings.store_failure == StoreFailure::Admit => Ok(None),
            Asked::Nobody => Err(Refusal::new(RefusalReason::StoreDown, self.node.settings.store_timeout)),
            Asked::Shared(_) | Asked::Local(_) => return Err(self.wrong_answer().into()),
        };
        match verdict {
            Ok(grant) => {
                let probe = grant.is_some_and(|grant| grant.probe.is_some());
                metering::call(&self.base, if probe { "probe" } else { "permit" });
                if grant.is_some() {
                    self.circuit.saw_state(if probe { State::HalfOpen } else { State::Closed });
                }
                Ok(Permit::new(self.node.clone(), self.circuit.clone(), grant))
            }
            Err(refusal) => {
                metering::call(&self.base, refusal.reason().as_str());
                match refusal.reason() {
                    RefusalReason::Open => self.circuit.saw_state(State::Open),
                    RefusalReason::TooManyRequests => self.circuit.saw_state(State::HalfOpen),
                    RefusalReason::ForcedOpen | RefusalReason::StoreDown => {}
                }
                Err(refusal.into())
            }
        }
    }

    /// Settles a permit; the same as [`Permit::end`].
    ///
    /// # Errors
    /// As [`Permit::end`].
    ///
    /// # Cancel safety
    /// As [`Permit::end`].
    pub fn end(
        &self,
        permit: Permit,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Settlement, Error>> + Send + 'static {
        permit.end(outcome)
    }

    /// Starts, works and ends.
    ///
    /// An error of the work is judged by the matcher of this circuit, or the fallback matcher. The work's result is
    /// given back whatever becomes of its outcome: a store that fails after the work loses nothing of the user's.
    ///
    /// # Errors
    /// [`ExecuteError::Work`] is the work's own error, as it was. With the others the work has not run.
    ///
    /// # Cancel safety
    /// Dropping it drops the work and settles as ignored: a cancel is never a failure.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Context, ExecuteError, Factory, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let factory = Factory::new(Settings::builder().build()?).await?;
    /// # async fn send() -> Result<u32, std::io::Error> { Ok(7) }
    /// let breaker = factory.breaker_for("emails", &Context::tenant("acme"));
    /// match breaker.execute(send).await {
    ///     Ok(id) => println!("sent as {id}"),
    ///     Err(ExecuteError::Refused(refusal)) => println!("again in {:?}", refusal.spread_delay()),
    ///     Err(ExecuteError::Work(error)) => println!("not sent: {error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn execute<T, E, F>(&self, work: impl FnOnce() -> F) -> Result<T, ExecuteError<E>>
    where
        E: 'static,
        F: Future<Output = Result<T, E>>,
    {
        self.execute_settled(work).await?.result.map_err(ExecuteError::Work)
    }

    /// Like [`Breaker::execute`], and says what became of the outcome.
    ///
    /// # Errors
    /// Only those with which the work has not run.
    ///
    /// # Cancel safety
    /// As [`Breaker::execute`].
    pub async fn execute_settled<T, E, F>(
        &self,
        work: impl FnOnce() -> F,
    ) -> Result<Executed<T, E>, StartError>
    where
        E: 'static,
        F: Future<Output = Result<T, E>>,
    {
        self.execute_classified(work, |result| match result {
            Ok(_) => Outcome::Success,
            Err(error) => self.judge(WorkError::new(error)),
        })
        .await
    }

    /// Like [`Breaker::execute_settled`], with `classify` in the place of the matchers; it sees results too.
    ///
    /// # Errors
    /// Only those with which the work has not run.
    ///
    /// # Cancel safety
    /// As [`Breaker::execute`].
    pub async fn execute_classified<T, E, F>(
        &self,
        work: impl FnOnce() -> F,
        classify: impl FnOnce(&Result<T, E>) -> Outcome,
    ) -> Result<Executed<T, E>, StartError>
    where
        F: Future<Output = Result<T, E>>,
    {
        let permit = self.start().await?;
        let result = work().await;
        let outcome = classify(&result);
        let settlement = permit.end(outcome).await;
        if let Err(error) = &settlement {
            tracing::warn!(circuit = self.name(), %error, "the outcome of finished work could not be settled");
        }
        Ok(Executed { result, settlement })
    }

    /// The effective state: an open circuit whose time is over reads as half-open. Does not look at overrides.
    ///
    /// # Errors
    /// As [`Breaker::information`].
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn state(&self) -> Result<State, Error> {
        Ok(self.information().await?.state)
    }

    /// Everything that is known of the circuit. Reading never changes it. While the store is down this is the
    /// process's own record, and says so.
    ///
    /// # Errors
    /// [`Error`] when the record cannot be read, or the store is down and the policy keeps no local record.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn information(&self) -> Result<Information, Error> {
        match self.node.ask(&self.circuit, Operation::Inspect).await? {
            Asked::Shared(Answer::Inspected(information)) => Ok(*information),
            Asked::Local(Answer::Inspected(information)) => Ok(Information { local: true, ..*information }),
            Asked::Nobody => Err(self.store_down()),
            Asked::Shared(_) | Asked::Local(_) => Err(self.wrong_answer()),
        }
    }

    /// Forces the circuit for the whole fleet, or takes the force away with `None`; says what was in force before (where
    /// an answer was lost on the way, that may be the override just set).
    ///
    /// # Errors
    /// [`Error`] when it could not be stored; it is never kept in this process only.
    ///
    /// # Cancel safety
    /// The exchange runs on; whether it was stored is then not told.
    pub async fn set_override(&self, wanted: Option<Override>) -> Result<Option<Override>, Error> {
        let (node, circuit) = (self.node.clone(), self.circuit.clone());
        let exchange = Finishing::new(&self.node.tasks, async move {
            node.ask_shared(&circuit, Operation::SetOverride(wanted)).await
        });
        match exchange.await.unwrap_or_else(|cut_off| Err(Problem::Component(cut_off))) {
            Ok(Answer::Overridden { previous }) => Ok(previous),
            Ok(_) => Err(self.wrong_answer()),
            Err(problem) => Err(Error::new(&self.circuit.name, problem)),
        }
    }

    /// What an error of the work means here. A matcher that panics is taken for a failure: the work did fail.
    fn judge(&self, error: WorkError<'_>) -> Outcome {
        let settings = &self.node.settings;
        let matcher =
            settings.circuit_error_matchers.get(&*self.base).unwrap_or(&settings.fallback_error_matcher);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| matcher(error))).unwrap_or_else(|_| {
            tracing::error!(circuit = self.name(), "the error matcher panicked");
            Outcome::Failure
        })
    }

    fn wrong_answer(&self) -> Error {
        let problem = ComponentError::Trapped("it answered another question".into());
        Error::new(&self.circuit.name, Problem::Component(problem))
    }

    fn store_down(&self) -> Error {
        let error = circuitry_store::StoreError::Unavailable {
            message:
                "it is down, or this process is too busy to ask it, and the settings keep no local record"
                    .into(),
            source: None,
        };
        Error::new(&self.circuit.name, Problem::Store(error))
    }
}
