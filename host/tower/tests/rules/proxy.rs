//! The example `reverse_proxy`, as a process, against upstreams on real sockets.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use reqwest::{Client, RequestBuilder, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::upstream::{Conduct, Upstream};
use crate::world::COMPILED;

/// How long an open circuit refuses here.
const ALLOW_AFTER: Duration = Duration::from_millis(700);
/// How long the proxy waits for an upstream here: much longer than a refusal takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// The process, killed when it is dropped.
struct Proxy {
    address: String,
    process: Child,
    client: Client,
}

/// The example beside this test, where cargo builds both.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let folder = test.parent().and_then(|folder| folder.parent()).expect("the folder of the profile");
    let example = folder.join("examples").join(format!("reverse_proxy{}", std::env::consts::EXE_SUFFIX));
    assert!(example.is_file(), "build it first: cargo build -p circuitry-tower --all-features --examples");
    example
}

impl Proxy {
    /// Trips on the third failure in a row.
    async fn to(upstream: &str, options: &[&str]) -> Self {
        let allow_after = ALLOW_AFTER.as_millis().to_string();
        Self::start(upstream, &[&["--allow-after-ms", &allow_after], options].concat()).await
    }

    async fn start(upstream: &str, options: &[&str]) -> Self {
        let patience = PATIENCE.as_millis().to_string();
        let mut process = Command::new(example())
            .args(["--listen", "127.0.0.1:0", "--upstream", upstream, "--failure-count-threshold", "2"])
            .args(["--first-byte-timeout-ms", &patience, "--body-idle-timeout-ms", &patience])
            .args(["--component-cache".as_ref(), COMPILED.as_os_str()])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the example starts");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("the proxy ended early");
        let address = line.strip_prefix("listening on http://").expect("an address").to_owned();
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { address, process, client }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    async fn ask(&self) -> Response {
        self.get("/").send().await.expect("an answer")
    }

    /// Asks until the circuit refuses; says with which reasons the proxy answered before.
    async fn trip(&self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..3 {
            let answer = self.ask().await;
            told.push(reason(&answer));
            // It may break off, which is one way to fail.
            let _ = answer.bytes().await;
        }
        let refused = self.ask().await;
        assert_eq!((refused.status().as_u16(), reason(&refused).as_str()), (503, REFUSED));
        told
    }

    /// Sends bytes as they are, and reads until the proxy closes or falls silent.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut connection = TcpStream::connect(&self.address).await.expect("a connection");
        // It may have been closed before all was sent.
        let _ = connection.write_all(bytes).await;
        let mut told = Vec::new();
        let _ = tokio::time::timeout(PATIENCE * 4, async {
            while !String::from_utf8_lossy(&told).contains("\r\n\r\n")
                && connection.read_buf(&mut told).await.is_ok_and(|read| read > 0)
            {}
        })
        .await;
        String::from_utf8_lossy(&told).into_owned()
    }
}

const REFUSED: &str = "destination_unavailable";

/// Why the proxy answered itself; empty where the upstream did.
fn reason(answer: &Response) -> String {
    let Some(told) = answer.headers().get("proxy-status") else { return String::new() };
    let told = told.to_str().expect("text");
    let error = told.split("; ").find_map(|part| part.strip_prefix("error="));
    error.unwrap_or_else(|| panic!("no reason in {told}")).to_owned()
}

/// A 503 of the proxy's own.
fn assert_own(answer: &Response) {
    assert_eq!(answer.status(), 503);
    let wait: u64 = answer.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!(wait >= 1);
    assert!(answer.headers().contains_key("proxy-status"));
}

#[tokio::test]
async fn a_request_goes_through_as_it_is() {
    let upstream = Upstream::that(Conduct::Echo).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let request = proxy.client.put(format!("http://{}/a%2Fb/c?d=e%20f", proxy.address));
    let request = request
        .header("x-end", "1")
        .header("keep-alive", "1")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let answer = request.body("the body").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-kept"], "2");
    assert!(!answer.headers().contains_key("x-hop"), "it was of the upstream's connection");
    assert!(!answer.headers().contains_key("proxy-status"));
    let echo = answer.text().await.expect("a body");
    let (head, body) = echo.split_once("\r\n\r\n").expect("a request");
    let head = head.to_ascii_lowercase();
    assert_eq!(body, "the body");
    assert!(head.starts_with("put /a%2fb/c?d=e%20f http/1.1\r\n"), "{head}");
    for line in ["x-end: 1", "x-forwarded-for: 127.0.0.1", "via: 1.1 circuitry", "content-length: 8"] {
        assert!(head.lines().any(|told| told == line), "no {line} in {head}");
    }
    for gone in ["x-hop", "keep-alive"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn what_the_upstream_answers_is_handed_on_also_where_it_is_a_failure() {
    let upstream = Upstream::that(Conduct::answers(500, "broken")).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    for _ in 0..3 {
        let answer = proxy.ask().await;
        assert_eq!((answer.status().as_u16(), reason(&answer).as_str()), (500, ""));
        assert_eq!(answer.text().await.expect("a body"), "broken");
    }
    assert_own(&proxy.ask().await);
    assert_eq!(upstream.asked(), 3);
}

#[tokio::test]
async fn an_upstream_that_is_down_is_refused_and_comes_back() {
    let upstream = Upstream::that(Conduct::Echo).await;
    let (address, url) = (upstream.address, upstream.url());
    drop(upstream);
    while TcpStream::connect(address).await.is_ok() {}
    let proxy = Proxy::to(&url, &[]).await;
    for _ in 0..3 {
        let failed = proxy.ask().await;
        assert_own(&failed);
        assert_eq!(reason(&failed), "connection_refused");
    }
    for _ in 0..20 {
        let refused = proxy.ask().await;
        assert_own(&refused);
        assert_eq!(reason(&refused), REFUSED);
    }
    let upstream = Upstream::at(address, Conduct::answers(200, "well")).await;
    tokio::time::sleep(ALLOW_AFTER).await;
    let probe = proxy.ask().await;
    assert_eq!((probe.status().as_u16(), upstream.asked()), (200, 1));
    probe.bytes().await.expect("a body");
    // It closes behind its answer.
    while proxy.ask().await.status() != 200 {
        tokio::time::sleep(PATIENCE / 100).await;
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_waited_for_three_times_and_then_no_more() {
    let upstream = Upstream::that(Conduct::SaysAndHolds(String::new())).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    assert_eq!(proxy.trip().await, ["http_response_timeout"; 3]);
    let begun = Instant::now();
    assert_own(&proxy.ask().await);
    assert!(begun.elapsed() < PATIENCE, "a refusal took {:?}", begun.elapsed());
    assert_eq!(upstream.asked(), 3);
}

#[tokio::test]
async fn an_upstream_that_never_ends_its_body_opens_its_circuit() {
    let upstream = Upstream::that(Conduct::never_ends()).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let answer = proxy.ask().await;
    assert_eq!(answer.status(), 200);
    let begun = Instant::now();
    answer.bytes().await.expect_err("it is broken off");
    assert!(begun.elapsed() < PATIENCE * 20, "after {:?}", begun.elapsed());
    for _ in 0..2 {
        proxy.ask().await.bytes().await.expect_err("it is broken off");
    }
    assert_own(&proxy.ask().await);
    // A probe that fares no better opens it again.
    tokio::time::sleep(ALLOW_AFTER).await;
    proxy.ask().await.bytes().await.expect_err("it is broken off");
    assert_own(&proxy.ask().await);
    assert_eq!(upstream.asked(), 4);
}

#[tokio::test]
async fn an_upstream_that_breaks_off_opens_its_circuit() {
    let upstream = Upstream::that(Conduct::breaks_off()).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    assert_eq!(proxy.trip().await, [""; 3]);
    // And one that speaks no HTTP.
    let upstream = Upstream::that(Conduct::Says("\u{0}\u{1}\r\n\r\nnonsense".into())).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    assert_eq!(proxy.trip().await, ["connection_terminated"; 3]);
}

#[tokio::test]
async fn tenants_have_circuits_of_their_own() {
    let upstream = Upstream::that(Conduct::answers(500, "")).await;
    let proxy = Proxy::to(&upstream.url(), &["--tenant-header", "x-tenant"]).await;
    let ask = |tenant: &'static str| proxy.get("/").header("x-tenant", tenant).send();
    for _ in 0..3 {
        assert_eq!(ask("a/b").await.expect("an answer").status(), 500);
    }
    assert_own(&ask("a/b").await.expect("an answer"));
    for other in ["a%2Fb", "a", "b", "a%2fb"] {
        assert_eq!(ask(other).await.expect("an answer").status(), 500, "{other}");
    }
    let without = proxy.ask().await;
    assert_eq!((without.status().as_u16(), reason(&without).as_str()), (400, "http_request_error"));
}

#[tokio::test]
async fn hostile_requests_are_refused_and_hurt_nobody() {
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let proxy = Proxy::to(&upstream.url(), &["--tenant-header", "x-tenant"]).await;
    let request = |path: &str, header: &[u8]| {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n").into_bytes();
        request.extend_from_slice(header);
        request.extend_from_slice(b"\r\n\r\n");
        request
    };
    let huge = [b"x-tenant: ".to_vec(), vec![b'a'; 65_536]].concat();
    let hostile = [
        (request("/", b"x-tenant: \xff\xfe"), "400"),
        (request("/", b"x-tenant:"), "400"),
        (request("/", b"x-tenant: a\r\nx-tenant: b"), "400"),
        (request("/", b"x-tenant: a\x00b"), "400"),
        (request("/", b"x-tenant: a\tb"), "400"),
        (request("/", &huge), "400"),
        (request("/\u{0}", b"x-tenant: a"), "400"),
        (request(&format!("/{}", "%2e%2e/".repeat(20_000)), b"x-tenant: a"), "414"),
        (b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nx-tenant: a\r\n\r\n".to_vec(), "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(9), "400"),
        (b"OPTIONS * HTTP/1.1\r\nhost: a\r\nx-tenant: a\r\nconnection: close\r\n\r\n".to_vec(), "200"),
        (request("/", b"x-tenant: a\r\nconnection: x-tenant, host, close"), "200"),
        (request("http://elsewhere.example/path", b"x-tenant: a"), "200"),
    ];
    for (bytes, status) in hostile {
        let told = proxy.raw(&bytes).await;
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?} was answered {told:?}");
    }
    let sound = proxy.get("/").header("x-tenant", "acme").send().await.expect("an answer");
    assert_eq!(sound.status(), 200);
}

#[tokio::test]
async fn a_client_that_breaks_its_upload_off_is_no_failure_of_the_upstream() {
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    for _ in 0..6 {
        let mut connection = TcpStream::connect(&proxy.address).await.expect("a connection");
        let begun = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nfirst";
        connection.write_all(begun).await.expect("a connection");
        tokio::time::sleep(PATIENCE / 10).await;
    }
    let broken =
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nnonsense\r\n";
    for _ in 0..6 {
        let told = proxy.raw(broken).await;
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    }
    assert_eq!(proxy.ask().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_stalls_is_told_so_and_is_no_failure_of_the_upstream() {
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let stalled = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nfirst";
    let told = futures_util::future::join_all((0..6).map(|_| proxy.raw(stalled))).await;
    for told in told {
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    }
    assert_eq!(proxy.ask().await.status(), 200);
}

#[tokio::test]
async fn what_a_client_does_once_its_answer_has_begun_is_no_failure_of_the_upstream_either() {
    // Its answer needs the whole upload to end.
    let begun = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let upstream = Upstream::that(Conduct::SaysEarly(begun.into())).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let upload = async |then: &[u8], is_closed: bool| {
        let mut connection = TcpStream::connect(&proxy.address).await.expect("a connection");
        connection.write_all(head.as_bytes()).await.expect("a connection");
        let mut told = Vec::new();
        while !String::from_utf8_lossy(&told).contains("first") {
            assert!(connection.read_buf(&mut told).await.expect("an answer") > 0, "{told:?}");
        }
        assert!(told.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&told));
        connection.write_all(then).await.expect("a connection");
        if is_closed {
            connection.shutdown().await.expect("a connection");
        }
        // To the end: it breaks off.
        let _ = connection.read_to_end(&mut told).await;
        assert!(!told.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&told));
    };
    for _ in 0..3 {
        upload(b"nonsense\r\n", false).await;
        upload(b"", true).await;
    }
    futures_util::future::join_all((0..6).map(|_| upload(b"5\r\nagain\r\n", false))).await;
    assert_eq!(proxy.ask().await.status(), 200);
    // With the whole upload it is the upstream's silence.
    for _ in 0..3 {
        upload(b"0\r\n\r\n", false).await;
    }
    assert_own(&proxy.ask().await);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_forwarded_whatever_the_method() {
    let upstream = Upstream::that(Conduct::Echo).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    for method in ["GET", "DELETE", "POST"] {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("the "), Ok("body")]);
        let request = proxy.client.request(method.parse().expect("a method"), proxy.url());
        let request = request.body(reqwest::Body::wrap_stream(chunks));
        // The client's own library leaves it away otherwise.
        let request = request.header("transfer-encoding", "chunked");
        let echo = request.send().await.expect("an answer").text().await.expect("a body");
        let (head, body) = echo.split_once("\r\n\r\n").expect("a request");
        assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
        assert!(body.ends_with("0\r\n\r\n") && body.contains("body"), "{body}");
    }
    let echo = proxy.ask().await.text().await.expect("a body");
    assert!(!echo.to_ascii_lowercase().contains("transfer-encoding"), "nothing comes: {echo}");
}

#[tokio::test]
async fn an_answer_with_two_lengths_goes_by_its_chunks() {
    let both = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n";
    let upstream = Upstream::that(Conduct::Says(format!("{both}5\r\nfirst\r\n0\r\n\r\n"))).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let answer = proxy.ask().await;
    assert!(!answer.headers().contains_key("content-length"), "{answer:?}");
    assert_eq!(answer.text().await.expect("a body"), "first");
}

#[tokio::test]
async fn a_client_of_http_2_is_served_as_one_of_http_1() {
    let upstream = Upstream::that(Conduct::Echo).await;
    let proxy = Proxy::to(&upstream.url(), &[]).await;
    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = http::Request::post(proxy.url()).header("cookie", "a=1").header("cookie", "b=2");
    let request = request.body(Full::new(Bytes::from_static(b"the body"))).expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let echo = answer.into_body().collect().await.expect("a body").to_bytes();
    let echo = String::from_utf8(echo.to_vec()).expect("text").to_ascii_lowercase();
    let (head, body) = echo.split_once("\r\n\r\n").expect("a request");
    assert_eq!(body, "the body");
    for line in [&format!("x-forwarded-host: {}", proxy.address), "cookie: a=1; b=2"] {
        assert!(head.lines().any(|told| told == line), "no {line} in {head}");
    }
}

#[tokio::test]
async fn nothing_is_returned_but_the_upstreams_answers_and_the_proxys_own_503() {
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let (address, url) = (upstream.address, upstream.url());
    let proxy = Proxy::to(&url, &[]).await;
    let end = Arc::new(AtomicBool::new(false));
    let asking: Vec<_> = (0..16)
        .map(|_| {
            let (client, url, end) =
                (proxy.client.clone(), format!("http://{}/", proxy.address), end.clone());
            tokio::spawn(async move {
                let (mut well, mut own) = (0_u64, 0_u64);
                while !end.load(Ordering::SeqCst) {
                    let answer = client.get(&url).send().await.expect("an answer");
                    match answer.status().as_u16() {
                        200 | 418 => well += 1,
                        503 => {
                            assert_own(&answer);
                            own += 1;
                        }
                        other => panic!("the proxy answered {other}"),
                    }
                    // What breaks off is the upstream's own.
                    let _ = answer.bytes().await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                (well, own)
            })
        })
        .collect();
    let mut upstream = Some(upstream);
    for conduct in [
        Conduct::answers(418, "a teapot"),
        Conduct::breaks_off(),
        Conduct::SaysAndHolds(String::new()),
        Conduct::never_ends(),
        Conduct::Says("nonsense".into()),
        Conduct::Says(String::new()),
        Conduct::answers(200, "well again"),
    ] {
        upstream.as_ref().expect("an upstream").now_does(conduct);
        tokio::time::sleep(ALLOW_AFTER).await;
        drop(upstream.take());
        tokio::time::sleep(ALLOW_AFTER / 4).await;
        upstream = Some(Upstream::at(address, Conduct::answers(200, "well")).await);
    }
    // It heals, whatever it went through.
    let begun = Instant::now();
    while proxy.ask().await.status() != 200 {
        assert!(begun.elapsed() < ALLOW_AFTER * 20, "the circuit stays open");
        tokio::time::sleep(PATIENCE / 10).await;
    }
    end.store(true, Ordering::SeqCst);
    let (mut well, mut own) = (0, 0);
    for asked in asking {
        let told = asked.await.expect("nothing else was answered");
        (well, own) = (well + told.0, own + told.1);
    }
    assert!(well > 0 && own > 0, "{well} answers, {own} refusals");
}

#[tokio::test]
async fn proxies_on_one_redis_share_their_circuits() {
    let redis = std::env::var("CIRCUITRY_TEST_REDIS_URL")
        .expect("CIRCUITRY_TEST_REDIS_URL is not set: run it by `cargo xtask services run -- cargo test …`");
    let prefix = format!("tower-test-{:016x}:", fastrand::u64(..));
    let upstream = Upstream::that(Conduct::answers(500, "")).await;
    let options = ["--redis", &redis, "--prefix", &prefix, "--strict", "--allow-after-ms", "600000"];
    let first = Proxy::start(&upstream.url(), &options).await;
    let second = Proxy::start(&upstream.url(), &options).await;
    first.trip().await;
    let begun = Instant::now();
    let refused = second.ask().await;
    assert_own(&refused);
    assert_eq!(reason(&refused), REFUSED, "after {:?}", begun.elapsed());
    assert_eq!(upstream.asked(), 3);
}

#[cfg(unix)]
#[tokio::test]
async fn a_proxy_that_is_ended_kindly_ends_what_is_under_way() {
    let upstream = Upstream::that(Conduct::answers(200, "well")).await;
    let mut proxy = Proxy::to(&upstream.url(), &[]).await;
    let answer = proxy.ask().await;
    let process = proxy.process.id().expect("it runs").to_string();
    let told = Command::new("kill").args(["-TERM", &process]).status().await.expect("kill");
    assert!(told.success());
    assert_eq!(answer.text().await.expect("a body"), "well");
    let ended = tokio::time::timeout(Duration::from_secs(30), proxy.process.wait()).await;
    assert!(ended.expect("it ends").expect("a status").success());
}
