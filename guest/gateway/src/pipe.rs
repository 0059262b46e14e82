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
    /// The last bytes of a body of known length are kept back until [`Pipe::finish`]: so whoever has them finds the request settled, and
    /// a body that turns out to be longer than its message said is never complete.
    keeps_last: bool,
    /// Bytes that are still to be read, where the message says how many it has.
    left: Option<u64>,
    /// The runtime tells a break once, and an end from then on.
    is_broken: bool,
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
    ///
    /// # Errors
    /// It broke off.
    pub(crate) fn first_bytes(&self) -> Result<Option<Vec<u8>>, StreamError> {
        match self.stream.read(READ_MAX) {
            Err(StreamError::Closed) => Ok(None),
            read => read.map(Some),
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
    /// The source broke off, or has more or less than its message said.
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
            is_broken: false,
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
            if self.is_broken {
                return (Step::SourceBroke, has_moved);
            }
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
                    Some(_) => self.is_broken = true,
                }
                continue;
            }
            let Some(source) = &self.source else { return (Step::Ended, has_moved) };
            match source.stream.read(READ_MAX) {
                Ok(bytes) if bytes.is_empty() => return (Step::AwaitsSource, has_moved),
                Ok(bytes) => {
                    has_moved = true;
                    self.take_in(bytes);
                }
                Err(StreamError::Closed) if self.left.is_some_and(|left| left > 0) => self.is_broken = true,
                Err(StreamError::Closed) => {
                    has_moved = true;
                    if let Some(Source { stream, body }) = self.source.take() {
                        drop(stream);
                        self.trailers = Some(IncomingBody::finish(body));
                    }
                }
                Err(StreamError::LastOperationFailed(_)) => self.is_broken = true,
            }
        }
    }

    /// The same for a message that ends as soon as its source has: after [`Step::Ended`] there is nothing left to do.
    pub(crate) fn advance_and_finish(&mut self) -> (Step, bool) {
        match self.advance() {
            (Step::Ended, has_moved) => (self.finish().unwrap_or(Step::Ended), has_moved),
            other => other,
        }
    }

    fn take_in(&mut self, bytes: Vec<u8>) {
        if let Some(left) = self.left {
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.left = left.checked_sub(size);
            if self.left.is_none() {
                self.is_broken = true;
                return;
            }
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
