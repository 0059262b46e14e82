//! [`RequestKey`]: behind which circuit a request stands, and [`KeyError`]: why that cannot be told.

use std::borrow::Cow;

use circuitry::context::TENANT;
use circuitry::{Breaker, Context, Factory, default_name};

use crate::head::RequestHead;

/// The most bytes of a circuit's name, as circuitry has it.
pub(crate) const NAME_MAX_BYTES: usize = 1024;

/// Says behind which circuit a request stands.
///
/// [`CircuitKey`](crate::CircuitKey) is one for the usual cases; a function of a [`RequestHead`] is one too.
///
/// Where the key cannot be told it must be an error, never a key that others share: the request is then refused and its
/// circuit is nobody's. What an outsider can choose at will (a path, the `Host` of whoever sends anything) makes as many circuits as he
/// likes, so take it from what has been checked.
///
/// # Example
/// ```
/// use circuitry_tower::{Key, KeyError, KeyProblem, RequestHead, RequestKey};
///
/// /// Put into the request by the layer that checks who is there.
/// #[derive(Clone)]
/// struct Login { tenant: String }
///
/// fn key(request: &RequestHead<'_>) -> Result<Key, KeyError> {
///     let login = request.extensions().get::<Login>();
///     let login = login.ok_or_else(|| KeyError::new("the login", KeyProblem::Missing))?;
///     Ok(Key::new("orders").tenant(&login.tenant))
/// }
///
/// let mut request = http::Request::new(());
/// assert_eq!(key.key(&RequestHead::of(&request)).unwrap_err().to_string(), "the login is missing");
/// request.extensions_mut().insert(Login { tenant: "acme".into() });
/// assert_eq!(key.key(&RequestHead::of(&request))?, Key::new("orders").tenant("acme"));
/// # Ok::<(), KeyError>(())
/// ```
pub trait RequestKey: Send + Sync + 'static {
    /// The key of `request`.
    ///
    /// # Errors
    /// [`KeyError`], which names what is wrong. The request is refused; by [`Respond`](crate::Respond) with the status 400.
    fn key(&self, request: &RequestHead<'_>) -> Result<Key, KeyError>;
}

impl<F> RequestKey for F
where
    F: Fn(&RequestHead<'_>) -> Result<Key, KeyError> + Send + Sync + 'static,
{
    fn key(&self, request: &RequestHead<'_>) -> Result<Key, KeyError> {
        self(request)
    }
}

/// A name and a context, of which [`Factory::breaker_for`] makes a circuit.
///
/// The name, with the tenant as circuitry's [`default_name`] has it, and each value of the context have at most 1,024 bytes, else the
/// request has no key. That is so under a [name function](circuitry::SettingsBuilder::name_fn) of your own too, which may shorten them
/// all the same; the name that it makes has 1 to 1,024 bytes as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    name: String,
    context: Context,
}

impl Key {
    /// The circuit of `name`, for everybody.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), context: Context::new() }
    }

    /// The same for one tenant alone.
    #[must_use]
    pub fn tenant(self, tenant: impl Into<String>) -> Self {
        self.with(TENANT, tenant)
    }

    /// The same with one value more in its context, for a [name function](circuitry::SettingsBuilder::name_fn) of your own. The
    /// default name knows the tenant alone.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context = self.context.with(key, value);
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the circuit is for, beside its name.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The breaker of this key. A key that is too long by the default name is found before the factory remembers it, one that only a name
    /// function makes so after that: the name is not told otherwise.
    pub(crate) fn breaker(&self, factory: &Factory) -> Result<Breaker, KeyError> {
        if self.name.is_empty() {
            return Err(KeyError::new("the circuit's name", KeyProblem::Empty));
        }
        if self.context.value(TENANT) == Some("") {
            return Err(KeyError::new("the tenant", KeyProblem::Empty));
        }
        let bytes = default_name(&self.name, &self.context).len();
        let others = self.context.iter().map(|(_, value)| value.len()).max().unwrap_or_default();
        bounded(bytes.max(others))?;
        let breaker = factory.breaker_for(&self.name, &self.context);
        bounded(breaker.name().len())?;
        Ok(breaker)
    }
}

/// Whether a circuit's name may have so many bytes.
fn bounded(bytes: usize) -> Result<(), KeyError> {
    let problem = match bytes {
        0 => KeyProblem::Empty,
        1..=NAME_MAX_BYTES => return Ok(()),
        _ => KeyProblem::TooLong { bytes, most_bytes: NAME_MAX_BYTES },
    };
    Err(KeyError::new("the circuit's name", problem))
}

/// Why a request has no key. It tells what is wrong and never the value, which may be anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} {problem}")]
pub struct KeyError {
    part: Cow<'static, str>,
    problem: KeyProblem,
}

impl KeyError {
    /// Says what is wrong with `part` of the request: "the header `x-tenant`".
    pub fn new(part: impl Into<Cow<'static, str>>, problem: KeyProblem) -> Self {
        Self { part: part.into(), problem }
    }

    /// The part of the request that is wrong.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &KeyProblem {
        &self.problem
    }
}

/// What is wrong with a part of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyProblem {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It is there more than once, and who reads one may read another than the next who does.
    #[error("is there more than once: send it once")]
    Repeated,
    /// It is there and empty.
    #[error("is empty")]
    Empty,
    /// Its bytes are no text.
    #[error("is no UTF-8")]
    NotUtf8,
    /// A tab, a line break or another control character is in it.
    #[error("has a control character in it")]
    ControlCharacter,
    /// It is longer than a circuit's name may be.
    #[error("has {bytes} bytes, `%` and `/` taken as three each: at most {most_bytes} will do")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        most_bytes: usize,
    },
    /// It has not the form that it should have.
    #[error("cannot be read: {0}")]
    Malformed(&'static str),
}

/// Takes `value` as a part of a key: no tenant is the empty one, and none has a line break in its name.
pub(crate) fn checked(value: &str) -> Result<&str, KeyProblem> {
    match value {
        "" => Err(KeyProblem::Empty),
        // Before it is looked at any closer, or copied.
        value if value.len() > NAME_MAX_BYTES => {
            Err(KeyProblem::TooLong { bytes: value.len(), most_bytes: NAME_MAX_BYTES })
        }
        value if value.chars().any(char::is_control) => Err(KeyProblem::ControlCharacter),
        value => Ok(value),
    }
}
