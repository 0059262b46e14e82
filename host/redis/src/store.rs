//! [`RedisStore`]: the adapter.

mod answer;
mod push;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use circuitry_store::store::{check_name, ttl_ms};
use circuitry_store::{Entry, Loaded, Receipt, Store, StoreError, Swapped, Version, Watch};
use redis::{Cmd, Script, Value};
use tokio::time::Instant;

use crate::error::{Operation, Task, failed_to_connect, is_unknown_script, is_wrong_type};
use crate::link::{Link, Request};
use crate::{RedisStoreBuilder, SWAP_SCRIPT};
use answer::{Misfit, Ruling, entry_in, ruling_in, time_in};

/// A load asks for the server's time when nothing has told it for so long. A drift of 100 parts in a million, which is
/// a bad clock, makes a millisecond of it.
const TIME_AGES_AFTER: Duration = Duration::from_secs(10);
/// Redis refuses a time to live whose end it cannot count; this one ends in 31,000 years.
const LONGEST_TTL_MS: u64 = 1_000_000_000_000_000;
/// An entry may expire or be created between two looks at it; a key that is not ours stays so.
const CLOSER_LOOKS: u32 = 3;

static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new(SWAP_SCRIPT));

/// A store on Redis, or whatever speaks its protocol and runs its scripts. Clones share their connection.
///
/// See the [crate] for how to configure it and what it does not promise.
///
/// # Example
/// ```no_run
/// use circuitry_redis::RedisStore;
/// use circuitry_store::{Store, Swapped};
///
/// # async fn example() -> Result<(), circuitry_store::StoreError> {
/// let store = RedisStore::connect("redis://127.0.0.1:6379").await?;
/// let known = store.load("emails/acme").await?.entry;
/// let expected = known.as_ref().map(|entry| &entry.version);
/// match store.swap("emails/acme", expected, b"a new value", None).await? {
///     Swapped::Stored(receipt) => println!("stored as {:?}", receipt.version),
///     Swapped::Conflict(fresh) => println!("somebody was faster: {:?}", fresh.entry),
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    prefix: String,
    place: String,
    operation_timeout: Duration,
    time_told: Mutex<Option<TimeTold>>,
    /// Whether it was said that the user may not use the channel.
    has_warned: AtomicBool,
}

impl RedisStore {
    /// Connects to the server at `url`, with the default settings: `redis://[user:password@]host[:port][/database]`.
    ///
    /// # Errors
    /// Those of [`RedisStoreBuilder::connect`].
    ///
    /// # Cancel safety
    /// It writes nothing; dropping it has no effect.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Begins with the default settings.
    pub fn builder() -> RedisStoreBuilder {
        RedisStoreBuilder::default()
    }

    /// The key of a circuit: the prefix and the circuit's name, as they are.
    ///
    /// # Example
    /// ```
    /// use circuitry_redis::RedisStore;
    /// let store = RedisStore::builder().prefix("billing:").lazy();
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = store.connect("redis://127.0.0.1:6379").await?;
    /// assert_eq!(store.key("emails/acme"), "billing:emails/acme");
    /// # Ok::<(), circuitry_store::StoreError>(()) }).unwrap();
    /// ```
    pub fn key(&self, circuit: &str) -> String {
        [&self.inner.prefix, circuit].concat()
    }

    pub(crate) fn new(link: Link, prefix: String, place: String, operation_timeout: Duration) -> Self {
        let (time_told, has_warned) = (Mutex::default(), AtomicBool::new(false));
        let inner = Inner { link, prefix, place, operation_timeout, time_told, has_warned };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) async fn connected(self) -> Result<Self, StoreError> {
        match self.inner.link.connect().await {
            Ok(()) => Ok(self),
            Err(error) => Err(failed_to_connect(&self.inner.place, error)),
        }
    }

    fn task<'a>(&'a self, operation: Operation, key: &'a str) -> Task<'a> {
        Task { operation, key, place: &self.inner.place, limit: self.inner.operation_timeout }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.inner.operation_timeout
    }

    /// The server's time now, if it was told lately: as it was, and what has passed since. Those who share this store may not
    /// have heard it.
    fn time_now(&self) -> Option<u64> {
        let told = (*self.inner.time_told.lock().unwrap_or_else(PoisonError::into_inner))?;
        let passed = told.at.elapsed();
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        (passed < TIME_AGES_AFTER).then(|| told.now_ms.saturating_add(passed_ms))
    }

    fn time_was_told(&self, now_ms: u64) {
        let told = TimeTold { now_ms, at: Instant::now() };
        *self.inner.time_told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    async fn send(
        &self,
        task: Task<'_>,
        request: &Request,
        deadline: Instant,
    ) -> Result<Vec<Value>, StoreError> {
        match self.inner.link.send(request, deadline).await {
            Ok(answers) => Ok(answers),
            Err(trouble) if is_wrong_type(&trouble) => Err(self.wrong_type(task, deadline).await),
            Err(trouble) => Err(task.failed(trouble)),
        }
    }

    /// Says what the key holds; where that cannot be asked, that it is no hash.
    async fn wrong_type(&self, task: Task<'_>, deadline: Instant) -> StoreError {
        let key = task.key.as_bytes();
        let mut command = redis::cmd("TYPE");
        command.arg(key);
        let answers = self.inner.link.send(&Request::one(key, command), deadline).await;
        match answers.as_deref() {
            Ok([Value::SimpleString(kind)]) => task.foreign(&format!("a {kind}")),
            _ => task.foreign("another type than a hash"),
        }
    }

    /// A hash without our fields looks like no key at all; this tells the two apart.
    async fn look_closer(&self, task: Task<'_>, deadline: Instant) -> Result<Option<Entry>, StoreError> {
        let key = task.key.as_bytes();
        let mut exists = redis::cmd("EXISTS");
        exists.arg(key);
        let request = Request { key: key.to_vec(), commands: vec![exists, fields_of(key)] };
        for _ in 0..CLOSER_LOOKS {
            let answers = self.send(task, &request, deadline).await?;
            let Ok([Value::Int(exists), fields]) = <[Value; 2]>::try_from(answers) else {
                return Err(task.misread(&"not two answers"));
            };
            match entry_in(fields) {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) if exists == 0 => return Ok(None),
                Ok(None) => {}
                Err(Misfit::Foreign) => break,
                Err(Misfit::Unreadable(answer)) => return Err(task.misread(&answer)),
            }
        }
        Err(task.foreign("a hash without the fields version and value"))
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    /// Sends one HMGET. If nothing has told the server's time for 10 s, TIME goes with it in the same message.
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        check_name(circuit)?;
        let key = self.key(circuit);
        let (task, deadline) = (self.task(Operation::Load, &key), self.deadline());
        let mut request = Request::one(key.as_bytes(), fields_of(key.as_bytes()));
        if self.time_now().is_none() {
            request.commands.push(redis::cmd("TIME"));
        }
        let mut answers = self.send(task, &request, deadline).await?.into_iter();
        let fields = answers.next().unwrap_or(Value::Nil);
        if let Some(time) = answers.next() {
            self.time_was_told(time_in(&time).ok_or_else(|| task.misread(&time))?);
        }
        let now_ms = self.time_now();
        let entry = match entry_in(fields) {
            Ok(Some(entry)) => Some(entry),
            Ok(None) => self.look_closer(task, deadline).await?,
            Err(Misfit::Foreign) => {
                return Err(task.foreign("a hash with only one of the fields version and value"));
            }
            Err(Misfit::Unreadable(answer)) => return Err(task.misread(&answer)),
        };
        Ok(Loaded { entry, now_ms })
    }

    /// Sends one EVALSHA of the script in [`SWAP_SCRIPT`]; where the server does not know it yet, one EVAL after it.
    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        check_name(circuit)?;
        let version = Version::mint()?;
        let key = self.key(circuit);
        let (task, deadline) = (self.task(Operation::Swap, &key), self.deadline());
        let link = &self.inner.link;
        link.prove(key.as_bytes(), deadline).await.map_err(|trouble| task.failed(trouble))?;

        let request = |command: &str, script: &str| {
            let command = swap_command(command, script, &key, expected, &version, value, ttl);
            Request::one(key.as_bytes(), command)
        };
        let mut answer = link.send(&request("EVALSHA", SWAP.get_hash()), deadline).await;
        if answer.as_ref().is_err_and(is_unknown_script) {
            // The server says that it has not run it, so this is no second time. EVAL leaves the script there.
            tracing::debug!("the server does not know the script yet");
            answer = link.send(&request("EVAL", SWAP_SCRIPT), deadline).await;
        }
        let answers = match answer {
            Ok(answers) => answers,
            Err(trouble) if is_wrong_type(&trouble) => return Err(self.wrong_type(task, deadline).await),
            Err(trouble) => return Err(task.failed(trouble)),
        };
        let ruling = ruling_in(&answers).ok_or_else(|| task.misread(&answers))?;
        if let Some(now_ms) = ruling.now_ms() {
            self.time_was_told(now_ms);
        }
        match ruling {
            Ruling::Stored { now_ms } => Ok(Swapped::Stored(Receipt { version, now_ms: Some(now_ms) })),
            Ruling::Conflict(loaded) => Ok(Swapped::Conflict(loaded)),
            Ruling::Foreign => Err(task.foreign("a hash without the fields version and value")),
        }
    }

    /// Subscribes to [`channel`](RedisStore::channel) on a connection of its own, which is made again by itself. It
    /// waits for the subscription at most for the operation's timeout; one that comes later begins with a
    /// [`Push::Missed`](circuitry_store::Push::Missed). On a connection that was given it is `None`.
    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        Ok(self.subscribed().await)
    }

    /// Sends one PUBLISH, on a cluster one SPUBLISH; where the node does not know that yet, one PUBLISH after it.
    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        check_name(circuit)?;
        self.publish(circuit).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisStore")
            .field("place", &self.inner.place)
            .field("prefix", &self.inner.prefix)
            .field("operation_timeout", &self.inner.operation_timeout)
            .finish_non_exhaustive()
    }
}

/// When the server told which time.
#[derive(Clone, Copy)]
struct TimeTold {
    now_ms: u64,
    at: Instant,
}

fn fields_of(key: &[u8]) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(key).arg("version").arg("value");
    command
}

fn swap_command(
    command: &str,
    script: &str,
    key: &str,
    expected: Option<&Version>,
    version: &Version,
    value: &[u8],
    ttl: Option<Duration>,
) -> Cmd {
    let mut command = redis::cmd(command);
    command.arg(script).arg(1).arg(key);
    match expected {
        Some(expected) => command.arg(b"1").arg(expected.as_bytes()),
        None => command.arg(b"0").arg(b""),
    };
    command.arg(version.as_bytes()).arg(value);
    match ttl {
        Some(ttl) => command.arg(ttl_ms(ttl).min(LONGEST_TTL_MS)),
        None => command.arg(b""),
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_to_live_is_one_that_redis_can_count() {
        let ttl_sent = |ttl| {
            let version = Version::from_bytes(*b"v");
            let command = swap_command("EVAL", "", "key", None, &version, b"", ttl);
            String::from_utf8_lossy(&command.get_packed_command())
                .trim_end()
                .rsplit("\r\n")
                .next()
                .map(str::to_owned)
        };
        assert_eq!(ttl_sent(Some(Duration::MAX)).as_deref(), Some("1000000000000000"));
        assert_eq!(ttl_sent(Some(Duration::from_nanos(1))).as_deref(), Some("1"));
        assert_eq!(ttl_sent(Some(Duration::from_millis(1500))).as_deref(), Some("1500"));
    }
}
