//! The report: what the suites have left, into the README's tables and plots.
//!
//! - `results`: the files of the suites
//! - `tables`: their figures as Markdown
//! - `readme`: the places between markers that are written anew
//! - `plots`: figures as SVG
//!
//! Invariant: a number in the README comes from a results file. What no file has is told as not measured.

mod plots;
mod readme;
mod results;
mod tables;

use std::fs;
use std::io;
use std::path::Path;

pub use readme::ReadmeError;
pub use results::Results;

/// Reads the results in `folder` and writes the tables of `benches/README.md` and the plots beside it anew.
///
/// # Errors
/// When a file cannot be read or written, or the README lacks a place for a table.
pub fn write(folder: &Path, benches: &Path) -> io::Result<()> {
    let results = Results::read(folder)?;
    let file = benches.join("README.md");
    let text = fs::read_to_string(&file)?;
    let written = readme::replace(&text, &tables::all(&results)).map_err(io::Error::other)?;
    fs::write(&file, written)?;
    let plots = benches.join("plots");
    fs::create_dir_all(&plots)?;
    for (name, svg) in plots::all(&results) {
        fs::write(plots.join(format!("{name}.svg")), svg)?;
    }
    Ok(())
}
