//! One request: admitted or refused, passed on, answered, and settled.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingRequest, IncomingResponse, Method, OutgoingRequest,
    OutgoingResponse, RequestOptions, ResponseOutparam, Scheme,
};
use wasip2::io::poll::Pollable;

use crate::answer::Own;
use crate::circuit::circuit_name;
use crate::config::{Config, Limits, StoreFailure};
use crate::guard::{Admission, Ending, Guard};
use crate::headers::{
    Header, add_forwarded, content_length, fields, passed_on, retry_after_ms, takes_trailers, values,
};
use crate::log;
use crate::pipe::{Pipe, Source, Step};
use crate::upstream::Upstream;
use crate::wait::{after, any};

/// A client that has sent nothing for so long has stalled: an upstream that closes then has had enough of it, and is not broken.
const STALL_MS: u64 = 1_000;

const BROKE_OFF: &str = "it broke off, or has another length than it says";
const TOO_SLOW: &str = "it took too long";

/// Answers `request`.
pub(crate) fn serve(config: &Config, request: IncomingRequest, out: ResponseOutparam) {
    let is_head = matches!(request.method(), Method::Head);
    match Call::admitted(config, &request) {
        Ok(call) => call.run(request, out),
        Err(own) => own.send(out, is_head),
    }
}

/// Statuses that precede an answer, and 101, which is none to a request that asked for no other protocol.
const INTERIM: core::ops::Range<u16> = 100..200;

/// A request that may go.
struct Call<'a> {
    config: &'a Config,
    /// `None` where the store is down and requests are admitted then.
    guard: Option<Guard>,
    outgoing: OutgoingRequest,
    length: Option<u64>,
    is_head: bool,
}

/// What came instead of an answer.
struct Failed {
    ending: Ending,
    own: Own,
}

impl<'a> Call<'a> {
    /// Whatever could be wrong with the request is found out before its circuit is asked.
    fn admitted(config: &'a Config, request: &IncomingRequest) -> Result<Self, Own> {
        let headers = request.headers().entries();
        let (authority, path) = (request.authority(), request.path_with_query());
        let path = path.unwrap_or_else(|| "/".into());
        let upstream = config.upstreams.find(authority.as_deref(), &path).ok_or(Own::NoUpstream)?;
        let tenant = config.tenant_header.as_deref().map(|name| values(&headers, name));
        let circuit = circuit_name(&upstream.name, tenant).map_err(Own::BadRequest)?;
        let length = content_length(&headers);
        let outgoing = outgoing(request, headers, upstream, &path, authority.as_deref())?;

        let guard = match Guard::start(&circuit, config) {
            Admission::Admitted(guard) => Some(guard),
            Admission::Refused { reason, retry_after_ms } => {
                return Err(Own::Refused { reason, retry_after_ms });
            }
            Admission::StoreDown => match config.store_failure {
                StoreFailure::Admit => None,
                StoreFailure::Refuse => return Err(Own::StoreDown),
            },
            Admission::Misconfigured(fault) => {
                log::line(&fault);
                return Err(Own::Misconfigured);
            }
            Admission::NoCircuit => return Err(Own::BadRequest("no circuit has its name")),
        };
        let is_head = matches!(request.method(), Method::Head);
        Ok(Self { config, guard, outgoing, length, is_head })
    }

    fn run(mut self, request: IncomingRequest, out: ResponseOutparam) {
        match self.answered(request) {
            Ok((response, upload)) => self.pass_back(response, upload, out),
            Err(Failed { ending, own }) => {
                settle(self.guard.take(), ending);
                own.send(out, self.is_head);
            }
        }
    }

    /// Sends the request, and waits for the head of the answer. What is left of the request comes with it.
    fn answered(&mut self, request: IncomingRequest) -> Result<(IncomingResponse, Option<Pipe>), Failed> {
        let limits = self.config.limits;
        let outgoing = core::mem::replace(&mut self.outgoing, OutgoingRequest::new(Fields::new()));
        let mut upload = upload(&request, &outgoing, self.length)?;
        if self.length == Some(0)
            && let Some(pipe) = &mut upload
        {
            // To the upstream it is complete with its head.
            self.check_end(pipe)?;
        }
        let began_ns = monotonic_clock::now();
        let future =
            outgoing_handler::handle(outgoing, Some(options(limits))).map_err(|code| failed(&code))?;
        // Since when the upstream has had something to do, and since when the client has.
        let (mut upstream_ns, mut client_ns) = (began_ns, began_ns);
        loop {
            let step = match &mut upload {
                None => Step::Ended,
                Some(pipe) => {
                    let (step, has_moved) = pipe.advance_and_finish();
                    if has_moved {
                        (upstream_ns, client_ns) = (monotonic_clock::now(), monotonic_clock::now());
                    }
                    step
                }
            };
            if let Some(answer) = future.get() {
                let has_stalled =
                    step == Step::AwaitsSource && monotonic_clock::now() >= after(client_ns, STALL_MS);
                return match answer {
                    Ok(Ok(response)) => Ok((response, upload)),
                    _ if step == Step::SourceBroke => Err(client_failed(BROKE_OFF)),
                    Ok(Err(ErrorCode::ConnectionTerminated | ErrorCode::HttpProtocolError))
                        if has_stalled =>
                    {
                        Err(client_failed(TOO_SLOW))
                    }
                    Ok(Err(code)) => Err(failed(&code)),
                    Err(()) => Err(upstream_failed("there was no answer")),
                };
            }
            let mut deadline_ns = after(upstream_ns, limits.connect_ms.saturating_add(limits.first_byte_ms));
            match step {
                Step::AwaitsSource => {
                    deadline_ns = after(client_ns, limits.client_ms).min(after(began_ns, limits.body_ms));
                }
                Step::SourceBroke => return Err(client_failed(BROKE_OFF)),
                // What it does not want of the request it may still answer.
                Step::Ended | Step::SinkClosed => upload = None,
                Step::AwaitsSink => {}
            }
            if monotonic_clock::now() >= deadline_ns {
                return Err(match step {
                    Step::AwaitsSource => client_failed(TOO_SLOW),
                    _ => upstream_failed("it did not answer in time"),
                });
            }
            self.wait(&future, upload.as_ref(), step, deadline_ns);
        }
    }

    fn wait(&mut self, future: &FutureIncomingResponse, upload: Option<&Pipe>, step: Step, deadline_ns: u64) {
        let mut pollables = Vec::from([future.subscribe()]);
        pollables.extend(upload.and_then(|pipe| pipe.pollable(step)));
        let side = if step == Step::AwaitsSource { Side::Client } else { Side::Upstream };
        wait(self.guard.as_mut(), &pollables, deadline_ns, side);
    }

    /// Waits until the body of a request that says it has none has ended without a byte.
    fn check_end(&mut self, pipe: &mut Pipe) -> Result<(), Failed> {
        let deadline_ns = after(monotonic_clock::now(), self.config.limits.client_ms);
        loop {
            match pipe.advance().0 {
                Step::Ended => return Ok(()),
                step @ (Step::AwaitsSource | Step::AwaitsSink) if monotonic_clock::now() < deadline_ns => {
                    wait(self.guard.as_mut(), pipe.pollable(step).as_slice(), deadline_ns, Side::Client);
                }
                Step::AwaitsSource | Step::AwaitsSink => return Err(client_failed(TOO_SLOW)),
                Step::SourceBroke | Step::SinkClosed => return Err(client_failed(BROKE_OFF)),
            }
        }
    }

    /// Passes the answer back.
    fn pass_back(mut self, response: IncomingResponse, upload: Option<Pipe>, out: ResponseOutparam) {
        let status = response.status();
        let headers = response.headers().entries();
        let is_failure = self.config.failure_statuses.contain(status);
        let failure =
            Ending::Failure { retry_after_ms: is_failure.then(|| retry_after_ms(&headers)).flatten() };
        let length = content_length(&headers);
        if INTERIM.contains(&status) {
            settle(self.guard.take(), failure);
            return Own::UpstreamFailed("it changed the protocol unasked").send(out, self.is_head);
        }
        let Some(answer) = answer(status, headers) else {
            settle(self.guard.take(), failure);
            return Own::UpstreamFailed("its headers are too large").send(out, self.is_head);
        };
        if is_failure {
            // Before anybody hears of it.
            settle(self.guard.take(), failure);
        }
        if self.is_head || matches!(status, 204 | 304) {
            // With its head the client has all of it.
            settle(self.guard.take(), Ending::Success);
            return ResponseOutparam::set(out, Ok(answer));
        }
        let source = response.consume().ok().and_then(Source::open);
        let download = source.zip(answer.body().ok());
        let download = download.and_then(|(source, sink)| Pipe::new(source, Vec::new(), length, sink));
        let Some(mut download) = download else {
            settle(self.guard.take(), failure);
            return Own::UpstreamFailed("its answer has no body").send(out, self.is_head);
        };
        if length == Some(0) {
            return self.pass_back_empty(answer, &mut download, upload, out);
        }
        ResponseOutparam::set(out, Ok(answer));
        let ending = self.transfer(&mut download, upload);
        settle(self.guard.take(), ending);
        if ending == Ending::Success {
            self.finish(&mut download);
        }
        // Dropped without an end, the answer is cut, and the client sees that; one of HTTP/1.0 only where the answer has a length.
    }

    /// Passes back an answer that says it has no body: with its head the client has all of it, so it comes last.
    fn pass_back_empty(
        mut self,
        answer: OutgoingResponse,
        download: &mut Pipe,
        upload: Option<Pipe>,
        out: ResponseOutparam,
    ) {
        let ending = self.transfer(download, upload);
        settle(self.guard.take(), ending);
        match ending {
            Ending::Success => {
                ResponseOutparam::set(out, Ok(answer));
                self.finish(download);
            }
            Ending::Ignored => Own::ClientFailed("it did not come to its end").send(out, self.is_head),
            Ending::Failure { .. } => {
                Own::UpstreamFailed("its answer has another length than it says").send(out, self.is_head);
            }
        }
    }

    /// Moves the answer's body, and what is left of the request's, until the first has ended.
    fn transfer(&mut self, download: &mut Pipe, mut upload: Option<Pipe>) -> Ending {
        let (limits, failure) = (self.config.limits, Ending::Failure { retry_after_ms: None });
        let began_ns = monotonic_clock::now();
        let mut moved_ns = began_ns;
        let mut waits = Waits::default();
        loop {
            let (mut pollables, mut has_moved, mut awaits_request) = (Vec::new(), false, false);
            if let Some(pipe) = &mut upload {
                let step;
                (step, has_moved) = pipe.advance_and_finish();
                awaits_request = step == Step::AwaitsSource;
                pollables.extend(pipe.pollable(step));
                match step {
                    Step::Ended | Step::SinkClosed => upload = None,
                    Step::SourceBroke => return Ending::Ignored,
                    Step::AwaitsSource | Step::AwaitsSink => {}
                }
            }
            let (step, has_come) = download.advance();
            let now_ns = monotonic_clock::now();
            if has_moved || has_come {
                moved_ns = now_ns;
            }
            let has_stalled = awaits_request && now_ns >= after(moved_ns, STALL_MS);
            let (side, limit_ms) = match step {
                Step::Ended => return Ending::Success,
                Step::SourceBroke if !has_stalled => return failure,
                Step::SourceBroke | Step::SinkClosed => return Ending::Ignored,
                Step::AwaitsSource if !awaits_request => (Side::Upstream, limits.between_bytes_ms),
                // It takes no more of the answer; or the upstream may want the rest of the request first.
                Step::AwaitsSource | Step::AwaitsSink => (Side::Client, limits.client_ms),
            };
            if now_ns >= after(began_ns, limits.body_ms) {
                // Whoever was waited for longer has taken too long.
                return if waits.client_ns > waits.upstream_ns { Ending::Ignored } else { failure };
            }
            let deadline_ns = after(moved_ns, limit_ms);
            if now_ns >= deadline_ns {
                return if side == Side::Client { Ending::Ignored } else { failure };
            }
            pollables.extend(download.pollable(step));
            wait(self.guard.as_mut(), &pollables, deadline_ns.min(after(began_ns, limits.body_ms)), side);
            waits.add(side, monotonic_clock::now().saturating_sub(now_ns));
        }
    }

    /// Ends the answer.
    fn finish(&mut self, download: &mut Pipe) {
        let deadline_ns = after(monotonic_clock::now(), self.config.limits.client_ms);
        while let Some(step) = download.finish() {
            if monotonic_clock::now() >= deadline_ns {
                return;
            }
            any(download.pollable(step).as_slice(), deadline_ns);
        }
    }
}

/// Who is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// How long the answer's body waited for each side.
#[derive(Default)]
struct Waits {
    client_ns: u64,
    upstream_ns: u64,
}

impl Waits {
    fn add(&mut self, side: Side, waited_ns: u64) {
        let sum_ns = match side {
            Side::Client => &mut self.client_ns,
            Side::Upstream => &mut self.upstream_ns,
        };
        *sum_ns = sum_ns.saturating_add(waited_ns);
    }
}

/// Waits for one of `pollables`, and prolongs the lease of a probe meanwhile.
fn wait(guard: Option<&mut Guard>, pollables: &[Pollable], deadline_ns: u64, side: Side) {
    let Some(guard) = guard else { return any(pollables, deadline_ns) };
    let (began_ns, renew_at_ns) = (monotonic_clock::now(), guard.renew_at_ns().unwrap_or(u64::MAX));
    any(pollables, deadline_ns.min(renew_at_ns));
    let now_ns = monotonic_clock::now();
    if side == Side::Client {
        guard.leave_out(now_ns.saturating_sub(began_ns));
    }
    if now_ns >= renew_at_ns {
        guard.renew();
    }
}

fn settle(guard: Option<Guard>, ending: Ending) {
    if let Some(guard) = guard {
        guard.end(ending);
    }
}

/// The request for the upstream, without its body.
fn outgoing(
    request: &IncomingRequest,
    headers: Vec<Header>,
    upstream: &Upstream,
    path: &str,
    authority: Option<&str>,
) -> Result<OutgoingRequest, Own> {
    let takes_trailers = takes_trailers(&headers);
    let mut headers = passed_on(headers).ok_or(Own::BadRequest("its headers are too large"))?;
    if takes_trailers {
        headers.push(("te".to_owned(), b"trailers".to_vec()));
    }
    add_forwarded(&mut headers, authority, matches!(request.scheme(), Some(Scheme::Https)));
    let outgoing = OutgoingRequest::new(fields(&headers));
    let scheme = if upstream.is_https { Scheme::Https } else { Scheme::Http };
    let method = request.method();
    if matches!(method, Method::Connect) || outgoing.set_method(&method).is_err() {
        return Err(Own::BadRequest("its method"));
    }
    outgoing.set_path_with_query(Some(path)).map_err(|()| Own::BadRequest("its path"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| Own::Misconfigured)?;
    outgoing.set_authority(Some(&upstream.authority)).map_err(|()| Own::Misconfigured)?;
    Ok(outgoing)
}

/// The body of the request, on its way, if it has one. Only a look tells: a length may be left beside chunks, and is wrong then.
fn upload(
    request: &IncomingRequest,
    outgoing: &OutgoingRequest,
    length: Option<u64>,
) -> Result<Option<Pipe>, Failed> {
    let cannot_be_read = || client_failed("its body cannot be read");
    let source = request.consume().ok().and_then(Source::open).ok_or_else(cannot_be_read)?;
    match source.first_bytes() {
        Ok(Some(first)) => {
            let pipe = outgoing.body().ok().and_then(|sink| Pipe::new(source, first, length, sink));
            pipe.map(Some).ok_or_else(cannot_be_read)
        }
        Ok(None) if length.unwrap_or_default() == 0 => Ok(None),
        Ok(None) | Err(_) => Err(client_failed(BROKE_OFF)),
    }
}

/// The runtime knows best how long connecting takes; the other waits are the gateway's own, because only it knows whom it is
/// waiting for.
fn options(limits: Limits) -> RequestOptions {
    let options = RequestOptions::new();
    let nanoseconds = |milliseconds| Some(after(0, milliseconds));
    let longest_ms = limits.body_ms.saturating_add(limits.first_byte_ms).saturating_add(limits.connect_ms);
    // A runtime that does not support them has others.
    let _ = options.set_connect_timeout(nanoseconds(limits.connect_ms));
    let _ = options.set_first_byte_timeout(nanoseconds(longest_ms));
    let _ = options.set_between_bytes_timeout(nanoseconds(longest_ms));
    options
}

/// The head of the answer for the client; `None` when it is too large.
fn answer(status: u16, headers: Vec<Header>) -> Option<OutgoingResponse> {
    let response = OutgoingResponse::new(fields(&passed_on(headers)?));
    response.set_status_code(status).ok()?;
    Some(response)
}

fn failed(code: &ErrorCode) -> Failed {
    upstream_failed(match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) => "its name could not be looked up",
        ErrorCode::DestinationNotFound | ErrorCode::DestinationUnavailable | ErrorCode::ConnectionRefused => {
            "it takes no connection"
        }
        ErrorCode::ConnectionTimeout => "it did not take the connection in time",
        ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError | ErrorCode::TlsAlertReceived(_) => {
            "there is no TLS with it"
        }
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionReadTimeout => "it did not answer in time",
        ErrorCode::HttpRequestDenied => "the runtime does not allow the request",
        _ => "it did not answer as HTTP has it",
    })
}

fn upstream_failed(why: &'static str) -> Failed {
    Failed { ending: Ending::Failure { retry_after_ms: None }, own: Own::UpstreamFailed(why) }
}

fn client_failed(why: &'static str) -> Failed {
    Failed { ending: Ending::Ignored, own: Own::ClientFailed(why) }
}
