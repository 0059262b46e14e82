//! From one record on: it can be shown, and a caller who waits as told and succeeds gets the circuit closed.

use circuitry_core::record::{OverrideKind, Record, State, Status, Token};
use circuitry_core::request::{Information, JudgedBy, Operation, Permit, Verdict};
use circuitry_core::{Answer, Caller, Completion, Decision, Entry, Loaded, Outcome, Settings, decide};

use crate::archive::{Broken, NoHooks};
use crate::calls::request;

/// Nobody else has this number.
const COOPERATIVE: u64 = 200;
/// More than any circuit here needs: some waits, and each probe once.
const CALLS_MAX: u64 = 40;

/// One caller who is alone with the store.
struct Alone<'a> {
    settings: &'a Settings,
    entry: Entry,
    now_ms: u64,
    calls: u64,
}

impl Alone<'_> {
    fn ask(&mut self, operation: impl FnOnce(Caller) -> Operation) -> Result<Answer, Broken> {
        self.calls += 1;
        let caller = Caller { token: Token { node: COOPERATIVE, sequence: self.calls }, retry_of: None };
        let request = request(self.settings, operation(caller));
        let loaded = Loaded { entry: Some(self.entry.clone()), now_ms: None };
        match decide(&request, &loaded, self.now_ms, &mut NoHooks) {
            Ok(Decision::Done(answer)) => Ok(answer),
            Ok(Decision::Write(write)) => {
                self.entry.value = write.value;
                Ok(write.answer_if_stored)
            }
            Err(error) => Err(format!("property 6: {error:?} to {request:?}")),
        }
    }

    fn look(&mut self) -> Result<Box<Information>, Broken> {
        match self.ask(|_| Operation::Inspect)? {
            Answer::Inspected(information) => Ok(information),
            other => Err(format!("{other:?} is no answer to a look")),
        }
    }

    fn succeed(&mut self, permit: Permit) -> Result<(), Broken> {
        let completion = Completion {
            era: permit.era,
            probe: permit.probe.map(|probe| probe.id),
            outcome: Outcome::Success,
            slow: false,
            count: 1,
            retry_after_ms: None,
        };
        self.ask(|caller| Operation::End(caller, vec![completion])).map(|_| ())
    }
}

/// Property 3: waits as told, starts, succeeds; takes away an override without end.
pub(crate) fn check_way_out(settings: &Settings, entry: &Entry, now_ms: u64) -> Result<(), Broken> {
    let mut alone = Alone { settings, entry: entry.clone(), now_ms, calls: 0 };
    while alone.calls < CALLS_MAX {
        match alone.look()?.override_in_force {
            Some(set) if set.until_ms.is_none() => {
                alone.ask(|caller| Operation::SetOverride(caller, None))?;
            }
            // Nobody is told to wait where everybody is admitted.
            Some(set) if set.kind != OverrideKind::ForcedOpen => alone.now_ms = set.until_ms.unwrap(),
            _ => {}
        }
        let Answer::Started { verdict, .. } = alone.ask(Operation::Start)? else {
            return Err("another answer than to a start".into());
        };
        match verdict {
            Verdict::Refusal(refusal) if refusal.retry_after_ms == 0 => {
                return Err("property 3: told to come back at once".into());
            }
            Verdict::Refusal(refusal) => alone.now_ms += refusal.retry_after_ms,
            Verdict::Permit(permit) if permit.probe.is_some() => alone.succeed(permit)?,
            Verdict::Permit(permit) => {
                let is_closed = alone.look()?.state == State::Closed;
                return if is_closed && permit.judged_by != JudgedBy::Nobody {
                    Ok(())
                } else {
                    Err(format!("property 3: {permit:?} was given without an override or a closed circuit"))
                };
            }
        }
    }
    Err("property 3: there is no way out".into())
}

/// A look writes nothing, fails never, and shows what a start would find.
pub(crate) fn check_shown(
    settings: &Settings,
    entry: &Entry,
    record: &Record,
    now_ms: u64,
) -> Result<(), Broken> {
    let mut alone = Alone { settings, entry: entry.clone(), now_ms, calls: 0 };
    let shown = alone.look()?;
    if alone.entry != *entry {
        return Err("looking at a circuit changed it".into());
    }
    let overdue = settings.half_open_limit.is_some_and(|limit| record.since_ms + limit.after_ms <= now_ms);
    let is_right = match record.status {
        Status::Open { expires_at_ms } if expires_at_ms <= now_ms => shown.state == State::HalfOpen,
        Status::HalfOpen { .. } if overdue => true,
        _ => shown.state == record.status.state(),
    };
    if is_right && (shown.era, shown.revision) == (record.era, record.revision) {
        Ok(())
    } else {
        Err(format!("{shown:?} is shown of {record:?}"))
    }
}
