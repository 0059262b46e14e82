//! [`CircuitKey`]: a key put together of [`Part`]s of the request.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use circuitry::context::TENANT;
use http::HeaderName;
use http::uri::Scheme;

use crate::head::RequestHead;
use crate::host;
use crate::key::{Key, KeyError, KeyProblem, RequestKey, checked};

/// A key of parts of the request.
///
/// Two requests have the same key only if all parts are the same: parts are joined by a space, and a space or a `%` within one
/// becomes `%20` or `%25`. The tenant is kept apart, as circuitry does it.
///
/// # Example
/// ```
/// use circuitry_tower::{CircuitKey, Key, Part, RequestHead, RequestKey};
///
/// // One circuit for each host and tenant.
/// let key = CircuitKey::of(Part::host()).tenant(Part::header("x-tenant".parse()?));
/// let request = http::Request::get("http://API.example.com:80/orders").header("x-tenant", "acme").body(())?;
/// assert_eq!(key.key(&RequestHead::of(&request))?, Key::new("api.example.com").tenant("acme"));
///
/// // Without the header there is no key, and not that of somebody else.
/// let request = http::Request::get("http://api.example.com/orders").body(())?;
/// let error = key.key(&RequestHead::of(&request)).unwrap_err();
/// assert_eq!(error.to_string(), "the header `x-tenant` is missing");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CircuitKey {
    name: Vec<Part>,
    context: Vec<(Cow<'static, str>, Part)>,
}

impl CircuitKey {
    /// Circuits with the name that `part` says.
    pub fn of(part: Part) -> Self {
        Self { name: vec![part], context: Vec::new() }
    }

    /// The circuit of this name, for all requests.
    pub fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self::of(Part::literal(name))
    }

    /// Another part of the name.
    #[must_use]
    pub fn and(mut self, part: Part) -> Self {
        self.name.push(part);
        self
    }

    /// A circuit for each tenant. A request that does not say its tenant is refused.
    #[must_use]
    pub fn tenant(self, part: Part) -> Self {
        self.with(TENANT, part)
    }

    /// One value more in the context, for a [name function](circuitry::SettingsBuilder::name_fn) of your own.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, part: Part) -> Self {
        self.context.push((key.into(), part));
        self
    }
}

impl RequestKey for CircuitKey {
    fn key(&self, request: &RequestHead<'_>) -> Result<Key, KeyError> {
        let mut key = match self.name.as_slice() {
            [only] => Key::new(only.of(request)?),
            parts => {
                let escaped = |part: &Part| -> Result<String, KeyError> {
                    Ok(part.of(request)?.replace('%', "%25").replace(' ', "%20"))
                };
                Key::new(parts.iter().map(escaped).collect::<Result<Vec<_>, _>>()?.join(" "))
            }
        };
        for (name, part) in &self.context {
            key = key.with(name.as_ref(), part.of(request)?);
        }
        Ok(key)
    }
}

/// A part of a key. Its value has 1 to 1,024 bytes of text and no control characters, else the request has no key.
#[derive(Clone)]
pub struct Part(Source);

#[derive(Clone)]
enum Source {
    Literal(Cow<'static, str>),
    Host(Scheme),
    Header(HeaderName),
    #[cfg(feature = "axum")]
    MatchedPath,
    Computed(Cow<'static, str>, Compute),
}

type Compute = Arc<dyn Fn(&RequestHead<'_>) -> Option<String> + Send + Sync>;

impl Part {
    /// Always the same.
    pub fn literal(text: impl Into<Cow<'static, str>>) -> Self {
        Self(Source::Literal(text.into()))
    }

    /// The host that the request is for: of its URI, else of its `Host` header. In lower case, with its port unless that is the
    /// scheme's default; where no scheme is told, that of http.
    ///
    /// For calls that go out. On a server whose clients are strangers each `Host` they think of becomes a circuit.
    pub fn host() -> Self {
        Self::host_by(Scheme::HTTP)
    }

    /// Like [`Part::host`], and takes a request whose scheme is not told for one of `scheme`: a server behind TLS is asked for
    /// `example.com:443` and `example.com` alike.
    pub fn host_by(scheme: Scheme) -> Self {
        Self(Source::Host(scheme))
    }

    /// The value of a header, which must be there once. Upper and lower case differ.
    pub fn header(name: HeaderName) -> Self {
        Self(Source::Header(name))
    }

    /// The route of an axum router as it is written there: `/orders/{id}`. Needs the feature `axum`.
    ///
    /// Add the layer with `Router::route_layer`: where no route matches there is no key.
    #[cfg(feature = "axum")]
    pub fn matched_path() -> Self {
        Self(Source::MatchedPath)
    }

    /// What `compute` makes of the request; nothing is told as `what` that is missing.
    ///
    /// # Example
    /// ```
    /// use circuitry_tower::{CircuitKey, Part};
    ///
    /// #[derive(Clone)]
    /// struct Login { tenant: String }
    ///
    /// let tenant = Part::computed("the login", |request| {
    ///     request.extensions().get::<Login>().map(|login| login.tenant.clone())
    /// });
    /// let key = CircuitKey::named("orders").tenant(tenant);
    /// # let _ = key;
    /// ```
    pub fn computed(
        what: impl Into<Cow<'static, str>>,
        compute: impl Fn(&RequestHead<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self(Source::Computed(what.into(), Arc::new(compute)))
    }

    /// The value of this part.
    fn of<'a>(&'a self, request: &RequestHead<'a>) -> Result<Cow<'a, str>, KeyError> {
        let wrong = |problem| KeyError::new(self.told(), problem);
        let value: Cow<'a, str> = match &self.0 {
            Source::Literal(text) => text.as_ref().into(),
            Source::Host(scheme) => host::of(request, scheme).map_err(wrong)?.into(),
            Source::Header(name) => header(request, name).map_err(wrong)?.into(),
            #[cfg(feature = "axum")]
            Source::MatchedPath => {
                let path = request.extensions().get::<axum::extract::MatchedPath>();
                path.ok_or_else(|| wrong(KeyProblem::Missing))?.as_str().into()
            }
            Source::Computed(_, compute) => {
                compute(request).ok_or_else(|| wrong(KeyProblem::Missing))?.into()
            }
        };
        checked(&value).map_err(wrong)?;
        Ok(value)
    }

    /// What it is called in an error.
    fn told(&self) -> Cow<'static, str> {
        match &self.0 {
            Source::Literal(_) => "the circuit's name".into(),
            Source::Host(_) => "the host".into(),
            Source::Header(name) => format!("the header `{name}`").into(),
            #[cfg(feature = "axum")]
            Source::MatchedPath => "the matched path of the router".into(),
            Source::Computed(what, _) => what.clone(),
        }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Literal(text) => formatter.debug_tuple("Part").field(text).finish(),
            _ => formatter.debug_tuple("Part").field(&self.told()).finish(),
        }
    }
}

/// The one value of a header, as text.
pub(crate) fn header<'a>(request: &RequestHead<'a>, name: &HeaderName) -> Result<&'a str, KeyProblem> {
    let mut values = request.headers().get_all(name).iter();
    let value = values.next().ok_or(KeyProblem::Missing)?;
    if values.next().is_some() {
        return Err(KeyProblem::Repeated);
    }
    std::str::from_utf8(value.as_bytes()).map_err(|_| KeyProblem::NotUtf8)
}
