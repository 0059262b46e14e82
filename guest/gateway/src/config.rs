//! [`Config`]: what the environment says about the gateway.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::headers::{is_hop_by_hop, is_token};
use crate::upstream::Upstreams;
use crate::variables::Variables;

/// Everything that can be set.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) upstreams: Upstreams,
    /// In lower case.
    pub(crate) tenant_header: Option<String>,
    pub(crate) failure_statuses: Statuses,
    pub(crate) limits: Limits,
    pub(crate) circuit: CircuitSettings,
    pub(crate) store_failure: StoreFailure,
    pub(crate) store_timeout_ms: u64,
}

/// How long the gateway waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For a connection to the upstream.
    pub(crate) connect_ms: u64,
    /// For the head of its answer, once it has the whole request.
    pub(crate) first_byte_ms: u64,
    /// For the next bytes of its answer.
    pub(crate) between_bytes_ms: u64,
    /// For a whole body, of the request or of the answer.
    pub(crate) body_ms: u64,
    /// For the client: the next bytes of its request, or that it takes more of the answer.
    pub(crate) client_ms: u64,
}

/// How circuits behave; as in `settings` of `wit/types.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitSettings {
    pub(crate) failure_count_threshold: u64,
    pub(crate) close_threshold: u32,
    pub(crate) allow_after_ms: u64,
    pub(crate) cyclic_clear_after_ms: Option<u64>,
    pub(crate) probe_timeout_ms: u64,
    pub(crate) idle_retention_ms: u64,
    pub(crate) settings_revision: u64,
    pub(crate) slow_call_after_ms: Option<u64>,
    pub(crate) retry_after_max_ms: u64,
    pub(crate) jitter_per_mille: u32,
    pub(crate) failure_rate: Option<FailureRate>,
}

/// A trip rule beside the one of the consecutive failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailureRate {
    pub(crate) per_mille: u32,
    pub(crate) minimum_calls: u32,
    pub(crate) window_ms: u64,
}

/// What becomes of requests when the store does not say what the circuit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreFailure {
    Admit,
    Refuse,
}

/// The default of `policies.retry-after-max-ms`.
pub(crate) const RETRY_AFTER_MAX_MS: u64 = 600_000;

impl Config {
    /// Reads the variables; those of others are not looked at.
    ///
    /// # Errors
    /// Which variable is wrong, and what would do.
    pub(crate) fn read(environment: &[(String, String)]) -> Result<Self, String> {
        let variables = Variables(environment);
        let upstreams = variables.text("CIRCUITRY_UPSTREAMS").ok_or(
            "CIRCUITRY_UPSTREAMS is not set: write it like \"billing=http://127.0.0.1:8081 /billing; \
             web=http://127.0.0.1:8080 /\"",
        )?;
        let upstreams =
            Upstreams::read(upstreams).map_err(|fault| format!("CIRCUITRY_UPSTREAMS: {fault}"))?;
        let tenant_header = match variables.text("CIRCUITRY_TENANT_HEADER") {
            Some(name) if !is_token(name) => {
                return Err(format!(
                    "CIRCUITRY_TENANT_HEADER is the name of a header such as X-Tenant, not {name:?}"
                ));
            }
            Some(name) if is_hop_by_hop(name) => {
                return Err(format!(
                    "CIRCUITRY_TENANT_HEADER cannot be {name}: it belongs to one connection, and is not shown to the gateway; \
                     name another header, such as X-Tenant"
                ));
            }
            name => name.map(str::to_ascii_lowercase),
        };
        let failure_statuses = variables.text("CIRCUITRY_FAILURE_STATUSES").unwrap_or("500-599");
        let store_failure = match variables.text("CIRCUITRY_STORE_FAILURE") {
            None | Some("admit") => StoreFailure::Admit,
            Some("refuse") => StoreFailure::Refuse,
            Some(other) => {
                return Err(format!("CIRCUITRY_STORE_FAILURE is \"admit\" or \"refuse\", not {other:?}"));
            }
        };
        Ok(Self {
            upstreams,
            tenant_header,
            failure_statuses: Statuses::read(failure_statuses)?,
            limits: Limits {
                connect_ms: variables.milliseconds("CIRCUITRY_CONNECT_TIMEOUT_MS", 1_000)?,
                first_byte_ms: variables.milliseconds("CIRCUITRY_FIRST_BYTE_TIMEOUT_MS", 30_000)?,
                between_bytes_ms: variables.milliseconds("CIRCUITRY_BETWEEN_BYTES_TIMEOUT_MS", 30_000)?,
                body_ms: variables.milliseconds("CIRCUITRY_BODY_TIMEOUT_MS", 300_000)?,
                client_ms: variables.milliseconds("CIRCUITRY_CLIENT_TIMEOUT_MS", 30_000)?,
            },
            circuit: CircuitSettings::read(variables)?,
            store_failure,
            store_timeout_ms: variables.number("CIRCUITRY_STORE_TIMEOUT_MS", 1, 60_000)?.unwrap_or(250),
        })
    }
}

impl CircuitSettings {
    fn read(variables: Variables<'_>) -> Result<Self, String> {
        let small = |name: &str, least: u32, most: u32| -> Result<Option<u32>, String> {
            let number = variables.number(name, least.into(), most.into())?;
            Ok(number.and_then(|number| u32::try_from(number).ok()))
        };
        let failure_rate = match small("CIRCUITRY_FAILURE_RATE_PER_MILLE", 1, 1_000)? {
            None => None,
            Some(per_mille) => Some(FailureRate {
                per_mille,
                minimum_calls: small("CIRCUITRY_FAILURE_RATE_MINIMUM_CALLS", 1, 1_000_000)?.unwrap_or(20),
                window_ms: variables.milliseconds("CIRCUITRY_FAILURE_RATE_WINDOW_MS", 60_000)?,
            }),
        };
        Ok(Self {
            failure_count_threshold: variables
                .number("CIRCUITRY_FAILURE_COUNT_THRESHOLD", 0, u64::MAX)?
                .unwrap_or(5),
            close_threshold: small("CIRCUITRY_CLOSE_THRESHOLD", 1, 64)?.unwrap_or(1),
            allow_after_ms: variables.milliseconds("CIRCUITRY_ALLOW_AFTER_MS", 60_000)?,
            cyclic_clear_after_ms: variables.optional_milliseconds("CIRCUITRY_CYCLIC_CLEAR_AFTER_MS")?,
            probe_timeout_ms: variables.milliseconds("CIRCUITRY_PROBE_TIMEOUT_MS", 30_000)?,
            idle_retention_ms: variables.milliseconds("CIRCUITRY_IDLE_RETENTION_MS", 86_400_000)?,
            settings_revision: variables.number("CIRCUITRY_SETTINGS_REVISION", 0, u64::MAX)?.unwrap_or(0),
            slow_call_after_ms: variables.optional_milliseconds("CIRCUITRY_SLOW_CALL_AFTER_MS")?,
            retry_after_max_ms: variables
                .number("CIRCUITRY_RETRY_AFTER_MAX_MS", 0, u64::MAX)?
                .unwrap_or(RETRY_AFTER_MAX_MS),
            jitter_per_mille: small("CIRCUITRY_JITTER_PER_MILLE", 0, 1_000)?.unwrap_or(0),
            failure_rate,
        })
    }

    /// Whether any of what `wit/` calls policies is set.
    pub(crate) fn has_policies(&self) -> bool {
        self.slow_call_after_ms.is_some()
            || self.retry_after_max_ms != RETRY_AFTER_MAX_MS
            || self.jitter_per_mille != 0
            || self.failure_rate.is_some()
    }
}

/// The statuses of answers that are failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    fn read(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let read = |part: &str| -> Option<(u16, u16)> {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
            (100 <= from && from <= to && to <= 599).then_some((from, to))
        };
        let ranges = text.split(',').map(read).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(|| {
            format!(
                "CIRCUITRY_FAILURE_STATUSES is a list such as \"500-599, 429\", or \"none\", not {text:?}"
            )
        })
    }

    /// Whether an answer with this status is a failure.
    pub(crate) fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAMS: (&str, &str) = ("CIRCUITRY_UPSTREAMS", "web=http://127.0.0.1:8080");

    fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
        let owned: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&owned)
    }

    #[test]
    fn the_upstreams_alone_are_needed() {
        let config = read(&[UPSTREAMS, ("PATH", "/bin")]).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(config.tenant_header, None);
        assert_eq!(config.store_failure, StoreFailure::Admit);
        assert!(config.failure_statuses.contain(500) && config.failure_statuses.contain(599));
        assert!(!config.failure_statuses.contain(499));
        assert_eq!(config.circuit.failure_count_threshold, 5);
        assert!(!config.circuit.has_policies());
    }

    #[test]
    fn what_is_set_stands() {
        let config = read(&[
            UPSTREAMS,
            ("CIRCUITRY_TENANT_HEADER", "X-Tenant"),
            ("CIRCUITRY_FAILURE_STATUSES", "503, 429"),
            ("CIRCUITRY_STORE_FAILURE", "refuse"),
            ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "0"),
            ("CIRCUITRY_FAILURE_RATE_PER_MILLE", "500"),
        ]);
        let config = config.unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(config.tenant_header.as_deref(), Some("x-tenant"));
        assert!(config.failure_statuses.contain(429) && !config.failure_statuses.contain(500));
        assert_eq!(config.store_failure, StoreFailure::Refuse);
        assert_eq!(config.circuit.failure_count_threshold, 0);
        let rate = FailureRate { per_mille: 500, minimum_calls: 20, window_ms: 60_000 };
        assert_eq!(config.circuit.failure_rate, Some(rate));
        assert!(config.circuit.has_policies());
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named_with_what_would_do() {
        assert!(read(&[]).is_err_and(|fault| fault.starts_with("CIRCUITRY_UPSTREAMS is not set")));
        for (name, value) in [
            ("CIRCUITRY_UPSTREAMS", "web"),
            ("CIRCUITRY_TENANT_HEADER", "X Tenant"),
            ("CIRCUITRY_TENANT_HEADER", "Host"),
            ("CIRCUITRY_TENANT_HEADER", "proxy-authorization"),
            ("CIRCUITRY_TENANT_HEADER", "Connection"),
            ("CIRCUITRY_FAILURE_STATUSES", "5xx"),
            ("CIRCUITRY_FAILURE_STATUSES", "599-500"),
            ("CIRCUITRY_FAILURE_STATUSES", "500-600"),
            ("CIRCUITRY_STORE_FAILURE", "local"),
            ("CIRCUITRY_CLOSE_THRESHOLD", "65"),
            ("CIRCUITRY_CLOSE_THRESHOLD", "4294967297"),
            ("CIRCUITRY_ALLOW_AFTER_MS", "0"),
            ("CIRCUITRY_CONNECT_TIMEOUT_MS", "1s"),
            ("CIRCUITRY_STORE_TIMEOUT_MS", "-1"),
        ] {
            let fault =
                read(&[UPSTREAMS, (name, value)]).err().unwrap_or_else(|| panic!("{name}={value} is taken"));
            assert!(fault.starts_with(name), "{fault}");
        }
    }
}
