//! The adapter against DynamoDB Local, and against scripted answers where the real server cannot be made to give them.

mod answers;
mod clocks;
mod conformance;
mod entries;
mod failures;
mod scripted;
mod server;
mod tables;
