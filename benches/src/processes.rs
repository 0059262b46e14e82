//! Two processes of one fleet on one machine: what they say to each other, and the clock that they share.
//!
//! The watcher is told a circuit a line, and answers each with `ready`, when it has seen the circuit closed, and then with the
//! moment of its first refusal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use circuitry::{Factory, Settings, SettingsBuilder};
use circuitry_redis::RedisStore;
use rustix::time::{ClockId, clock_gettime};

use crate::circuits::factory;
use crate::modes;
use crate::servers::redis_url;

/// How the watcher hears of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Every start reads.
    Strict,
    /// The bounded mode asks now and then.
    Polling,
    /// The bounded mode is told by Redis.
    Push,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Strict, Self::Polling, Self::Push];

    /// A factory on Redis, with keys under `prefix`, that hears of trips this way, and trips with the first failure; `None` where this build has no such
    /// way.
    ///
    /// # Panics
    /// Where there is no Redis.
    pub async fn factory(
        self,
        prefix: &str,
        change: impl FnOnce(SettingsBuilder) -> SettingsBuilder,
    ) -> Option<Factory> {
        let store = RedisStore::builder().prefix(prefix);
        let settings = Settings::builder().default_fallback_error_matcher().failure_count_threshold(0);
        let url = redis_url();
        let (settings, store) = match self {
            Self::Strict => (modes::strict(settings), modes::without_push(store, &url).await),
            Self::Polling => (modes::bounded(settings)?, modes::without_push(store, &url).await),
            Self::Push => (modes::bounded(settings)?, modes::with_push(store, &url).await?),
        };
        Some(factory(change(settings.store(store))).await)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Strict => "strict",
            Self::Polling => "polling",
            Self::Push => "push",
        })
    }
}

impl FromStr for Way {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|way| way.to_string() == text).ok_or_else(|| format!("no way: {text:?}"))
    }
}

/// The time since the machine was started, which all of its processes see alike and nobody sets.
pub fn machine_time() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
