//! [`Store`]: load and swap over a [`Link`], with every case of what a server may answer.
//!
//! A swap is sent at most once, and nothing that may have written is told as anything but [`StoreError::Unknown`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::address::Address;
use crate::answer::{
    Entry, Misfit, Remedy, Ruling, code, entry_in, is_of_the_connection, known_code, remedy, ruling_in,
    time_in,
};
use crate::resp::{Reply, push_command};

/// The script of all hosts.
pub(crate) const SWAP_SCRIPT: &str = include_str!("../../../host/redis/src/swap.lua");
/// Its SHA-1, by which the server knows it.
pub(crate) const SWAP_SHA1: &str = "f5ba411f36e116f176488408b2eef424a0f67b8f";

/// A load asks for the server's time when nothing has told it for so long.
const TIME_AGES_AFTER_NS: u64 = 10_000_000_000;
const NS_OF_MS: u64 = 1_000_000;
/// Redis refuses a time to live whose end it cannot count; this one ends in 31,000 years.
const LONGEST_TTL_MS: u64 = 1_000_000_000_000_000;
/// An entry may expire or be created between two looks at it; a key that is not ours stays so.
const CLOSER_LOOKS: u32 = 3;
const NAME_MAX: usize = 1_024;
/// Bytes of a key or an answer that a message shows.
const SHOWN_MAX: usize = 100;

/// A connection to the server that is made, kept and made again as needed. Times are of [`Link::now_ns`].
pub(crate) trait Link {
    /// A clock that never goes back, in nanoseconds.
    fn now_ns(&mut self) -> u64;
    /// 16 random bytes.
    fn random(&mut self) -> [u8; 16];
    /// Makes sure that there is a connection, as far as that can be told without sending; says whether it is new.
    fn ready(&mut self, deadline_ns: u64) -> Result<bool, Trouble>;
    /// Sends a message and reads `count` replies. After any trouble the connection is gone.
    fn ask(&mut self, message: &[u8], count: usize, deadline_ns: u64) -> Result<Vec<Reply>, Trouble>;
    /// Gives the connection up.
    fn close(&mut self);
}

/// Why there are no replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing was sent. The text says why, and it may pass.
    NoConnection(String),
    /// The host lets this component not reach the server; nothing was sent.
    NoAccess(String),
    /// Nobody can be reached so; nothing was sent.
    Misconfigured(String),
    /// It was sent, perhaps not all of it, and there is no answer.
    NoAnswer(String),
    /// The same, but for the first replies: whoever turns us away says so and closes the connection.
    Cut(Vec<Reply>, String),
    /// It was sent, and the answer is none of the protocol, or over its limits.
    Malformed(&'static str),
}

/// As in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreError {
    Unavailable(String),
    Unknown(String),
    Denied(String),
    Other(String),
}

/// As in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    pub(crate) entry: Option<Entry>,
    pub(crate) now_ms: Option<u64>,
}

/// As in `wit/types.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    Stored { version: Vec<u8>, now_ms: u64 },
    Conflict(Loaded),
}

/// The server's time, and when it told it.
#[derive(Clone, Copy)]
struct TimeTold {
    now_ms: u64,
    at_ns: u64,
}

/// Circuits on a server.
pub(crate) struct Store<L> {
    link: L,
    address: Address,
    prefix: String,
    timeout_ms: u64,
    time_told: Option<TimeTold>,
}

/// What is done, for messages and for what trouble means.
#[derive(Clone, Copy)]
struct Task<'a> {
    is_swap: bool,
    key: &'a str,
    deadline_ns: u64,
}

impl<L: Link> Store<L> {
    pub(crate) fn new(link: L, address: Address, prefix: String, timeout_ms: u64) -> Self {
        Self { link, address, prefix, timeout_ms, time_told: None }
    }

    /// Sends one HMGET. If nothing has told the server's time for 10 s, TIME goes with it in the same message; so does the
    /// login on a new connection.
    pub(crate) fn load(&mut self, circuit: &str) -> Result<Loaded, StoreError> {
        check_name(circuit)?;
        let key = [&self.prefix, circuit].concat();
        let task = self.task(false, &key);
        let wants_time = self.time_now().is_none();
        let mut commands = Vec::new();
        push_command(&mut commands, &[b"HMGET", key.as_bytes(), b"version", b"value"]);
        if wants_time {
            push_command(&mut commands, &[b"TIME"]);
        }
        let mut replies = self.read(task, &commands, if wants_time { 2 } else { 1 })?.into_iter();
        let fields = replies.next().unwrap_or(Reply::Nil);
        if let Some(time) = replies.next() {
            let time = self.checked(task, time)?;
            let now_ms = time_in(&time).ok_or_else(|| self.misread(task))?;
            self.time_was_told(now_ms);
        }
        let fields = self.checked(task, fields)?;
        let entry = match entry_in(fields) {
            Ok(Some(entry)) => Some(entry),
            Ok(None) => self.look_closer(task)?,
            Err(Misfit::Foreign) => {
                return Err(self.foreign(task, "a hash with only one of the fields version and value"));
            }
            Err(Misfit::Unreadable) => return Err(self.misread(task)),
        };
        Ok(Loaded { entry, now_ms: self.time_now() })
    }

    /// Sends one EVALSHA of the script; where the server does not know it yet, one EVAL after it.
    ///
    /// On a new connection the login, and the server's time, are asked for first: what is sent to a server that does not
    /// answer may have been written.
    pub(crate) fn swap(
        &mut self,
        circuit: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<Swapped, StoreError> {
        check_name(circuit)?;
        let key = [&self.prefix, circuit].concat();
        let task = self.task(true, &key);
        let version = self.link.random();
        self.prove(task)?;

        let ttl = ttl_ms.map(|ttl| ttl.clamp(1, LONGEST_TTL_MS).to_string()).unwrap_or_default();
        let message = |command: &str, script: &str| {
            let mut message = Vec::new();
            push_command(
                &mut message,
                &[
                    command.as_bytes(),
                    script.as_bytes(),
                    b"1",
                    key.as_bytes(),
                    if expected.is_some() { b"1" } else { b"0" },
                    expected.unwrap_or_default(),
                    &version,
                    value,
                    ttl.as_bytes(),
                ],
            );
            message
        };
        let mut reply = self.ask_one(task, &message("EVALSHA", SWAP_SHA1))?;
        if matches!(&reply, Reply::Error(error) if code(error) == b"NOSCRIPT") {
            // The server says that it has not run it, so this is no second time. EVAL leaves the script there.
            reply = self.ask_one(task, &message("EVAL", SWAP_SCRIPT))?;
        }
        let reply = self.checked(task, reply)?;
        match ruling_in(reply) {
            Some(Ruling::Stored { now_ms }) => {
                self.time_was_told(now_ms);
                Ok(Swapped::Stored { version: version.to_vec(), now_ms })
            }
            Some(Ruling::Conflict { entry, now_ms }) => {
                self.time_was_told(now_ms);
                Ok(Swapped::Conflict(Loaded { entry, now_ms: Some(now_ms) }))
            }
            Some(Ruling::Foreign) => Err(self.foreign(task, "a hash without the fields version and value")),
            None => Err(self.misread(task)),
        }
    }

    fn task<'a>(&mut self, is_swap: bool, key: &'a str) -> Task<'a> {
        let limit_ns = self.timeout_ms.saturating_mul(NS_OF_MS);
        Task { is_swap, key, deadline_ns: self.link.now_ns().saturating_add(limit_ns) }
    }

    /// The server's time now, if it was told lately: as it was, and what has passed since.
    fn time_now(&mut self) -> Option<u64> {
        let now_ns = self.link.now_ns();
        let told = self.time_told?;
        let passed_ns = now_ns.saturating_sub(told.at_ns);
        let passed_ms = passed_ns.checked_div(NS_OF_MS)?;
        (passed_ns < TIME_AGES_AFTER_NS).then(|| told.now_ms.saturating_add(passed_ms))
    }

    fn time_was_told(&mut self, now_ms: u64) {
        self.time_told = Some(TimeTold { now_ms, at_ns: self.link.now_ns() });
    }

    /// The commands of a login, and how many they are.
    fn login(&self) -> (Vec<u8>, usize) {
        let (mut message, mut count) = (Vec::new(), 0_usize);
        if let Some(password) = &self.address.password {
            match &self.address.user {
                Some(user) => push_command(&mut message, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
                None => push_command(&mut message, &[b"AUTH", password.as_bytes()]),
            }
            count = count.saturating_add(1);
        }
        if self.address.database != 0 {
            push_command(&mut message, &[b"SELECT", self.address.database.to_string().as_bytes()]);
            count = count.saturating_add(1);
        }
        (message, count)
    }

    /// The answers to commands that write nothing. If a connection that was kept turns out to be dead, they are asked again on a
    /// new one.
    fn read(&mut self, task: Task<'_>, commands: &[u8], count: usize) -> Result<Vec<Reply>, StoreError> {
        loop {
            let is_new = self.link.ready(task.deadline_ns).map_err(|trouble| self.not_sent(task, trouble))?;
            let (mut message, logins) = if is_new { self.login() } else { (Vec::new(), 0) };
            message.extend_from_slice(commands);
            match self.link.ask(&message, count.saturating_add(logins), task.deadline_ns) {
                Ok(replies) => return self.logged_in(task, replies, logins),
                Err(_) if !is_new && self.link.now_ns() < task.deadline_ns => {}
                Err(trouble) => return Err(self.turned_away(task, trouble, logins)),
            }
        }
    }

    /// The replies after those to the login, which must be well.
    fn logged_in(
        &mut self,
        task: Task<'_>,
        mut replies: Vec<Reply>,
        logins: usize,
    ) -> Result<Vec<Reply>, StoreError> {
        let rest = replies.split_off(logins.min(replies.len()));
        let mut is_password = self.address.password.is_some();
        for reply in replies {
            match reply {
                Reply::Simple(_) => {}
                Reply::Error(error) => {
                    // Whoever comes next logs in again.
                    self.link.close();
                    return Err(if is_password {
                        self.not_let_in(task, &error)
                    } else {
                        self.told(task, remedy(&error), &shown_bytes(&error))
                    });
                }
                _ => {
                    self.link.close();
                    return Err(StoreError::Other(self.misread_text(task)));
                }
            }
            is_password = false;
        }
        Ok(rest)
    }

    /// What trouble means that a message met which writes nothing. Where the server has said why, that counts.
    fn turned_away(&mut self, task: Task<'_>, trouble: Trouble, logins: usize) -> StoreError {
        let Trouble::Cut(replies, why) = trouble else { return self.not_sent(task, trouble) };
        let rest = match self.logged_in(task, replies, logins) {
            Ok(rest) => rest,
            Err(error) => return error,
        };
        let error = rest.into_iter().find(|reply| matches!(reply, Reply::Error(_)));
        match error.map(|error| self.checked(task, error)) {
            Some(Err(error)) => error,
            Some(Ok(_)) | None => self.not_sent(task, Trouble::NoAnswer(why)),
        }
    }

    /// Makes sure that the server answers, before a write is sent to it.
    fn prove(&mut self, task: Task<'_>) -> Result<(), StoreError> {
        let is_new = self.link.ready(task.deadline_ns).map_err(|trouble| self.not_sent(task, trouble))?;
        if !is_new {
            return Ok(());
        }
        let (mut message, logins) = self.login();
        push_command(&mut message, &[b"TIME"]);
        let replies = self.link.ask(&message, logins.saturating_add(1), task.deadline_ns);
        let replies = replies.map_err(|trouble| self.turned_away(task, trouble, logins))?;
        let time = self.logged_in(task, replies, logins)?.pop().unwrap_or(Reply::Nil);
        let time = self.checked(task, time)?;
        match time_in(&time) {
            Some(now_ms) => {
                self.time_was_told(now_ms);
                Ok(())
            }
            None => {
                self.link.close();
                Err(StoreError::Other(self.misread_text(task)))
            }
        }
    }

    /// The answer to the one command of a swap.
    fn ask_one(&mut self, task: Task<'_>, message: &[u8]) -> Result<Reply, StoreError> {
        match self.link.ask(message, 1, task.deadline_ns) {
            Ok(replies) => Ok(replies.into_iter().next().unwrap_or(Reply::Nil)),
            Err(Trouble::NoAnswer(why) | Trouble::Cut(_, why)) => {
                Err(StoreError::Unknown(format!("{}: it was sent, and {why}", self.shown(task))))
            }
            // Whoever answers so to a write may have done anything.
            Err(Trouble::Malformed(what)) => Err(StoreError::Unknown(self.malformed_text(task, what))),
            Err(trouble) => Err(self.not_sent(task, trouble)),
        }
    }

    /// A reply that is no error of the server's.
    fn checked(&mut self, task: Task<'_>, reply: Reply) -> Result<Reply, StoreError> {
        match reply {
            Reply::Error(error) if code(&error) == b"WRONGTYPE" => Err(self.wrong_type(task)),
            Reply::Error(error) => {
                if is_of_the_connection(&error) {
                    self.link.close();
                }
                Err(self.told(task, remedy(&error), &shown_bytes(&error)))
            }
            reply => Ok(reply),
        }
    }

    /// Says what the key holds; where that cannot be asked, that it is no hash.
    fn wrong_type(&mut self, task: Task<'_>) -> StoreError {
        let mut message = Vec::new();
        push_command(&mut message, &[b"TYPE", task.key.as_bytes()]);
        match self.link.ask(&message, 1, task.deadline_ns).as_deref() {
            Ok([Reply::Simple(kind)]) => {
                let found = format!("a {}", shown_bytes(kind).trim_matches('"'));
                self.foreign(task, &found)
            }
            _ => self.foreign(task, "another type than a hash"),
        }
    }

    /// A hash without our fields looks like no key at all; this tells the two apart.
    fn look_closer(&mut self, task: Task<'_>) -> Result<Option<Entry>, StoreError> {
        let mut commands = Vec::new();
        push_command(&mut commands, &[b"EXISTS", task.key.as_bytes()]);
        push_command(&mut commands, &[b"HMGET", task.key.as_bytes(), b"version", b"value"]);
        for _ in 0..CLOSER_LOOKS {
            let replies = self.read(task, &commands, 2)?;
            let Ok([exists, fields]) = <[Reply; 2]>::try_from(replies) else {
                return Err(self.misread(task));
            };
            let (exists, fields) = (self.checked(task, exists)?, self.checked(task, fields)?);
            let Reply::Int(exists) = exists else { return Err(self.misread(task)) };
            match entry_in(fields) {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) if exists == 0 => return Ok(None),
                Ok(None) => {}
                Err(Misfit::Foreign) => break,
                Err(Misfit::Unreadable) => return Err(self.misread(task)),
            }
        }
        Err(self.foreign(task, "a hash without the fields version and value"))
    }

    /// What trouble means where nothing that writes was sent.
    fn not_sent(&self, task: Task<'_>, trouble: Trouble) -> StoreError {
        let shown = self.shown(task);
        match trouble {
            Trouble::NoConnection(why) => {
                StoreError::Unavailable(format!("{shown}: there is no connection: {why}"))
            }
            Trouble::NoAccess(why) => StoreError::Denied(format!("{shown}: {why}")),
            Trouble::Misconfigured(why) => StoreError::Other(format!("{shown}: {why}")),
            Trouble::NoAnswer(why) | Trouble::Cut(_, why) => {
                StoreError::Unavailable(format!("{shown}: {why}"))
            }
            Trouble::Malformed(what) => StoreError::Other(self.malformed_text(task, what)),
        }
    }

    /// The server's error to AUTH. It may repeat what it was sent, so its text is not shown.
    fn not_let_in(&self, task: Task<'_>, error: &[u8]) -> StoreError {
        match remedy(error) {
            Remedy::TryAgain => self.told(task, Remedy::TryAgain, known_code(error)),
            _ => StoreError::Denied(format!(
                "{}: the server does not take the login (user and password; a server without a password takes none): {}",
                self.shown(task),
                known_code(error)
            )),
        }
    }

    fn told(&self, task: Task<'_>, remedy: Remedy, error: &str) -> StoreError {
        let shown = self.shown(task);
        match remedy {
            Remedy::TryAgain => {
                StoreError::Unavailable(format!("{shown}: the server does not take it now: {error}"))
            }
            Remedy::FixAccess => StoreError::Denied(format!(
                "{shown}: the server does not let this user do it (user, password and permissions): {error}"
            )),
            Remedy::LeaveCluster => StoreError::Other(format!(
                "{shown}: this is a Redis Cluster, which this component does not know; set CIRCUITRY_REDIS_URL to a \
                 server that is no part of one: {error}"
            )),
            Remedy::GiveUp => StoreError::Other(format!("{shown}: the server refuses it: {error}")),
        }
    }

    /// The key holds `found`, which we have not written.
    fn foreign(&self, task: Task<'_>, found: &str) -> StoreError {
        StoreError::Other(format!(
            "{}: the key holds {found}, which is no entry of a circuit; nothing was changed. Delete or rename the key, \
             or set CIRCUITRY_REDIS_PREFIX to a prefix that nobody else uses",
            self.shown(task)
        ))
    }

    /// The answer is not of the form that was asked for; who answers so is not asked again.
    fn misread(&mut self, task: Task<'_>) -> StoreError {
        self.link.close();
        let text = self.misread_text(task);
        // Whoever answers so to a write may have done anything.
        if task.is_swap { StoreError::Unknown(text) } else { StoreError::Other(text) }
    }

    fn malformed_text(&self, task: Task<'_>, what: &str) -> String {
        format!("{}: the answer is not one of Redis: {what}", self.shown(task))
    }

    fn misread_text(&self, task: Task<'_>) -> String {
        format!("{}: the answer is not one of Redis to this request", self.shown(task))
    }

    fn shown(&self, task: Task<'_>) -> String {
        let operation = if task.is_swap { "swap" } else { "load" };
        format!("{operation} of the key {} at {}", shown_bytes(task.key.as_bytes()), self.address.place())
    }
}

fn check_name(circuit: &str) -> Result<(), StoreError> {
    if circuit.is_empty() || circuit.len() > NAME_MAX {
        return Err(StoreError::Other(format!(
            "a circuit's name has 1 to {NAME_MAX} bytes, not {}",
            circuit.len()
        )));
    }
    Ok(())
}

/// As a message shows it: escaped, and not longer than a line.
fn shown_bytes(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_MAX) {
        Some(begin) if bytes.len() > SHOWN_MAX => {
            format!("\"{}\"… ({} bytes)", begin.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// The time to live and the like of a configuration that nobody can use.
pub(crate) fn misconfigured(why: &str) -> StoreError {
    StoreError::Other(why.to_owned())
}

#[cfg(test)]
mod tests;
