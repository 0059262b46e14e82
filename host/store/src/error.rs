//! [`StoreError`]: what can go wrong in a store, sorted by what the caller does next.

/// The cause that an adapter keeps: the error of the client library.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What went wrong in a store, sorted by remedy. Each message names the operation and the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store did not take the request, or the request was a read: nothing was written. Try again later.
    ///
    /// No connection, a refusal for load (throttling), a replica that may not write.
    #[error("the store is unavailable: {message}")]
    Unavailable {
        /// Operation, place and what happened.
        message: String,
        /// The client library's error.
        #[source]
        source: Option<Source>,
    },
    /// A write was sent and its answer is missing: it may or may not have happened. Load before writing again.
    #[error("it is unknown whether the store has written: {message}")]
    Unknown {
        /// Operation, place and what happened.
        message: String,
        /// The client library's error.
        #[source]
        source: Option<Source>,
    },
    /// The store refuses this client: credentials, permissions. Nothing was written. Fix the configuration.
    #[error("the store denies access: {message}")]
    Denied {
        /// Operation, place and what to change.
        message: String,
        /// The client library's error.
        #[source]
        source: Option<Source>,
    },
    /// Anything else, among it a key or a table that is not ours. Nothing was written. Retrying does not help.
    #[error("the store cannot do this: {message}")]
    Other {
        /// Operation, place and what to change.
        message: String,
        /// The client library's error.
        #[source]
        source: Option<Source>,
    },
}

impl StoreError {
    /// [`StoreError::Unavailable`] with the client library's error.
    pub fn unavailable(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unavailable { message: message.into(), source: Some(source.into()) }
    }

    /// [`StoreError::Unknown`] with the client library's error.
    pub fn unknown(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Unknown { message: message.into(), source: Some(source.into()) }
    }

    /// [`StoreError::Denied`] with the client library's error.
    pub fn denied(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Denied { message: message.into(), source: Some(source.into()) }
    }

    /// [`StoreError::Other`] with the client library's error.
    pub fn other(message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Other { message: message.into(), source: Some(source.into()) }
    }

    /// [`StoreError::Other`] for a request that the adapter itself turns down.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::Other { message: message.into(), source: None }
    }
}
