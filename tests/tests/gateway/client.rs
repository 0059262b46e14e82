//! A client that sends bytes as they are and reads what comes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any test lets an answer take.
const LONGEST: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, Vec<u8>)>,
    /// Whether the body ended as the head said it would.
    pub(crate) is_whole: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// What the gateway says that its own answer is about; `None` for the upstream's.
    pub(crate) fn own(&self) -> Option<String> {
        self.header("circuitry-answer")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails unless it is the gateway's own 503 or comes from the upstream, which marks what it sends.
    pub(crate) fn assert_own_or_upstreams(&self) {
        match self.own() {
            Some(_) => assert_eq!(self.status, 503, "{self:?}"),
            None => assert!(self.header("x-upstream").is_some(), "neither ours nor the upstream's: {self:?}"),
        }
    }
}

/// A connection to the gateway.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the gateway takes connections");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes; what does not read them to the end answers all the same.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    /// Sends nothing more; what comes is read all the same.
    pub(crate) async fn send_no_more(&mut self) {
        self.stream.get_mut().shutdown().await.expect("a connection");
    }

    /// Reads one answer. `has_body` is whether one may follow the head.
    pub(crate) async fn answer(&mut self, has_body: bool) -> Result<Answer, String> {
        let read = timeout(LONGEST, self.read(has_body)).await;
        read.map_err(|_elapsed| "there was no answer".to_owned())?
    }

    async fn read(&mut self, has_body: bool) -> Result<Answer, String> {
        let line = self.line().await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {line:?}"))?;
        if status == 100 {
            self.fields().await?;
            return Box::pin(self.read(has_body)).await;
        }
        let headers = self.fields().await?;
        let mut answer = Answer { status, headers, body: vec![], trailers: vec![], is_whole: true };
        if !has_body || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| format!("{length:?} is no length"))?;
            answer.body = vec![0; length];
            let mut read = 0;
            while read < length {
                match self.stream.read(&mut answer.body[read..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(size) => read += size,
                }
            }
            answer.body.truncate(read);
            answer.is_whole = read == length;
        } else {
            answer.is_whole = self.chunks(&mut answer).await.is_ok();
        }
        Ok(answer)
    }

    async fn chunks(&mut self, answer: &mut Answer) -> Result<(), String> {
        if answer.header("transfer-encoding").is_none() {
            return self
                .stream
                .read_to_end(&mut answer.body)
                .await
                .map(drop)
                .map_err(|error| error.to_string());
        }
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16)
                .map_err(|_| format!("{size:?} is no size of a chunk"))?;
            if size == 0 {
                answer.trailers = self.fields().await?;
                return Ok(());
            }
            let begin = answer.body.len();
            answer.body.resize(begin + size, 0);
            let read = self.stream.read_exact(&mut answer.body[begin..]).await;
            read.map_err(|error| error.to_string())?;
            self.line().await?;
        }
    }

    async fn fields(&mut self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut fields = Vec::new();
        loop {
            let line = self.bytes().await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or("a header without a colon")?;
            let name = String::from_utf8_lossy(&line[..colon]).into_owned();
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }

    async fn line(&mut self) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    async fn bytes(&mut self) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            let byte = self.stream.read_u8().await.map_err(|_| "the connection was closed".to_owned())?;
            if byte == b'\n' {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            line.push(byte);
        }
    }
}

/// A request as text, with `lines` as further headers.
pub(crate) fn request(method: &str, path: &str, lines: &[&str]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: gateway.test\r\n");
    for line in lines {
        text += line;
        text += "\r\n";
    }
    (text + "\r\n").into_bytes()
}

/// Asks on a connection of its own.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> Result<Answer, String> {
    let mut client = Client::connect(address).await;
    client.send(request).await;
    client.answer(!request.starts_with(b"HEAD ")).await
}

/// A plain GET.
pub(crate) async fn get(address: SocketAddr, path: &str, lines: &[&str]) -> Answer {
    ask(address, &request("GET", path, lines)).await.expect("an answer")
}
