//! The trait [`Store`] and the values that go through it.

use std::fmt;
use std::time::Duration;

use crate::error::StoreError;
use crate::push::Watch;

/// The most bytes that a circuit's name may have; an adapter may assume it.
pub const NAME_MAX_BYTES: usize = 1024;

/// An opaque version of an entry: equal versions mean the same write.
///
/// A version is minted at random before each write, so none repeats, not even after the entry expired and was
/// written again.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version(Vec<u8>);

impl Version {
    /// Mints a version of 16 random bytes.
    ///
    /// # Errors
    /// [`StoreError::Other`] when the operating system has no randomness to give.
    pub fn mint() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            StoreError::other("the operating system gave no random bytes for a version", error)
        })?;
        Ok(Self(bytes.to_vec()))
    }

    /// Takes the bytes as a version, as a store or a guest handed them over.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes of the version.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the bytes away.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Version(")?;
        for byte in &self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        formatter.write_str(")")
    }
}

/// What is stored for a circuit: a value and the version of the write that put it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes, as they were given to [`Store::swap`].
    pub value: Vec<u8>,
    /// The version of the write.
    pub version: Version,
}

/// The answer to [`Store::load`], and what a lost race brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The entry, or `None` when there is none or its time to live is over.
    pub entry: Option<Entry>,
    /// The store's own clock in milliseconds since the Unix epoch, where the store tells it.
    pub now_ms: Option<u64>,
}

/// The answer to a swap that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The version that the entry has now.
    pub version: Version,
    /// The store's own clock in milliseconds since the Unix epoch, where the store tells it.
    pub now_ms: Option<u64>,
}

/// What became of a swap. A lost race is an outcome, not an error, and brings the entry that won.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The value is stored.
    Stored(Receipt),
    /// Nothing was written: the entry is not the expected one. Here is the one that is.
    Conflict(Loaded),
}

/// A place that keeps one entry for each circuit and replaces it only if it is unchanged.
///
/// # Guarantees that every store gives
/// - `swap` is atomic: of several with the same `expected`, at most one is stored.
/// - A version is never used twice for a circuit, also not after expiry and re-creation.
/// - Read your write: a `load` begun after a `swap` was answered *stored* sees that write or a later one.
/// - An entry whose time to live is over is absent, for `load` and `swap` alike.
/// - Names are opaque: any UTF-8 of 1 to [`NAME_MAX_BYTES`] bytes, and two names never share an entry.
/// - A swap that may or may not have happened is [`StoreError::Unknown`]; it is never reported as *stored* or as
///   *conflict*. A conflict that shows the very version that this swap minted *is* reported as stored.
/// - No retries of `swap` inside.
///
/// The suite in `conformance` checks them.
///
/// # Cancel safety
/// Dropping a `load` has no effect. Dropping a `swap` leaves it unknown whether the value was written.
///
/// # Example
/// ```
/// use circuitry_store::{MemoryStore, Store, Swapped};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = MemoryStore::new();
/// let Swapped::Stored(first) = store.swap("emails/acme", None, b"1", None).await? else { panic!("no entry yet") };
/// // Who has not seen the entry does not replace it, and is told what it is.
/// let Swapped::Conflict(fresh) = store.swap("emails/acme", None, b"2", None).await? else { panic!("a lost race") };
/// assert_eq!(fresh.entry.expect("the entry that won").version, first.version);
/// # Ok::<(), circuitry_store::StoreError>(()) }).unwrap();
/// ```
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// Reads the entry of `circuit`.
    ///
    /// # Errors
    /// [`StoreError`], sorted by what to do next; a failure is never read as absence.
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError>;

    /// Replaces the entry of `circuit` by `value` if its version is still `expected` (`None`: if there is no entry).
    ///
    /// `ttl` is how long the entry lives from now on, rounded up to a whole millisecond; `None` is for ever.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the value may or may not have been written, else nothing was written.
    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError>;

    /// Begins to watch. `None`: this store does not push, poll it.
    ///
    /// Each announcement that begins after the answer comes out of the [`Watch`] as [`Push::Changed`], unless it is
    /// lost; where it is known that some may be lost, a [`Push::Missed`] says so. A store that is out of reach may
    /// answer all the same, with a watch that says [`Push::Missed`] when it is there. Dropping the watch ends it.
    ///
    /// # Errors
    /// [`StoreError`], where watching cannot begin at all; load and swap may work all the same.
    ///
    /// # Cancel safety
    /// Dropping it has no effect.
    ///
    /// # Example
    /// ```
    /// use circuitry_store::{MemoryStore, Push, Store};
    /// use futures_util::StreamExt;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let store = MemoryStore::new();
    /// let mut watch = store.watch().await?.expect("the memory store pushes");
    /// store.announce("emails/acme").await?;
    /// assert_eq!(watch.next().await, Some(Push::Changed("emails/acme".to_owned())));
    /// # Ok::<(), circuitry_store::StoreError>(()) }).unwrap();
    /// ```
    ///
    /// [`Push::Changed`]: crate::Push::Changed
    /// [`Push::Missed`]: crate::Push::Missed
    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        Ok(None)
    }

    /// Tells the watchers, in other processes too, that the entry of `circuit` was replaced. A hint: it may be lost,
    /// late or doubled.
    ///
    /// # Errors
    /// [`StoreError`]: perhaps nobody was told. Nothing is wrong with the entry, and that of an earlier swap is no
    /// less stored.
    ///
    /// # Cancel safety
    /// Dropping it leaves it unknown whether anybody was told.
    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        let _ = circuit;
        Ok(())
    }
}

#[async_trait::async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn load(&self, circuit: &str) -> Result<Loaded, StoreError> {
        (**self).load(circuit).await
    }

    async fn swap(
        &self,
        circuit: &str,
        expected: Option<&Version>,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Swapped, StoreError> {
        (**self).swap(circuit, expected, value, ttl).await
    }

    async fn watch(&self) -> Result<Option<Watch>, StoreError> {
        (**self).watch().await
    }

    async fn announce(&self, circuit: &str) -> Result<(), StoreError> {
        (**self).announce(circuit).await
    }
}

/// Says whether `circuit` may name an entry: 1 to [`NAME_MAX_BYTES`] bytes of UTF-8.
///
/// # Errors
/// [`StoreError::Other`] that tells the length and the limit.
pub fn check_name(circuit: &str) -> Result<(), StoreError> {
    match circuit.len() {
        0 => Err(StoreError::rejected("the circuit's name is empty; give it 1 to 1024 bytes")),
        length if length > NAME_MAX_BYTES => Err(StoreError::rejected(format!(
            "the circuit's name has {length} bytes; shorten it to at most {NAME_MAX_BYTES}"
        ))),
        _ => Ok(()),
    }
}

/// `ttl` in whole milliseconds, rounded up and at least 1, so that no entry ends before its time.
pub fn ttl_ms(ttl: Duration) -> u64 {
    let ms = ttl.as_nanos().div_ceil(1_000_000);
    u64::try_from(ms).unwrap_or(u64::MAX).max(1)
}
