//! What one Redis answers, measured: many connections, each of which waits for its answer before it asks again.
//!
//! Threads with a share of the connections each send one command on every one of theirs, then read every answer. So nothing is
//! pipelined on a connection, and the client does not take more of a small machine than the server. Besides the rate, which on a
//! shared machine is as much the client's and the neighbours', the server's own processor time for a command is taken from
//! `INFO`: its reciprocal is what one server can do with a core for itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::text::number;

const SCRIPT: &str = include_str!("../../../host/redis/src/swap.lua");
const THREADS: usize = 2;
const CONNECTIONS: usize = 64;
const FOR: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// A record in steady use.
const VALUE_BYTES: usize = 640;

/// A measured rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    per_second: f64,
    /// The server's processor time for a command, in microseconds.
    server_us: f64,
}

/// What one Redis answers.
pub(crate) struct Capacity {
    version: String,
    get: Rate,
    load: Rate,
    stored: Rate,
    conflict: Rate,
}

/// What the connections do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Get,
    Load,
    /// Each connection on a key of its own.
    Swap,
    /// All on one key, with a version that is not there.
    LoseRace,
}

impl Capacity {
    /// As a table of Markdown.
    pub(crate) fn table(&self) -> String {
        let row = |name: &str, rate: &Rate| {
            format!(
                "| {name} | {} | {:.1} µs | {} | {:.2} |\n",
                number(rate.per_second),
                rate.server_us,
                number(1e6 / rate.server_us),
                rate.server_us / self.get.server_us
            )
        };
        format!(
            "Redis {}, {CONNECTIONS} connections without pipelining, a value of {VALUE_BYTES} bytes, medians of {ROUNDS} rounds in turns.\n\n\
             | command | answered a second | server's processor time | a second, with a core for itself | to a GET |\n\
             |---|---|---|---|---|\n{}{}{}{}",
            self.version,
            row("GET", &self.get),
            row("load (HMGET)", &self.load),
            row("swap (the script), stored", &self.stored),
            row("swap (the script), lost race", &self.conflict),
        )
    }
}

/// Measures the Redis at `address`, on keys that it removes afterwards.
pub(crate) fn measure(address: &str) -> Result<Capacity> {
    let mut control = Connection::open(address)?;
    let info = control.ask(&["INFO", "server"])?;
    let version = field(&info, "redis_version").unwrap_or("?").to_owned();
    let sha = control.ask(&["SCRIPT", "LOAD", SCRIPT])?;
    let value = "x".repeat(VALUE_BYTES);
    control.ask(&["SET", "circuitry-capacity:plain", &value])?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let mut rate = |deed| rate(address, &mut control, &sha, &value, deed);
        rounds.push([rate(Deed::Get)?, rate(Deed::Load)?, rate(Deed::Swap)?, rate(Deed::LoseRace)?]);
    }
    for key in 0..CONNECTIONS {
        control.ask(&["DEL", &key_of(key)])?;
    }
    control.ask(&["DEL", "circuitry-capacity:plain"])?;
    let median = |deed: usize| {
        let pick = |part: fn(&Rate) -> f64| {
            let mut found: Vec<f64> = rounds.iter().filter_map(|round| round.get(deed)).map(part).collect();
            found.sort_by(f64::total_cmp);
            found.get(found.len() / 2).copied().unwrap_or_default()
        };
        Rate { per_second: pick(|rate| rate.per_second), server_us: pick(|rate| rate.server_us) }
    };
    Ok(Capacity { version, get: median(0), load: median(1), stored: median(2), conflict: median(3) })
}

fn rate(address: &str, control: &mut Connection, sha: &str, value: &str, deed: Deed) -> Result<Rate> {
    let before = processor_seconds(control)?;
    let begun = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (address, sha, value) = (address.to_owned(), sha.to_owned(), value.to_owned());
            thread::spawn(move || work(&address, &sha, &value, deed, thread))
        })
        .collect();
    let mut answered = 0;
    for thread in threads {
        match thread.join() {
            Ok(count) => answered += count?,
            Err(_) => bail!("a client thread panicked"),
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let used = processor_seconds(control)? - before;
    Ok(Rate { per_second: answered as f64 / took, server_us: used * 1e6 / answered.max(1) as f64 })
}

fn work(address: &str, sha: &str, value: &str, deed: Deed, thread: usize) -> Result<u64> {
    let own = CONNECTIONS / THREADS;
    let keys = thread * own..(thread + 1) * own;
    let mut connections = Vec::new();
    for key in keys {
        let mut connection = Connection::open(address)?;
        let version = format!("v{key}-{}", fastrand::u64(..));
        connection.ask(&["HSET", &key_of(key), "version", &version, "value", value])?;
        connections.push((key, connection, version));
    }
    let (mut answered, mut turn, until) = (0, 0_u64, Instant::now() + FOR);
    while Instant::now() < until {
        turn += 1;
        for (key, connection, version) in &mut connections {
            match deed {
                Deed::Get => connection.send(&["GET", "circuitry-capacity:plain"])?,
                Deed::Load => connection.send(&["HMGET", &key_of(*key), "version", "value"])?,
                Deed::Swap => {
                    let next = format!("v{key}-{turn}-{:016x}", fastrand::u64(..));
                    connection.send(&swap(sha, &key_of(*key), version, &next, value))?;
                    *version = next;
                }
                Deed::LoseRace => connection.send(&swap(sha, &key_of(0), "never", "next", value))?,
            }
        }
        for (_, connection, _) in &mut connections {
            let answer = connection.read()?;
            let expected = match deed {
                Deed::Swap => answer.starts_with("1\n"),
                Deed::LoseRace => answer.starts_with("0\n"),
                Deed::Get | Deed::Load => answer.contains(value),
            };
            if !expected {
                bail!("the server answered something else: {answer}");
            }
            answered += 1;
        }
    }
    Ok(answered)
}

fn swap<'a>(sha: &'a str, key: &'a str, expected: &'a str, next: &'a str, value: &'a str) -> [&'a str; 8] {
    ["EVALSHA", sha, "1", key, "1", expected, next, value]
}

fn key_of(key: usize) -> String {
    format!("circuitry-capacity:{key}")
}

fn processor_seconds(control: &mut Connection) -> Result<f64> {
    let info = control.ask(&["INFO", "cpu"])?;
    let of = |name: &str| field(&info, name)?.parse::<f64>().ok();
    let (system, user) = (of("used_cpu_sys"), of("used_cpu_user"));
    Ok(system.context("no processor time of the server")?
        + user.context("no processor time of the server")?)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// As much of Redis' protocol as this needs.
struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    sending: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Result<Self> {
        let writer = TcpStream::connect(address).with_context(|| format!("no Redis at {address}"))?;
        writer.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(writer.try_clone()?), writer, sending: Vec::new() })
    }

    fn ask(&mut self, command: &[&str]) -> Result<String> {
        self.send(command)?;
        self.read()
    }

    fn send(&mut self, command: &[&str]) -> Result<()> {
        self.sending.clear();
        // The script's last argument is the time to live: a day.
        let life = command.first().filter(|name| **name == "EVALSHA").map(|_| "86400000");
        write!(self.sending, "*{}\r\n", command.len() + usize::from(life.is_some()))?;
        for part in command.iter().copied().chain(life) {
            write!(self.sending, "${}\r\n{part}\r\n", part.len())?;
        }
        Ok(self.writer.write_all(&self.sending)?)
    }

    /// The answer as text; the parts of an array each on a line.
    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the server has hung up");
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("an empty answer")?;
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "-" => bail!("the server says {rest}"),
            "$" => {
                let Ok(length) = rest.parse::<usize>() else { return Ok(String::new()) };
                let mut bytes = vec![0; length + 2];
                self.reader.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(String::from_utf8(bytes)?)
            }
            "*" => {
                let parts = (0..rest.parse::<usize>()?).map(|_| self.read());
                Ok(parts.collect::<Result<Vec<_>>>()?.join("\n"))
            }
            _ => bail!("the server says {line}"),
        }
    }
}
