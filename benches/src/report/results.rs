//! [`Results`]: the files that the suites have left.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::run::Run;
use crate::suite::{Figure, Line};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// On what each suite was measured.
    pub runs: BTreeMap<String, Run>,
    /// All figures, in the order of the files.
    pub figures: Vec<Figure>,
    /// The values behind some.
    pub points: BTreeMap<String, Vec<f64>>,
}

impl Results {
    /// Reads the files of `folder`; a folder that is not there has none.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what a suite writes.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut results = Self::default();
        if !folder.exists() {
            return Ok(results);
        }
        let mut files: Vec<_> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|name| name == "jsonl")) {
            let suite = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = fs::read_to_string(file)?;
            let added = results.add(&suite, &text);
            added.map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        }
        Ok(results)
    }

    /// Adds the lines of a suite's file.
    pub(super) fn add(&mut self, suite: &str, text: &str) -> serde_json::Result<()> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            match serde_json::from_str(line)? {
                Line::Run(run) => drop(self.runs.insert(suite.to_owned(), run)),
                Line::Figure(figure) => self.figures.push(figure),
                Line::Points { name, values } => drop(self.points.insert(name, values)),
            }
        }
        Ok(())
    }

    /// The figure of this name, if somebody has measured it.
    pub fn figure(&self, id: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == id)
    }
}
