//! What stands behind the circuits: it asks the upstream.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{Method, Response, Uri, Version};
use circuitry_tower::{BoxError, CallerError};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::answer::NoTunnel;
use crate::download::Download;
use crate::headers;
use crate::options::Options;
use crate::upload::Upload;

/// For how long a connection may lie unused: shorter than servers are used to close theirs, so that they seldom do it under a request.
const UNUSED: Duration = Duration::from_secs(4);

#[derive(Clone, Debug)]
pub(crate) struct Forward {
    client: Client<HttpConnector, Upload>,
    upstream: Authority,
    first_byte_timeout: Duration,
    body_idle_timeout: Duration,
}

impl Forward {
    pub(crate) fn new(options: &Options) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(options.connect_timeout()));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(UNUSED)
            .build(connector);
        Self {
            client,
            upstream: options.upstream.clone(),
            first_byte_timeout: options.first_byte_timeout(),
            body_idle_timeout: options.body_idle_timeout(),
        }
    }

    /// Asks the upstream. Dropped, it gives up.
    pub(crate) async fn send(self, request: Request) -> Result<Response<Download<Incoming>>, BoxError> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(CallerError::new(NoTunnel).into());
        }
        let client = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip());
        headers::for_upstream(&mut head.headers, &head.uri, client, &self.upstream);
        head.uri = self.uri(head.uri)?;
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let (upload, progress) = Upload::new(body);
        headers::announce(&mut head.headers, &upload);
        let answer = tokio::select! {
            answer = self.client.request(Request::from_parts(head, upload)) => answer?,
            late = progress.stalls(self.first_byte_timeout) => return Err(late.into()),
        };
        let (mut head, body) = answer.into_parts();
        headers::keep_end_to_end(&mut head.headers);
        head.version = Version::HTTP_11;
        // The upload may be under way yet.
        Ok(Response::from_parts(head, Download::new(body, progress, self.body_idle_timeout)))
    }

    /// The same target on the upstream.
    fn uri(&self, target: Uri) -> Result<Uri, BoxError> {
        let path = target.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.upstream.clone()).path_and_query(path);
        Ok(uri.build().map_err(CallerError::new)?)
    }
}
