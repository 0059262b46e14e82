//! [`Pipe`]: a body on its way from one message to another. It never blocks: it says what it waits for.

use alloc::vec::Vec;

use wasip2::http::types::{Fields, FutureTrailers, IncomingBody, OutgoingBody};
use wasip2::io::poll::Pollable;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::headers::{fields, passed_on};

const READ_MAX: u64 = 64 * 1024;

/// A body, or what is left of it.
pub(crate) struct Pipe {
    source: Option<Source>,
    /// Comes when the body has ended.
    trailers: Option<FutureTrailers>,
    sent_trailers: Option<Fields>,
    /// Read, and not yet written from `written` on.
    buffer: Vec<u8>,
    written: usize,
    /// The last bytes of a body of known length are kept back until [`Pipe::finish`], so that whoever has them finds the request
    /// settled.
    keeps_last: bool,
    /// Bytes that are still to be read, where the message says how many it has.
    left: Option<u64>,
    sink: Option<Sink>,
}

/// Where a body comes from. In the order in which its parts have to be dropped.
pub(crate) struct Source {
    stream: InputStream,
    body: IncomingBody,
}

impl Source {
    pub(crate) fn open(body: IncomingBody) -> Option<Self> {
        Some(Self { stream: body.stream().ok()?, body })
    }

    /// What has come of it already; `None` when it has ended without a byte, as a message without a body does.
    pub(crate) fn first_bytes(&self) -> Option<Vec<u8>> {
        match self.stream.read(READ_MAX) {
            Err(StreamError::Closed) => None,
            // What is wrong shows again.
            Err(StreamError::LastOperationFailed(_)) => Some(Vec::new()),
            Ok(bytes) => Some(bytes),
        }
    }
}

/// In the order in which its parts have to be dropped.
struct Sink {
    stream: OutputStream,
    body: OutgoingBody,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The source has nothing to read now.
    AwaitsSource,
    /// The sink takes nothing now.
    AwaitsSink,
    /// All of it has come, trailers included; [`Pipe::finish`] is next.
    Ended,
    /// The source ended too early.
    SourceBroke,
    /// The sink takes no more.
    SinkClosed,
}

impl Pipe {
    /// From `source`, of which `first` was read and which has `length` bytes if that is known, to `sink`.
    pub(crate) fn new(
        source: Source,
        first: Vec<u8>,
        length: Option<u64>,
        sink: OutgoingBody,
    ) -> Option<Self> {
        let sink = Sink { stream: sink.write().ok()?, body: sink };
        let mut pipe = Self {
            source: Some(source),
            trailers: None,
            sent_trailers: None,
            buffer: Vec::new(),
            written: 0,
            keeps_last: false,
            left: length,
            sink: Some(sink),
        };
        if !first.is_empty() {
            pipe.take_in(first);
        }
        Some(pipe)
    }

    /// Goes on as far as it can without waiting, and says whether it has moved anything.
    pub(crate) fn advance(&mut self) -> (Step, bool) {
        let mut has_moved = false;
        loop {
            if !self.keeps_last && self.written < self.buffer.len() {
                match self.write_some() {
                    Ok(true) => has_moved = true,
                    Ok(false) => return (Step::AwaitsSink, has_moved),
                    Err(_) => return (Step::SinkClosed, has_moved),
                }
                continue;
            }
            if let Some(trailers) = &self.trailers {
                match trailers.get() {
                    None => return (Step::AwaitsSource, has_moved),
                    Some(Ok(Ok(came))) => {
                        let trailers = came.and_then(|came| passed_on(came.entries()));
                        self.sent_trailers = trailers.map(|trailers| fields(&trailers));
                        self.trailers = None;
                        return (Step::Ended, true);
                    }
                    Some(_) => return (Step::SourceBroke, has_moved),
                }
            }
            let Some(source) = &self.source else { return (Step::Ended, has_moved) };
            match source.stream.read(READ_MAX) {
                Ok(bytes) if bytes.is_empty() => return (Step::AwaitsSource, has_moved),
                Ok(bytes) => {
                    has_moved = true;
                    self.take_in(bytes);
                }
                Err(StreamError::Closed) => {
                    has_moved = true;
                    if let Some(Source { stream, body }) = self.source.take() {
                        drop(stream);
                        self.trailers = Some(IncomingBody::finish(body));
                    }
                }
                Err(StreamError::LastOperationFailed(_)) => return (Step::SourceBroke, has_moved),
            }
        }
    }

    fn take_in(&mut self, bytes: Vec<u8>) {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.map(|left| left.saturating_sub(size));
        if self.keeps_last {
            // More than the message said; the runtime will not have it, and says so when it is written.
            self.buffer.extend_from_slice(&bytes);
            return;
        }
        self.buffer = bytes;
        self.written = 0;
        self.keeps_last = self.left == Some(0);
    }

    /// Writes what the sink takes now; says whether it took any.
    fn write_some(&mut self) -> Result<bool, StreamError> {
        let Some(sink) = &self.sink else { return Err(StreamError::Closed) };
        let permit = usize::try_from(sink.stream.check_write()?).unwrap_or(usize::MAX);
        if permit == 0 {
            return Ok(false);
        }
        let rest = self.buffer.get(self.written..).unwrap_or_default();
        let part = rest.get(..permit).unwrap_or(rest);
        sink.stream.write(part)?;
        self.written = self.written.saturating_add(part.len());
        Ok(true)
    }

    /// What to wait for after a [`Step`] that waits.
    pub(crate) fn pollable(&self, step: Step) -> Option<Pollable> {
        match step {
            Step::AwaitsSource => match (&self.trailers, &self.source) {
                (Some(trailers), _) => Some(trailers.subscribe()),
                (None, Some(source)) => Some(source.stream.subscribe()),
                (None, None) => None,
            },
            Step::AwaitsSink => self.sink.as_ref().map(|sink| sink.stream.subscribe()),
            Step::Ended | Step::SourceBroke | Step::SinkClosed => None,
        }
    }

    /// Writes what was kept back and ends the message, once [`Step::Ended`] was told. `Some` is a step to wait after, before it is
    /// called again; with `None` it is over, well or not.
    pub(crate) fn finish(&mut self) -> Option<Step> {
        self.keeps_last = false;
        while self.written < self.buffer.len() {
            match self.write_some() {
                Ok(true) => {}
                Ok(false) => return Some(Step::AwaitsSink),
                Err(_) => {
                    self.sink = None;
                    return None;
                }
            }
        }
        if let Some(Sink { stream, body }) = self.sink.take() {
            let _ = stream.flush();
            drop(stream);
            let _ = OutgoingBody::finish(body, self.sent_trailers.take());
        }
        None
    }
}
