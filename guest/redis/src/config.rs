//! [`Config`]: what the environment says about the store.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use crate::address::Address;

const URL: &str = "CIRCUITRY_REDIS_URL";
const PREFIX: &str = "CIRCUITRY_REDIS_PREFIX";
const TIMEOUT: &str = "CIRCUITRY_STORE_TIMEOUT_MS";

const DEFAULT_PREFIX: &str = "circuitry:";
const DEFAULT_TIMEOUT_MS: u64 = 250;
const TIMEOUT_MAX_MS: u64 = 60_000;

/// Where circuits are, and how long an operation may take.
pub(crate) struct Config {
    pub(crate) address: Address,
    pub(crate) prefix: String,
    pub(crate) timeout_ms: u64,
}

impl Config {
    /// Reads the variables; those of others are not looked at.
    ///
    /// # Errors
    /// Which variable is wrong, and what would do.
    pub(crate) fn read(variables: &[(String, String)]) -> Result<Self, String> {
        // Of equal ones the last counts, and an empty one is one that is not set.
        let value = |name: &str| {
            let last = variables.iter().rfind(|(known, _)| known == name);
            last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let url = value(URL)
            .ok_or_else(|| format!("{URL} is not set: write it like redis://user:password@host:6379/0"))?;
        let address = Address::read(url).map_err(|fault| format!("{URL}: {fault}"))?;
        let timeout_ms = match value(TIMEOUT) {
            None => DEFAULT_TIMEOUT_MS,
            Some(text) => {
                text.parse().ok().filter(|ms| (1..=TIMEOUT_MAX_MS).contains(ms)).ok_or_else(|| {
                    format!("{TIMEOUT} is a number of milliseconds from 1 to {TIMEOUT_MAX_MS}")
                })?
            }
        };
        Ok(Self { address, prefix: value(PREFIX).unwrap_or(DEFAULT_PREFIX).to_owned(), timeout_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::read(&variables)
    }

    #[test]
    fn the_url_alone_is_needed() {
        let config = config(&[("CIRCUITRY_REDIS_URL", "redis://host"), ("CIRCUITRY_OTHER", "x")]).ok();
        let config = config.unwrap_or_else(|| panic!("this is enough"));
        assert_eq!((&*config.prefix, config.timeout_ms), ("circuitry:", 250));
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set_and_of_equal_ones_the_last_counts() {
        let url = ("CIRCUITRY_REDIS_URL", "redis://host");
        let (prefix, timeout) = (("CIRCUITRY_REDIS_PREFIX", ""), ("CIRCUITRY_STORE_TIMEOUT_MS", ""));
        let read = config(&[url, prefix, timeout]).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!((&*read.prefix, read.timeout_ms), ("circuitry:", 250));
        let one = ("CIRCUITRY_REDIS_PREFIX", "one:");
        let read = config(&[url, one, ("CIRCUITRY_REDIS_PREFIX", "two:")]);
        assert_eq!(read.unwrap_or_else(|fault| panic!("{fault}")).prefix, "two:");
        assert!(config(&[url, ("CIRCUITRY_REDIS_URL", "")]).is_err_and(|fault| fault.contains("is not set")));
    }

    #[test]
    fn a_variable_that_cannot_be_used_is_named() {
        let url = ("CIRCUITRY_REDIS_URL", "redis://host");
        for (variables, wanted) in [
            (vec![], "CIRCUITRY_REDIS_URL is not set"),
            (vec![("CIRCUITRY_REDIS_URL", "http://host")], "CIRCUITRY_REDIS_URL: the Redis URL"),
            (vec![url, ("CIRCUITRY_STORE_TIMEOUT_MS", "0")], "CIRCUITRY_STORE_TIMEOUT_MS is a number"),
            (vec![url, ("CIRCUITRY_STORE_TIMEOUT_MS", "1s")], "CIRCUITRY_STORE_TIMEOUT_MS is a number"),
        ] {
            let fault = config(&variables).err().unwrap_or_else(|| panic!("{variables:?} is taken"));
            assert!(fault.contains(wanted), "{fault}");
        }
    }
}
