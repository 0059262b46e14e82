//! Settings as a sequence of numbers and texts: what their fingerprint is made of, and what a record has of them.
//!
//! The sequence is the fields in their order, without `idle_retention_ms` and `settings_revision`. A list begins with its length, a
//! variant with the number of its case in the order of `wit/`, a policy that is absent is 0. All policies by default are one 0, else a
//! 1 comes before them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Reader, Writer};
use crate::digest::Digest;
use crate::settings::{
    Backoff, CustomRule, HalfOpenLimit, Overdue, Quorum, RAMP_STEPS_MAX, RULES_MAX, Ramp, Settings, TripRule,
    Window, WindowedRule,
};

/// What takes the sequence.
pub(crate) trait Sink {
    fn number(&mut self, number: u64);
    fn text(&mut self, text: &str);

    /// 0 for none, else 1 and the number.
    fn option(&mut self, number: Option<u64>) {
        self.number(number.is_some().into());
        if let Some(number) = number {
            self.number(number);
        }
    }
}

impl Sink for Digest {
    fn number(&mut self, number: u64) {
        Self::number(self, number);
    }

    fn text(&mut self, text: &str) {
        Self::text(self, text);
    }
}

impl Settings {
    /// A digest by which two processes tell that they have the same settings; without `idle_retention_ms` and
    /// `settings_revision`. See [`Digest`] for how it is made.
    pub fn fingerprint(&self) -> u64 {
        let mut digest = Digest::new();
        self.write(&mut digest);
        digest.finish()
    }

    /// The settings as a record has them: the sequence, and the revision.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new(Vec::with_capacity(96));
        self.write(&mut writer);
        writer.number(self.settings_revision);
        writer.into_bytes()
    }

    /// Reads what [`Settings::to_bytes`] wrote; `None` where it is something else.
    pub(crate) fn from_bytes(bytes: &[u8], idle_retention_ms: u64) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let settings = Self::read(&mut reader, idle_retention_ms)?;
        (reader.position() == bytes.len()).then_some(settings)
    }

    fn write(&self, sink: &mut impl Sink) {
        sink.number(self.failure_count_threshold);
        sink.number(self.close_threshold.into());
        sink.number(self.allow_after_ms);
        sink.option(self.cyclic_clear_after_ms);
        sink.number(self.probe_timeout_ms);
        if self.has_default_policies() {
            return sink.number(0);
        }
        sink.number(1);
        sink.number(self.rules().len() as u64);
        for rule in self.rules() {
            rule.write(sink);
        }
        sink.option(self.slow_call_after_ms);
        match &self.backoff {
            None => sink.number(0),
            Some(backoff) => {
                sink.number(1);
                sink.number(backoff.factor_per_mille.into());
                sink.number(backoff.max_ms);
                sink.number(backoff.healthy_after_ms);
            }
        }
        sink.number(self.jitter_per_mille.into());
        sink.number(self.retry_after_max_ms);
        sink.number(self.probes().into());
        sink.number(self.probes_at_once().into());
        match &self.half_open_limit {
            None => sink.number(0),
            Some(limit) => {
                sink.number(match limit.then {
                    Overdue::Opens => 1,
                    Overdue::Closes => 2,
                });
                sink.number(limit.after_ms);
            }
        }
        match &self.ramp {
            None => sink.number(0),
            Some(ramp) => {
                sink.number(ramp.steps_per_mille.len() as u64);
                for share in &ramp.steps_per_mille {
                    sink.number((*share).into());
                }
                sink.number(ramp.step_ms);
            }
        }
        match &self.quorum {
            None => sink.number(0),
            Some(quorum) => {
                sink.number(quorum.votes.into());
                sink.number(quorum.window_ms);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, idle_retention_ms: u64) -> Option<Self> {
        let failure_count_threshold = reader.number()?;
        let close_threshold = reader.small()?;
        let allow_after_ms = reader.number()?;
        let cyclic_clear_after_ms = reader.option()?;
        let probe_timeout_ms = reader.number()?;
        let basic = Self {
            failure_count_threshold,
            close_threshold,
            allow_after_ms,
            cyclic_clear_after_ms,
            probe_timeout_ms,
            idle_retention_ms,
            ..Self::default()
        };
        if reader.number()? == 0 {
            return Some(Self { settings_revision: reader.number()?, ..basic });
        }
        let rules = reader.length(RULES_MAX)?;
        let mut trip_rules = Vec::with_capacity(rules);
        for _ in 0..rules {
            trip_rules.push(TripRule::read(reader)?);
        }
        Some(Self {
            trip_rules,
            slow_call_after_ms: reader.option()?,
            backoff: match reader.number()? {
                0 => None,
                _ => Some(Backoff {
                    factor_per_mille: reader.small()?,
                    max_ms: reader.number()?,
                    healthy_after_ms: reader.number()?,
                }),
            },
            jitter_per_mille: reader.small()?,
            retry_after_max_ms: reader.number()?,
            probes: Some(reader.small()?),
            probes_at_once: Some(reader.small()?),
            half_open_limit: match reader.number()? {
                0 => None,
                1 => Some(HalfOpenLimit { then: Overdue::Opens, after_ms: reader.number()? }),
                _ => Some(HalfOpenLimit { then: Overdue::Closes, after_ms: reader.number()? }),
            },
            ramp: match reader.length(RAMP_STEPS_MAX)? {
                0 => None,
                steps => {
                    let mut steps_per_mille = Vec::with_capacity(steps);
                    for _ in 0..steps {
                        steps_per_mille.push(reader.small()?);
                    }
                    Some(Ramp { steps_per_mille, step_ms: reader.number()? })
                }
            },
            quorum: match reader.small()? {
                0 => None,
                votes => Some(Quorum { votes, window_ms: reader.number()? }),
            },
            settings_revision: reader.number()?,
            ..basic
        })
    }
}

impl WindowedRule {
    fn write(&self, sink: &mut impl Sink) {
        sink.number(self.threshold.into());
        sink.number(self.minimum_calls.into());
        let (kind, size) = match self.window {
            Window::Calls(calls) => (0, calls.into()),
            Window::Time(length_ms) => (1, length_ms),
            Window::Decaying(half_life_ms) => (2, half_life_ms),
        };
        sink.number(kind);
        sink.number(size);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (threshold, minimum_calls) = (reader.small()?, reader.small()?);
        let window = match reader.number()? {
            0 => Window::Calls(reader.small()?),
            1 => Window::Time(reader.number()?),
            2 => Window::Decaying(reader.number()?),
            _ => return None,
        };
        Some(Self { threshold, minimum_calls, window })
    }
}

impl TripRule {
    fn write(&self, sink: &mut impl Sink) {
        match self {
            Self::ConsecutiveFailures { minimum_calls } => {
                sink.number(0);
                sink.number((*minimum_calls).into());
            }
            Self::FailureCount(rule) => {
                sink.number(1);
                rule.write(sink);
            }
            Self::FailureRate(rule) => {
                sink.number(2);
                rule.write(sink);
            }
            Self::SlowCallRate(rule) => {
                sink.number(3);
                rule.write(sink);
            }
            Self::Custom(rule) => {
                sink.number(4);
                sink.text(&rule.name);
                sink.number(rule.version.into());
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(match reader.number()? {
            0 => Self::ConsecutiveFailures { minimum_calls: reader.small()? },
            1 => Self::FailureCount(WindowedRule::read(reader)?),
            2 => Self::FailureRate(WindowedRule::read(reader)?),
            3 => Self::SlowCallRate(WindowedRule::read(reader)?),
            4 => Self::Custom(CustomRule { name: String::from(reader.text()?), version: reader.small()? }),
            _ => return None,
        })
    }
}
