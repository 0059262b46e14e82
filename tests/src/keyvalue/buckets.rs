//! Where the values of a keyvalue host are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmtime::component::{ComponentType, Lift, Lower};

/// What went wrong, as `wasi:keyvalue` has it.
#[derive(Clone, Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
pub enum Error {
    /// There is no such bucket.
    #[component(name = "no-such-store")]
    NoSuchStore,
    /// The bucket is not for this component.
    #[component(name = "access-denied")]
    AccessDenied,
    /// Anything else.
    #[component(name = "other")]
    Other(String),
}

/// A value as it was when it was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The value, if there was one.
    pub value: Option<Vec<u8>>,
    /// Which write it was of, where that is known.
    pub revision: u64,
}

/// Keys with values, shared by all who have a handle.
pub trait Buckets: Send + Sync + 'static {
    /// Reads a value.
    ///
    /// # Errors
    /// Where the values cannot be reached.
    fn read(&self, bucket: &str, key: &str) -> Result<Snapshot, Error>;

    /// Replaces a value if it is still as it was seen, and says whether it was.
    ///
    /// # Errors
    /// Where the values cannot be reached.
    fn swap(&self, bucket: &str, key: &str, seen: &Snapshot, value: &[u8]) -> Result<bool, Error>;
}

/// Buckets in the memory of this process. They compare revisions.
#[derive(Debug, Default)]
pub struct MemoryBuckets {
    values: Mutex<HashMap<(String, String), Snapshot>>,
    folds_case: bool,
}

impl MemoryBuckets {
    /// Buckets to which upper and lower case of a key are the same, as on some file systems.
    pub fn folding_case() -> Self {
        Self { folds_case: true, ..Self::default() }
    }

    fn values(&self) -> MutexGuard<'_, HashMap<(String, String), Snapshot>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, bucket: &str, key: &str) -> (String, String) {
        (bucket.to_owned(), if self.folds_case { key.to_lowercase() } else { key.to_owned() })
    }

    /// Sets a value, whatever it was.
    pub fn put(&self, bucket: &str, key: &str, value: &[u8]) {
        let mut values = self.values();
        let place = values.entry(self.place(bucket, key)).or_default();
        *place = Snapshot { value: Some(value.to_vec()), revision: place.revision + 1 };
    }

    /// All keys of a bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        self.values().keys().filter(|(of, _)| of == bucket).map(|(_, key)| key.clone()).collect()
    }
}

impl Buckets for MemoryBuckets {
    fn read(&self, bucket: &str, key: &str) -> Result<Snapshot, Error> {
        Ok(self.values().get(&self.place(bucket, key)).cloned().unwrap_or_default())
    }

    fn swap(&self, bucket: &str, key: &str, seen: &Snapshot, value: &[u8]) -> Result<bool, Error> {
        let mut values = self.values();
        let place = values.entry(self.place(bucket, key)).or_default();
        if place.revision != seen.revision {
            return Ok(false);
        }
        *place = Snapshot { value: Some(value.to_vec()), revision: seen.revision + 1 };
        Ok(true)
    }
}

/// Buckets on a Redis, for several processes. They compare values.
pub struct RedisBuckets(Mutex<redis::Connection>);

impl RedisBuckets {
    /// Connects to the Redis at `url`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn connect(url: &str) -> redis::RedisResult<Self> {
        Ok(Self(Mutex::new(redis::Client::open(url)?.get_connection()?)))
    }

    fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Error> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        command.query(&mut *connection).map_err(|error| Error::Other(error.to_string()))
    }
}

impl Buckets for RedisBuckets {
    fn read(&self, bucket: &str, key: &str) -> Result<Snapshot, Error> {
        let value = self.query(redis::cmd("GET").arg(format!("{bucket}:{key}")))?;
        Ok(Snapshot { value, revision: 0 })
    }

    fn swap(&self, bucket: &str, key: &str, seen: &Snapshot, value: &[u8]) -> Result<bool, Error> {
        const REPLACE_IF_SEEN: &str = "\
            local present = redis.call('GET', KEYS[1]) \
            if present ~= (#ARGV == 2 and ARGV[2]) then return 0 end \
            redis.call('SET', KEYS[1], ARGV[1]) \
            return 1";
        let mut command = redis::cmd("EVAL");
        command.arg(REPLACE_IF_SEEN).arg(1).arg(format!("{bucket}:{key}")).arg(value).arg(&seen.value);
        self.query(&command)
    }
}
