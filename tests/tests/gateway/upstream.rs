//! An upstream that does as its script says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Wait(Duration),
    /// The same bytes again and again, with so much time between them, for ever.
    Endless(Vec<u8>, Duration),
    /// Neither answers nor closes.
    Hang,
    Close,
}

/// What it does from now on.
pub(crate) type Script = Vec<Piece>;

/// An answer with a status and a body.
pub(crate) fn answer(status: u16, lines: &[&str], body: &[u8]) -> Script {
    let mut text =
        format!("HTTP/1.1 {status} Whatever\r\nx-upstream: yes\r\ncontent-length: {}\r\n", body.len());
    for line in lines {
        text += line;
        text += "\r\n";
    }
    vec![Piece::Bytes([text.as_bytes(), b"\r\n", body].concat())]
}

/// The head of an answer in chunks.
pub(crate) fn chunked_head() -> Piece {
    Piece::Bytes(b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// What was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
}

impl Asked {
    /// All values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }
}

/// A server that does with each connection what `serve` says; it ends with the test's runtime.
pub(crate) async fn raw<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("http://{address}")
}

/// Reads a head, and what comes with it.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.expect("a connection") == 0 {
            break;
        }
    }
    bytes
}

/// A server on loopback; it ends with the test.
pub(crate) struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    script: Mutex<Script>,
    asked: Mutex<Vec<Asked>>,
}

impl Upstream {
    /// Begins with answering 200.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let served = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move { serve(stream, &served).await });
            }
        });
        let upstream = Self { address, state, task };
        upstream.will(answer(200, &[], b"well"));
        upstream
    }

    /// What it does with whatever is asked from now on.
    pub(crate) fn will(&self, script: Script) {
        *self.state.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// What it was asked since the last look.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: &State) {
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some(asked) = read(&mut stream).await {
        state.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        let script = state.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for piece in script {
            let sent = match piece {
                Piece::Bytes(bytes) => stream.get_mut().write_all(&bytes).await,
                Piece::Wait(time) => {
                    tokio::time::sleep(time).await;
                    Ok(())
                }
                Piece::Endless(bytes, time) => loop {
                    if let Err(error) = stream.get_mut().write_all(&bytes).await {
                        break Err(error);
                    }
                    tokio::time::sleep(time).await;
                },
                Piece::Hang => std::future::pending().await,
                Piece::Close => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut asked = Asked::default();
    loop {
        let line = line(stream).await?;
        if line.is_empty() {
            break;
        }
        asked.head += &line;
        asked.head += "\n";
    }
    if let Some(length) = asked.header("content-length").first() {
        asked.body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut asked.body).await.ok()?;
    } else if !asked.header("transfer-encoding").is_empty() {
        loop {
            let size = usize::from_str_radix(&line(stream).await?, 16).ok()?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk).await.ok()?;
            asked.body.extend(chunk);
            if size == 0 {
                break;
            }
            line(stream).await?;
        }
        loop {
            let line = line(stream).await?;
            if line.is_empty() {
                break;
            }
            asked.trailers += &line;
            asked.trailers += "\n";
        }
    }
    Some(asked)
}

async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
        return None;
    }
    Some(String::from_utf8_lossy(&line).trim_end().to_owned())
}
