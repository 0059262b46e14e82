//! Each rule alone, against an oracle that keeps every call and looks at all of them after each.

use circuitry_core::record::TransitionReason;
use circuitry_core::settings::Window;
use circuitry_core::{Completion, Outcome, Settings, TripRule};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::cases;
use crate::hooks::OwnRule;
use crate::model::calls::{Calls, Opinion, Seen, look};
use crate::moves::{jump, outcome, times};
use crate::plans::{Kind, calls_window, decaying_window, time_window, windowed};
use crate::script::Script;

/// How far the clock jumps: in milliseconds, or in fortieths of the window and a little.
#[derive(Clone, Copy, Debug)]
enum Hop {
    Ms(i64),
    Window(i64, i64),
}

impl Hop {
    fn after(self, now: u64, window: Option<Window>) -> u64 {
        let length = match window {
            Some(Window::Time(length) | Window::Decaying(length)) => i128::from(length),
            Some(Window::Calls(_)) | None => 1_000,
        };
        let by = match self {
            Self::Ms(ms) => i128::from(ms),
            Self::Window(fortieths, more) => length * i128::from(fortieths) / 40 + i128::from(more),
        };
        // Eras go on growing to the end of time.
        u64::try_from((i128::from(now) + by).clamp(0, i128::from(u64::MAX - 10_000))).unwrap()
    }
}

/// One run of calls, a hop after the one before.
#[derive(Clone, Debug)]
struct Ended {
    hop: Hop,
    outcome: Outcome,
    slow: bool,
    times: u32,
}

fn ended() -> impl Strategy<Value = Ended> {
    let hop = prop_oneof![
        4 => Just(Hop::Ms(0)),
        3 => jump().prop_map(|clock| Hop::Ms(clock.0)),
        6 => (0..12_i64, -1..2_i64).prop_map(|(parts, more)| Hop::Window(parts, more)),
        2 => (12..90_i64, -1..2_i64).prop_map(|(parts, more)| Hop::Window(parts, more)),
        2 => (-60..0_i64, -1..2_i64).prop_map(|(parts, more)| Hop::Window(parts, more)),
    ];
    // A run of 65,536 looked at call by call is a test of patience.
    let times = times().prop_map(|times| times.min(300));
    (hop, outcome(), proptest::bool::weighted(0.4), times).prop_map(|(hop, outcome, slow, times)| Ended {
        hop,
        outcome,
        slow,
        times,
    })
}

fn sequence() -> impl Strategy<Value = (u64, Vec<Ended>)> {
    let now = prop_oneof![6 => Just(1_800_000_000_000), 1 => 0..1_000_u64, 1 => Just(u64::MAX / 2)];
    (now, vec(ended(), 1..30))
}

/// What the oracle keeps: every call of this stay in closed, one by one.
struct Oracle {
    settings: Settings,
    kept: Vec<Calls>,
}

impl Oracle {
    fn rule(&self) -> &TripRule {
        &self.settings.trip_rules[0]
    }

    fn count(&mut self, call: Calls) {
        self.kept.push(call);
    }

    fn counted(&self, of: impl Fn(&Calls) -> bool) -> u64 {
        self.kept.iter().filter(|call| of(call)).count() as u64
    }

    fn in_a_row(&self) -> u64 {
        self.kept.iter().rev().take_while(|call| call.failed).count() as u64
    }

    fn seen(&self) -> Seen {
        self.rule().windowed().map_or_else(Seen::default, |rule| look(rule.window, &self.kept, None))
    }

    /// Asked after the newest call, if it counts against the circuit.
    fn opinion(&self, call: Calls) -> Opinion {
        let yes = |yes: bool| if yes { Opinion::Yes } else { Opinion::No };
        match self.rule() {
            TripRule::SlowCallRate(_) if !call.slow => Opinion::No,
            rule if !call.failed && !matches!(rule, TripRule::SlowCallRate(_)) => Opinion::No,
            TripRule::ConsecutiveFailures { minimum_calls } => yes(self.in_a_row()
                > self.settings.failure_count_threshold
                && self.kept.len() as u64 >= u64::from(*minimum_calls)),
            TripRule::Custom(own) => {
                let counts = circuitry_core::record::Counts {
                    total: self.kept.len() as u64,
                    total_failures: self.counted(|call| call.failed),
                    ..Default::default()
                };
                yes(OwnRule::named(&own.name).trips(counts))
            }
            rule => self.seen().opinion(rule, rule.windowed().unwrap()),
        }
    }
}

/// Plays the runs on a circuit with this rule alone; a trip is followed by a reset.
fn agrees(rule: TripRule, bears: u64, (now, runs): (u64, Vec<Ended>)) -> Result<(), TestCaseError> {
    let window = rule.windowed().map(|rule| rule.window);
    let settings = Settings {
        failure_count_threshold: bears,
        trip_rules: vec![rule],
        slow_call_after_ms: Some(100),
        ..Settings::default()
    };
    let mut script = Script::new(settings.clone());
    script.now = now;
    let mut era = script.start().unwrap().era;
    let mut oracle = Oracle { settings, kept: vec![] };
    for Ended { hop, outcome, slow, times } in runs {
        script.now = hop.after(script.now, window);
        let run = Completion { era, probe: None, outcome, slow, count: times, retry_after_ms: None };
        let (dispositions, transitions) = script.end(&[run]);
        let accepted = dispositions[0].accepted;
        let tripped = transitions.iter().any(|change| change.reason == TransitionReason::Tripped);
        if outcome == Outcome::Ignored {
            prop_assert_eq!((accepted, tripped), (times, false));
            continue;
        }
        let call = Calls { era: 0, at: script.now, failed: outcome == Outcome::Failure, slow, times: 1 };
        let mut expected = None;
        for one in 1..=times {
            oracle.count(call);
            let opinion = oracle.opinion(call);
            if opinion == Opinion::Yes || opinion == Opinion::Either && tripped && accepted == one {
                expected = Some(one);
                break;
            }
        }
        prop_assert_eq!(tripped.then_some(accepted), expected, "of {:?} at {}", &run, script.now);
        let Some(accepted) = expected else {
            prop_assert_eq!(dispositions[0].stale, 0);
            continue;
        };
        prop_assert_eq!(dispositions[0].stale, times - accepted);
        let (trip, seen) = (script.record().last_trip.unwrap(), oracle.seen());
        if window.is_some() && !seen.rounded {
            let found = seen.found(oracle.rule()) as u64;
            prop_assert_eq!((trip.observed, trip.calls), (found, seen.calls as u64));
        } else if window.is_none() {
            prop_assert_eq!((trip.observed, trip.calls), (oracle.in_a_row(), oracle.kept.len() as u64));
        }
        script.reset();
        oracle.kept.clear();
        era = script.record().era;
    }
    Ok(())
}

macro_rules! alone {
    ($($kind:ident: $rule:expr;)*) => {
        mod each_rule_alone_trips_as_an_oracle_that_keeps_every_call {
            use super::*;

            proptest! {
                #![proptest_config(cases(2_000))]
                $(
                    #[test]
                    fn $kind(rule in $rule, bears in 0..6_u64, sequence in sequence()) {
                        agrees(rule, bears, sequence)?;
                    }
                )*
            }
        }
    };
}

alone! {
    failure_count_over_calls: windowed(Kind::Count, calls_window());
    failure_count_over_time: windowed(Kind::Count, time_window());
    failure_count_decaying: windowed(Kind::Count, decaying_window());
    failure_rate_over_calls: windowed(Kind::FailureRate, calls_window());
    failure_rate_over_time: windowed(Kind::FailureRate, time_window());
    failure_rate_decaying: windowed(Kind::FailureRate, decaying_window());
    slow_call_rate_over_calls: windowed(Kind::SlowCallRate, calls_window());
    slow_call_rate_over_time: windowed(Kind::SlowCallRate, time_window());
    slow_call_rate_decaying: windowed(Kind::SlowCallRate, decaying_window());
    consecutive_failures: (0..20_u32).prop_map(|minimum_calls| TripRule::ConsecutiveFailures { minimum_calls });
    custom: proptest::sample::select(&OwnRule::ALL[..]).prop_map(|own| TripRule::Custom(own.custom()));
}
