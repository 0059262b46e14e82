//! An upstream on a real socket, which does what a test tells it to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the upstream does with a connection on which a request has come.
#[derive(Clone, Debug)]
pub(crate) enum Conduct {
    /// Sends these bytes and closes.
    Says(String),
    /// Sends these bytes and holds the connection.
    SaysAndHolds(String),
    /// Sends these bytes when it has the head of a request, and then reads on.
    SaysEarly(String),
    /// Says the request back, as the body of a response, and closes.
    Echo,
}

impl Conduct {
    pub(crate) fn answers(status: u16, body: &str) -> Self {
        Self::Says(format!("HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    /// Says that a body comes, begins it, and then nothing.
    pub(crate) fn never_ends() -> Self {
        Self::SaysAndHolds("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n".into())
    }

    /// Says that more of a body comes than there is.
    pub(crate) fn breaks_off() -> Self {
        Self::Says("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nfirst".into())
    }
}

/// A server of HTTP/1.1, one request a connection. Ends when it is dropped.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    conduct: Arc<std::sync::Mutex<Conduct>>,
    asked: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn that(conduct: Conduct) -> Self {
        Self::at("127.0.0.1:0".parse().expect("an address"), conduct).await
    }

    pub(crate) async fn at(address: SocketAddr, conduct: Conduct) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let conduct = Arc::new(std::sync::Mutex::new(conduct));
        let asked = Arc::new(AtomicU64::new(0));
        let (conducts, asks) = (conduct.clone(), asked.clone());
        let server = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let (conducts, asks) = (conducts.clone(), asks.clone());
                connections.spawn(async move {
                    let _ = serve(connection, &conducts, &asks).await;
                });
            }
        });
        Self { address, conduct, asked, server }
    }

    pub(crate) fn now_does(&self, conduct: Conduct) {
        *self.conduct.lock().unwrap() = conduct;
    }

    /// How many requests have come.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(
    mut connection: TcpStream,
    conduct: &std::sync::Mutex<Conduct>,
    asked: &AtomicU64,
) -> std::io::Result<()> {
    let is_early = matches!(&*conduct.lock().unwrap(), Conduct::SaysEarly(_));
    let request = read_request(&mut connection, is_early).await?;
    if request.is_empty() {
        return Ok(());
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let conduct = conduct.lock().unwrap().clone();
    match conduct {
        Conduct::SaysEarly(bytes) => {
            connection.write_all(bytes.as_bytes()).await?;
            tokio::io::copy(&mut connection, &mut tokio::io::sink()).await?;
        }
        Conduct::Says(bytes) => connection.write_all(bytes.as_bytes()).await?,
        Conduct::SaysAndHolds(bytes) => {
            connection.write_all(bytes.as_bytes()).await?;
            std::future::pending().await
        }
        Conduct::Echo => {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close, x-hop\r\nx-hop: 1\r\nx-kept: 2\r\n\r\n",
                request.len()
            );
            connection.write_all(head.as_bytes()).await?;
            connection.write_all(&request).await?;
        }
    }
    connection.shutdown().await
}

/// Reads a request: its head, and, if not that alone, as much of a body as it announces.
async fn read_request(connection: &mut TcpStream, only_head: bool) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length: Option<usize> =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let is_whole = match length {
                _ if only_head => true,
                Some(length) => request.len() >= end + 4 + length,
                None if head.contains("transfer-encoding: chunked") => request.ends_with(b"0\r\n\r\n"),
                None => true,
            };
            if is_whole {
                return Ok(request);
            }
        }
        if connection.read_buf(&mut request).await? == 0 {
            return Ok(request);
        }
    }
}
