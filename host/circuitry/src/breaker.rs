//! [`Breaker`]: a handle on one circuit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::ballot;
use crate::bounded::{self, Bounded};
use crate::call::{Answer, Operation, Problem};
use crate::circuit::Circuit;
use crate::error::{Error, ExecuteError, StartError};
use crate::event::announce;
use crate::finishing::Finishing;
use crate::grant::Term;
use crate::node::{Asked, Node};
use crate::outcome::{Outcome, Settlement, WorkError};
use crate::permit::Permit;
use crate::settling::{self, wrong_answer};
use crate::starting;
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

/// Leave to work under a grant of the component. Dropped, it counts nothing, as an ignored outcome does.
struct Granted<'a> {
    node: &'a Arc<Node>,
    bounded: &'a Bounded,
    circuit: &'a Arc<Circuit>,
    term: Term,
    /// When it began and from when on it is slow, where slow calls matter.
    slow: Option<(u64, u64)>,
}

impl<'a> Granted<'a> {
    #[inline]
    fn of(breaker: &'a Breaker) -> Option<Self> {
        let Breaker { node, circuit, .. } = breaker;
        let bounded = node.bounded.as_ref()?;
        let term = circuit.grants.admit(bounded.time.now_ms()).filter(|_| !node.outage.is_down())?;
        let slow = circuit.grants.slow_call_after_ms();
        let slow = slow.map(|after_ms| (node.settings.clock.now_ms(), after_ms));
        Some(Self { node, bounded, circuit, term, slow })
    }

    #[inline]
    fn is_slow(&self) -> bool {
        let took_ms = |begun_ms| self.node.settings.clock.now_ms().saturating_sub(begun_ms);
        self.slow.is_some_and(|(begun_ms, after_ms)| took_ms(begun_ms) > after_ms)
    }

    /// Counts a success; says whether the grant settles it.
    #[inline]
    fn succeed(&self) -> bool {
        !self.is_slow()
            && !self.node.outage.is_down()
            && bounded::succeed(self.node, self.bounded, self.circuit, self.term)
    }

    /// Counts an outcome that the grant does not settle, before the future is polled.
    #[cold]
    fn end_otherwise(&self, outcome: Outcome) -> BoxFuture<'a, Result<Settlement, Error>> {
        let Self { node, bounded, circuit, term, .. } = *self;
        if node.outage.is_down()
            && outcome != Outcome::Ignored
            && let Some(era) = circuit.with_view(|view| view.era_of(circuit, term))
        {
            let handed_over = bounded::end_in_outage(node, circuit, era, outcome, self.is_slow());
            return Box::pin(settling::answer(node, circuit, handed_over));
        }
        let ended = bounded::end_otherwise(node, bounded, circuit, term, outcome, self.is_slow());
        Box::pin(ended.settlement(node))
    }

    /// Counts an outcome before the first await.
    async fn end(self, outcome: Outcome) -> Result<Settlement, Error> {
        if outcome == Outcome::Success && self.succeed() {
            return Ok(bounded::COUNTED);
        }
        self.end_otherwise(outcome).await
    }
}

/// Keeps a future out of the one that awaits it, which stays small for those who seldom need it.
#[cold]
#[inline(never)]
fn aside<F: Future>(future: F) -> Pin<Box<F>> {
    Box::pin(future)
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
    /// In strict mode it costs one load when the circuit is closed; in bounded mode nothing, while this process's view of the
    /// circuit is fresh. Waits at most the store's timeout; when the store does not answer,
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
        if let Some(permit) = Permit::granted(&self.node, &self.circuit) {
            return Ok(permit);
        }
        starting::start(&self.node, &self.circuit, &self.base).await
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
        // The usual case in bounded mode, which needs no more than a few atomic operations beside the work.
        if let Some(granted) = Granted::of(self) {
            return match work().await {
                Ok(value) if granted.succeed() => Ok(value),
                result => {
                    let outcome = self.outcome_of(&result);
                    self.tell(&granted.end_otherwise(outcome).await);
                    result.map_err(ExecuteError::Work)
                }
            };
        }
        let asking = aside(self.execute_asking(work, |result| self.outcome_of(result)));
        asking.await?.result.map_err(ExecuteError::Work)
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
        self.execute_classified(work, |result| self.outcome_of(result)).await
    }

    /// Like [`Breaker::execute_settled`], with `classify` in the place of the matchers.
    ///
    /// It is the classifier on results: it sees what went well too, so an answer of status 503, or an error in the body of one of
    /// status 200, can be a failure. It also says how long a dependency asked to be left alone:
    /// [`Outcome::FailureRetryAfter`].
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
        let Some(granted) = Granted::of(self) else {
            return aside(self.execute_asking(work, classify)).await;
        };
        let result = work().await;
        let settlement = granted.end(classify(&result)).await;
        self.tell(&settlement);
        Ok(Executed { result, settlement })
    }

    /// Without a grant.
    async fn execute_asking<T, E, F>(
        &self,
        work: impl FnOnce() -> F,
        classify: impl FnOnce(&Result<T, E>) -> Outcome,
    ) -> Result<Executed<T, E>, StartError>
    where
        F: Future<Output = Result<T, E>>,
    {
        let permit = self.start_boxed().await?;
        let result = work().await;
        let settlement = Self::end_boxed(permit, classify(&result)).await;
        self.tell(&settlement);
        Ok(Executed { result, settlement })
    }

    // Their code is here, and not in that of each caller, whose every call would make room for it on the stack.

    #[cold]
    #[inline(never)]
    fn start_boxed(&self) -> BoxFuture<'_, Result<Permit, StartError>> {
        Box::pin(self.start())
    }

    #[cold]
    #[inline(never)]
    fn end_boxed(permit: Permit, outcome: Outcome) -> BoxFuture<'static, Result<Settlement, Error>> {
        Box::pin(permit.end(outcome))
    }

    /// Notes a settlement that failed, for whoever does not look at it.
    fn tell(&self, settlement: &Result<Settlement, Error>) {
        if let Err(error) = settlement {
            tracing::warn!(circuit = self.name(), %error, "the outcome of finished work could not be settled");
        }
    }

    /// What a result counts as by the matchers.
    fn outcome_of<T, E: 'static>(&self, result: &Result<T, E>) -> Outcome {
        match result {
            Ok(_) => Outcome::Success,
            Err(error) => self.judge(WorkError::new(error)),
        }
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

    /// Everything that is known of the circuit. Reading never changes it; in bounded mode what this process has counted is
    /// flushed first, so that it is in it. While the store is down this is the process's own record, and says so.
    ///
    /// # Errors
    /// [`Error`] when the record cannot be read, or the store is down and the policy keeps no local record.
    ///
    /// # Cancel safety
    /// It only reads.
    pub async fn information(&self) -> Result<Information, Error> {
        if self.node.bounded.is_some() {
            let (node, circuit) = (self.node.clone(), self.circuit.clone());
            // So that what ended here is in it. Where it cannot be flushed the look will say why.
            let _ = self.node.tasks.spawn(async move { bounded::flush(&node, &circuit).await }).await;
        }
        let mut information = match self.node.ask(&self.circuit, Operation::Inspect).await? {
            Asked::Shared(Answer::Inspected(information)) => *information,
            Asked::Local(Answer::Inspected(information)) => {
                let mut information = Information { local: true, ..*information };
                information.explanation += " So says this process's own record; the store was not asked.";
                information
            }
            Asked::Nobody => return Err(self.store_down()),
            Asked::Shared(_) | Asked::Local(_) => return Err(self.wrong_answer()),
        };
        ballot::look(&self.node, &self.circuit, &mut information).await?;
        Ok(information)
    }

    /// Says in a short paragraph, in English, what the circuit does, why, and until when; see [`Information::explain`].
    ///
    /// # Errors
    /// As [`Breaker::information`].
    ///
    /// # Cancel safety
    /// It only reads.
    ///
    /// # Example
    /// ```
    /// # use circuitry::{Context, Factory, Outcome, Settings};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let factory = Factory::new(Settings::builder().failure_count_threshold(0).build()?).await?;
    /// let breaker = factory.breaker_for("emails", &Context::tenant("acme"));
    /// breaker.start().await?.end(Outcome::Failure).await?;
    /// let told = breaker.explain().await?;
    /// assert!(told.starts_with("Circuit emails/acme is open"), "{told}");
    /// # Ok(()) }
    /// ```
    pub async fn explain(&self) -> Result<String, Error> {
        Ok(self.information().await?.explanation)
    }

    /// Forces the circuit for the whole fleet, or takes the force away with `None`; says what was in force before (where
    /// an answer was lost on the way, that may be the override just set).
    ///
    /// An override stands above everything else: the state, the ramp of a circuit that has recovered, and with a quorum the
    /// node's own record.
    ///
    /// # Errors
    /// [`Error`] when it could not be stored; it is never kept in this process only. Where the answer was lost it may have been
    /// stored all the same: [`Breaker::information`] tells.
    ///
    /// # Cancel safety
    /// The exchange runs on; whether it was stored is then not told.
    pub async fn set_override(&self, wanted: Option<Override>) -> Result<Option<Override>, Error> {
        match self.ask_shared(Operation::SetOverride(wanted)).await? {
            Answer::Overridden { previous } => Ok(previous),
            _ => Err(self.wrong_answer()),
        }
    }

    /// Closes the circuit for the whole fleet as if it were new, whatever its state: no counts, no votes, no trips in a row, no
    /// ramp and no override. Says which override was in force before.
    ///
    /// What was started before does not count any more. It is a transition, of the reason
    /// [`Reset`](crate::TransitionReason::Reset), also where the circuit was closed.
    ///
    /// # Errors
    /// [`Error`] when it could not be stored; it is never done in this process only. Where the answer was lost it may have been
    /// stored all the same.
    ///
    /// # Cancel safety
    /// The exchange runs on; whether it was stored is then not told.
    pub async fn reset(&self) -> Result<Option<Override>, Error> {
        match self.ask_shared(Operation::Reset).await? {
            Answer::Cleared { previous, .. } => Ok(previous),
            _ => Err(self.wrong_answer()),
        }
    }

    /// Asks the shared record and nothing else, to the end also without the caller, and tells what that changed.
    async fn ask_shared(&self, operation: Operation) -> Result<Answer, Error> {
        let (node, circuit) = (self.node.clone(), self.circuit.clone());
        let exchange = Finishing::new(&self.node.tasks, async move {
            let answer = node.ask_shared(&circuit, operation).await;
            if let Ok(Answer::Cleared { transitions, .. }) = &answer {
                announce(&node.settings, &circuit, transitions, false);
            }
            answer
        });
        let answer = exchange.await.unwrap_or_else(|cut_off| Err(Problem::Component(cut_off)));
        answer.map_err(|problem| Error::new(&self.circuit.name, problem))
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
        Error::new(&self.circuit.name, wrong_answer())
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
