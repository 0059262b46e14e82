//! Reading of single variables: each fault names the variable and what would do.

use alloc::format;
use alloc::string::String;

/// The environment.
#[derive(Clone, Copy)]
pub(crate) struct Variables<'a>(pub(crate) &'a [(String, String)]);

impl<'a> Variables<'a> {
    /// The value of `name`. An empty one is as good as none: that is how a variable is unset where it cannot be removed.
    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0.iter().rfind(|(known, _)| known == name)?;
        let value = value.trim();
        (!value.is_empty()).then_some(value)
    }

    /// A number from `least` to `most`, if there is one.
    pub(crate) fn number(self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(format!("{name} is a whole number from {least} to {most}, not {text:?}")),
        }
    }

    /// A length in milliseconds, at least 1.
    pub(crate) fn milliseconds(self, name: &str, default: u64) -> Result<u64, String> {
        Ok(self.number(name, 1, LONGEST_MS)?.unwrap_or(default))
    }

    /// The same without a default.
    pub(crate) fn optional_milliseconds(self, name: &str) -> Result<Option<u64>, String> {
        self.number(name, 1, LONGEST_MS)
    }
}

/// A thousand years: longer ones are mistakes, and nanoseconds of this one still fit.
const LONGEST_MS: u64 = 10_000_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_none_and_the_last_of_a_name_stands() {
        let owned: Vec<_> = [("A", ""), ("B", "1"), ("B", " 2 ")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let variables = Variables(&owned);
        assert_eq!((variables.text("A"), variables.text("B"), variables.text("C")), (None, Some("2"), None));
        assert_eq!(variables.number("B", 1, 5), Ok(Some(2)));
        assert!(
            variables.number("B", 3, 5).is_err_and(|fault| fault.contains("B is a whole number from 3 to 5"))
        );
    }
}
