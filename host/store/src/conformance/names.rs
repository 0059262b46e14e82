//! Rules of names.

use super::{Harness, load, lose, present, write};
use crate::error::StoreError;
use crate::store::{NAME_MAX_BYTES, Store};

/// Names that a protocol, a query language, a path or a template might take for something else, and names that differ
/// in what a store might fold or trim.
pub(super) fn hostile_names() -> Vec<String> {
    let short = [
        "a",
        "A",
        "a ",
        " a",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "a\0",
        "a\0b",
        "\0a",
        "\u{1}",
        "\u{7f}",
        "\u{feff}a",
        "{}",
        "{a}",
        "{a}b",
        "a{",
        "}a",
        "{{}}",
        ":",
        "::",
        "a:",
        ":a",
        "a:b",
        "/",
        "//",
        "a/",
        "/a",
        "a/b",
        "*",
        "a*",
        "?",
        "[a]",
        "[^a]",
        "\\",
        "\\*",
        "\\0",
        ".",
        "..",
        "../a",
        "../../etc/passwd",
        "./a",
        "C:\\a",
        "~",
        "~a",
        "$a",
        "${a}",
        "#a",
        "%",
        "%00",
        "%2F",
        "%2f",
        "a+b",
        "a&b=c",
        "'",
        "\"",
        "''",
        "'; DROP TABLE a; --",
        "`a`",
        "<a>",
        "a|b",
        "a;b",
        "a,b",
        "(a)",
        "@a",
        "!a",
        "^",
        "-",
        "--",
        "_",
        "0",
        "00",
        "-1",
        "1e3",
        "null",
        "nil",
        "None",
        "undefined",
        "true",
        "__proto__",
        "constructor",
        "version",
        "value",
        "EVAL return 1 0",
        "$3\r\nGET\r\n",
        "é",
        "e\u{301}",
        "ß",
        "ss",
        "İ",
        "i",
        "ı",
        "ﬁ",
        "fi",
        "日本",
        "\u{202e}a",
        "🦀",
        "🦀🦀",
        "👩\u{200d}🚀",
        "👩🚀",
        "\u{10ffff}",
    ];
    let mut names: Vec<String> = short.into_iter().map(str::to_owned).collect();
    // The longest names, which differ in the last byte only, and the next to longest.
    for long in ["x", "/", "é", "🦀", "\0"] {
        names.push(long.repeat(NAME_MAX_BYTES / long.len()));
    }
    names.push("x".repeat(NAME_MAX_BYTES - 1));
    names.push(format!("{}y", "x".repeat(NAME_MAX_BYTES - 1)));
    names
}

/// Any name of 1 to 1,024 bytes is taken as it is, and no two of them share an entry.
pub async fn hostile_names_are_opaque(harness: &impl Harness) {
    let store = harness.open().await;
    let names = hostile_names();
    for (index, name) in names.iter().enumerate() {
        let found = load(&*store, name).await.entry;
        assert_eq!(found, None, "{name:?} has an entry that another name wrote");
        write(&*store, name, None, format!("{index} {name}").as_bytes(), None).await;
    }
    for (index, name) in names.iter().enumerate() {
        let value = format!("{index} {name}").into_bytes();
        let entry = present(load(&*store, name).await, "its name wrote it");
        assert!(entry.value == value, "{name:?} has the entry of another name");
        let brought = present(lose(&*store, name, None).await, "its name wrote it");
        assert!(brought == entry, "{name:?} is another circuit to swap than it is to load");
        write(&*store, name, Some(&entry.version), &value, None).await;
    }
}

/// An empty name and one of 1,025 bytes are refused as [`StoreError::Other`], by load and swap.
pub async fn names_out_of_bounds_are_refused(harness: &impl Harness) {
    let store = harness.open().await;
    let refused = |operation: &str, name: &str, answer: Result<(), StoreError>| match answer {
        Err(StoreError::Other { .. }) => {}
        other => panic!("a {operation} of a name of {} bytes is refused as Other, not {other:?}", name.len()),
    };
    // 1,025 bytes are too many also where they are fewer characters.
    for name in
        ["".to_owned(), "x".repeat(NAME_MAX_BYTES + 1), format!("x{}", "🦀".repeat(NAME_MAX_BYTES / 4))]
    {
        refused("load", &name, store.load(&name).await.map(drop));
        refused("swap", &name, store.swap(&name, None, b"value", None).await.map(drop));
    }
}
