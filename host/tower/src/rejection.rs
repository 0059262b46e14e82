//! [`Rejection`]: why a call was not made.

use std::error::Error as StdError;
use std::sync::Arc;

use circuitry::{Refusal, StartError};

use crate::classify::causes;
use crate::key::KeyError;

/// Why a call was not made: the service has not seen the request.
///
/// It is the error of [`AsError`](crate::AsError) and of the reqwest middleware, and is among the extensions of a response that a layer
/// made itself.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The circuit refuses.
    #[error("circuit `{}`: {refusal}", circuit.escape_debug())]
    Refused {
        /// The circuit's name, as it is shared.
        circuit: String,
        /// Why, and when to come back.
        #[source]
        refusal: Refusal,
    },
    /// The request does not say behind which circuit it stands.
    #[error("the request has no circuit: {0}")]
    Key(#[source] KeyError),
    /// The circuit could not be asked, and no fallback applies: what is stored for it is no record, or the component failed. A store
    /// that is down is no such error. A warning is logged, at most every ten seconds.
    #[error("{0}")]
    Circuit(#[source] Arc<StartError>),
}

impl Rejection {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            Self::Key(_) | Self::Circuit(_) => None,
        }
    }

    /// The rejection in an error or among its sources.
    ///
    /// # Example
    /// ```
    /// # use std::time::Duration;
    /// # use circuitry_tower::{BoxError, Rejection};
    /// fn wait_for(error: &BoxError) -> Option<Duration> {
    ///     Rejection::find(&**error)?.refusal().map(|refusal| refusal.spread_delay())
    /// }
    /// # assert_eq!(wait_for(&"another".into()), None);
    /// ```
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|cause| cause.downcast_ref())
    }
}
