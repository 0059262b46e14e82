//! The places in the README that are written anew: what stands between two markers of one name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What is wrong with the README's markers.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadmeError {
    /// A place begins and does not end.
    NoEnd(String),
    /// A place is for no table.
    NoTable(String),
    /// There is no place for a table.
    NoPlace(String),
}

impl fmt::Display for ReadmeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEnd(name) => {
                write!(formatter, "the figures {name:?} begin and do not end; write {END:?}")
            }
            Self::NoTable(name) => write!(formatter, "there are no figures called {name:?}"),
            Self::NoPlace(name) => {
                write!(formatter, "there is no place for {name:?}; write \"{}\" and {END:?}", begin(name))
            }
        }
    }
}

impl std::error::Error for ReadmeError {}

const BEGIN: &str = "<!-- figures:begin ";
const CLOSE: &str = " -->";
const END: &str = "<!-- figures:end -->";

fn begin(name: &str) -> String {
    format!("{BEGIN}{name}{CLOSE}")
}

/// `text` with the places between markers written anew; everything else is left as it is.
pub(super) fn replace(text: &str, tables: &BTreeMap<String, String>) -> Result<String, ReadmeError> {
    let mut written = String::new();
    let mut rest = text;
    let mut filled = BTreeSet::new();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(CLOSE).ok_or_else(|| ReadmeError::NoEnd(after.into()))?;
        let (old, after) = after.split_once(END).ok_or_else(|| ReadmeError::NoEnd(name.into()))?;
        if old.contains(BEGIN) {
            return Err(ReadmeError::NoEnd(name.into()));
        }
        let table = tables.get(name).ok_or_else(|| ReadmeError::NoTable(name.into()))?;
        filled.insert(name);
        written += before;
        written += &begin(name);
        written += "\n";
        written += table.trim_end();
        written += "\n";
        written += END;
        rest = after;
    }
    written += rest;
    match tables.keys().find(|name| !filled.contains(name.as_str())) {
        Some(name) => Err(ReadmeError::NoPlace(name.clone())),
        None => Ok(written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(texts: &[(&str, &str)]) -> BTreeMap<String, String> {
        texts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    const TEXT: &str = "# What it costs\n\n<!-- figures:begin a -->\nold\n<!-- figures:end -->\nIn between.\n\
                        <!-- figures:begin b -->\n<!-- figures:end -->\nAfter.\n";

    #[test]
    fn only_what_stands_between_markers_is_replaced_and_a_second_time_changes_nothing() {
        let tables = tables(&[("a", "| new |\n"), ("b", "| other |")]);
        let once = replace(TEXT, &tables).unwrap();
        assert_eq!(
            once,
            "# What it costs\n\n<!-- figures:begin a -->\n| new |\n<!-- figures:end -->\nIn between.\n\
             <!-- figures:begin b -->\n| other |\n<!-- figures:end -->\nAfter.\n"
        );
        assert_eq!(replace(&once, &tables).unwrap(), once);
    }

    #[test]
    fn a_table_without_a_place_and_a_place_without_a_table_are_errors() {
        let none = ReadmeError::NoPlace("c".into());
        assert_eq!(replace(TEXT, &tables(&[("a", ""), ("b", ""), ("c", "")])), Err(none));
        assert_eq!(replace(TEXT, &tables(&[("a", "")])), Err(ReadmeError::NoTable("b".into())));
    }

    #[test]
    fn a_place_that_does_not_end_is_an_error_and_swallows_nothing() {
        let text = "<!-- figures:begin a -->\nold\n<!-- figures:begin b -->\n<!-- figures:end -->\n";
        let tables = tables(&[("a", ""), ("b", "")]);
        assert_eq!(replace(text, &tables), Err(ReadmeError::NoEnd("a".into())));
        assert_eq!(replace("<!-- figures:begin a -->\n", &tables), Err(ReadmeError::NoEnd("a".into())));
    }
}
