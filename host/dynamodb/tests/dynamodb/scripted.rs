//! A server that gives the answers of a script: for what DynamoDB Local cannot be made to say.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// GetItem, PutItem and so on.
    pub(crate) operation: String,
    pub(crate) body: String,
}

/// An answer to give.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// An error as DynamoDB words it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let code = format!("com.amazonaws.dynamodb.v20120810#{code}");
        Self::new(status, serde_json::json!({ "__type": code, "message": message }).to_string())
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// It ends when it is dropped.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serve: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (noted, script) = (Arc::clone(&asked), Arc::<Script>::from(Box::new(script) as Box<Script>));
        let serve = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, Arc::clone(&noted), Arc::clone(&script)));
            }
        });
        Self { address, asked, serve }
    }

    /// The requests since the last time this was asked.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().expect("no panic before"))
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serve.abort();
    }
}

async fn answer_all(stream: TcpStream, asked: Arc<Mutex<Vec<Asked>>>, script: Arc<Script>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let answer = script(&request);
        asked.lock().expect("no panic before").push(request);
        let mut head =
            format!("HTTP/1.1 {} Scripted\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            write!(head, "{name}: {value}\r\n").expect("memory");
        }
        head.push_str("\r\n");
        head.push_str(&answer.body);
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next request of the connection, until it ends.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let (mut operation, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "x-amz-target" => operation = value.trim_start_matches("DynamoDB_20120810.").to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { operation, body: String::from_utf8(body).expect("JSON") })
}
