//! Whether the core says what the model says, within what the contract leaves open.

use std::fmt::Debug;

use circuitry_core::request::Information;
use circuitry_core::settings::Window;
use circuitry_core::{Answer, Error, Settings, TripRule};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::model::{Model, Reply};

/// The error as the model would say it; there is no other where arguments and bytes are sound.
pub(crate) fn refused(error: &Error) -> Option<Reply> {
    match error {
        Error::Forgotten => Some(Reply::Forgotten),
        Error::Request(_) => Some(Reply::BadRequest),
        _ => None,
    }
}

/// Compares the answers to one call.
pub(crate) fn answers(
    core: &Answer,
    model: &Reply,
    shown: Option<&Model>,
    now: u64,
) -> Result<(), TestCaseError> {
    match (core, model) {
        (Answer::Inspected(core), Reply::Answer(Answer::Inspected(model))) => {
            information(core, model, shown, now)
        }
        // How many votes opened it is not told again once it opened anew, see `told.rs`.
        (
            Answer::Voted { already_applied: true, transitions, .. },
            Reply::Answer(Answer::Voted { already_applied: true, transitions: expected, .. }),
        ) if !transitions.is_empty() => same(transitions, expected),
        (core, Reply::Answer(model)) => same(&spelt_out(core.clone()), &spelt_out(model.clone())),
        (core, model) => Err(TestCaseError::fail(format!("{core:?}, but the model answers {model:?}"))),
    }
}

/// The same settings with nothing left out: what is by default may be said or not.
pub(crate) fn explicit(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if settings.trip_rules.is_empty() {
        settings.trip_rules.push(TripRule::ConsecutiveFailures { minimum_calls: 0 });
    }
    settings.probes = settings.probes.or(Some(settings.close_threshold));
    settings.probes_at_once = settings.probes_at_once.or(settings.probes);
    settings
}

fn spelt_out(answer: Answer) -> Answer {
    match answer {
        Answer::Started { verdict, transitions, settings_in_force } => {
            let settings_in_force = settings_in_force.map(|settings| Box::new(explicit(&settings)));
            Answer::Started { verdict, transitions, settings_in_force }
        }
        other => other,
    }
}

/// Compares what is shown: probes in any order, words apart, decaying weights as near as whole numbers are, and of several
/// next changes any.
pub(crate) fn information(
    core: &Information,
    model: &Information,
    shown: Option<&Model>,
    now: u64,
) -> Result<(), TestCaseError> {
    // What follows an overdue phase is shown by the settings of who asks, see `told.rs`.
    if model.settings_differ && shown.is_some_and(|shown| shown.is_overdue(now)) {
        return Ok(());
    }
    let mut said = core.clone();
    said.probes.sort_unstable_by_key(|probe| (probe.id.node, probe.id.sequence));
    prop_assert!(!said.explanation.is_empty());
    said.explanation.clear();
    prop_assert_eq!(said.rules.len(), model.rules.len());
    for (said, expected) in said.rules.iter_mut().zip(&model.rules) {
        let Some(Window::Decaying(_)) = said.rule.windowed().map(|rule| rule.window) else { continue };
        let close = |said: u64, expected: u64| said.abs_diff(expected) <= 1 + expected / 500;
        prop_assert!(close(said.calls, expected.calls), "{:?} but {:?}", said, expected);
        // The share of less than a call says nothing.
        let rate = !matches!(said.rule, TripRule::FailureCount(_));
        let observed = close(said.observed, expected.observed) || (rate && expected.calls == 0);
        prop_assert!(observed, "{:?} but {:?}", said, expected);
        (said.calls, said.observed) = (expected.calls, expected.observed);
    }
    if let (Some(next), Some(shown)) = (said.next_change, shown) {
        let ahead = shown.effective(now).changes_ahead(now);
        let soonest = ahead.first().map(|first| first.at_ms);
        prop_assert_eq!(Some(next.at_ms), soonest, "of {:?}", &ahead);
        prop_assert!(ahead.contains(&next), "{:?} of {:?}", next, ahead);
        said.next_change = model.next_change;
    }
    if !model.settings_differ {
        // Settings that are alike are shown with the revision of who asks, see `told.rs`.
        said.settings_in_force.settings_revision = model.settings_in_force.settings_revision;
    }
    said.settings_in_force = explicit(&said.settings_in_force);
    let settings_in_force = explicit(&model.settings_in_force);
    same(&said, &Information { settings_in_force, ..model.clone() })
}

/// Says in which lines they differ: a settings value alone has fifty.
fn same<T: PartialEq + Debug>(core: &T, model: &T) -> Result<(), TestCaseError> {
    if core == model {
        return Ok(());
    }
    let (core, model) = (format!("{core:#?}"), format!("{model:#?}"));
    let only = |these: &str, those: &str| {
        let those: Vec<&str> = those.lines().collect();
        these.lines().filter(|line| !those.contains(line)).map(str::trim).collect::<Vec<_>>().join(" ")
    };
    let differs = (only(&core, &model), only(&model, &core));
    Err(TestCaseError::fail(format!("the core: {}\nthe model: {}\n\n{core}\n{model}", differs.0, differs.1)))
}
