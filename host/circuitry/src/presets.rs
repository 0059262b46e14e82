//! Settings for who comes from another circuit breaker: [`Settings::like_resilience4j`], [`Settings::like_polly`] and
//! [`Settings::like_gobreaker`] begin a builder with the defaults of those libraries. Each setting can still be given once.
//!
//! | | resilience4j 2 | Polly 8 | sony/gobreaker 2 |
//! |---|---|---|---|
//! | trips | failure rate ≥ 50 % of the last 100 calls, from 100 calls on; slow calls (over 60 s) ≥ 100 % | failure ratio ≥ 10 % in 30 s, from 100 calls on | more than 5 failures in a row |
//! | here | [`TripRule::FailureRate`] and [`TripRule::SlowCallRate`] over [`Window::Calls`] | [`TripRule::FailureRate`] over [`Window::Time`] | [`TripRule::ConsecutiveFailures`] |
//! | open | `waitDurationInOpenState` 60 s | `BreakDuration` 5 s | `Timeout` 60 s |
//! | here | `allow_after` | `allow_after` | `allow_after` |
//! | half-open | 10 calls; closes when less than 50 % of them failed | one call | `MaxRequests` 1 |
//! | here | `probes` 10, `close_threshold` 6 | `close_threshold` 1 | `close_threshold` 1 |
//! | counts cleared | they slide | they slide | `Interval` 0: only by a change of state |
//! | here | the same | the same | `cyclic_clear_after` is not set |
//!
//! What means something else here:
//!
//! | there | here |
//! |---|---|
//! | resilience4j evaluates its rates after each call, so a success that completes the minimum can open the circuit | a rule of failures is asked after failures, one of slow calls after slow calls: the next of these opens it |
//! | resilience4j decides half-open when all 10 calls have ended | it decides as soon as it is certain: closes with the sixth success, opens with the fifth failure |
//! | resilience4j in half-open opens only if 100 % of the calls were slow | a slow probe is a failed probe |
//! | Polly keeps 10 buckets of its sampling time | 20 |
//! | Polly admits another probe when a break duration has passed since the last | when the probe's lease has ended; the lease is as long, and is renewed while the work runs |
//! | Polly counts what it does not handle, a cancel for example, as a success | a cancel is ignored: neutral |
//! | gobreaker counts a panic of the work as a failure | a permit that is dropped, by a panic too, is ignored |
//! | gobreaker's half-open hangs for ever if a probe never ends | the probe's lease ends (`probe_timeout`, 30 s) |
//! | gobreaker zeroes its counts when a probe fails | they stay, with their generation |
//! | gobreaker drops the outcomes of calls that began before an `Interval` was over | a cyclic clear is no new era: they count |
//! | each process has a circuit of its own | the fleet shares it |

use std::time::Duration;

use crate::policy::{TripRule, Window};
use crate::settings::{Settings, SettingsBuilder};

impl Settings {
    /// Begins with the defaults of resilience4j 2 (`CircuitBreakerConfig.ofDefaults()`).
    ///
    /// # Example
    /// ```
    /// # use circuitry::Settings;
    /// let settings = Settings::like_resilience4j().settings_revision(1).build()?;
    /// # let _ = settings; Ok::<(), circuitry::SettingsError>(())
    /// ```
    pub fn like_resilience4j() -> SettingsBuilder {
        let (window, minimum_calls) = (Window::Calls(100), 100);
        Self::builder()
            .trip_rules([
                TripRule::FailureRate { per_mille: 500, window, minimum_calls },
                TripRule::SlowCallRate { per_mille: 1_000, window, minimum_calls },
            ])
            .slow_call_after(Duration::from_secs(60))
            .allow_after(Duration::from_secs(60))
            .probes(10)
            .close_threshold(6)
            .into_defaults()
    }

    /// Begins with the defaults of Polly 8 (`CircuitBreakerStrategyOptions`).
    ///
    /// # Example
    /// ```
    /// # use circuitry::Settings;
    /// # use std::time::Duration;
    /// let settings = Settings::like_polly().allow_after(Duration::from_secs(30)).build()?;
    /// # let _ = settings; Ok::<(), circuitry::SettingsError>(())
    /// ```
    pub fn like_polly() -> SettingsBuilder {
        let break_duration = Duration::from_secs(5);
        let window = Window::Time(Duration::from_secs(30));
        Self::builder()
            .trip_rules([TripRule::FailureRate { per_mille: 100, window, minimum_calls: 100 }])
            .allow_after(break_duration)
            .probe_timeout(break_duration)
            .close_threshold(1)
            .into_defaults()
    }

    /// Begins with the defaults of sony/gobreaker 2 (`Settings{}`), which are the reference's rule.
    ///
    /// # Example
    /// ```
    /// # use circuitry::Settings;
    /// let settings = Settings::like_gobreaker().close_threshold(3).build()?;
    /// # let _ = settings; Ok::<(), circuitry::SettingsError>(())
    /// ```
    pub fn like_gobreaker() -> SettingsBuilder {
        Self::builder()
            .failure_count_threshold(5)
            .close_threshold(1)
            .allow_after(Duration::from_secs(60))
            .into_defaults()
    }
}
