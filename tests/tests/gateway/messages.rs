//! What is passed on, and what becomes of bodies.

use std::time::{Duration, Instant};

use circuitry::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Answer, Client, ask, get, request};
use crate::outages::{Fate, way};
use crate::process::{Edge, Gateway, UPSTREAM, breaker};
use crate::servers::{factory, free_port, patient, redis_store, redis_url};
use crate::upstream::{Piece, answer, chunked_head, raw, read_head};

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|_| fastrand::u8(..)).collect()
}

fn chunked(body: &[u8], trailers: &str) -> Vec<u8> {
    let mut chunks = Vec::new();
    for part in body.chunks(10_000) {
        chunks.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        chunks.extend_from_slice(part);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    chunks
}

#[tokio::test]
async fn bodies_of_both_kinds_come_through_whole_both_ways() {
    let edge = Edge::start(&[]).await;
    for size in [1, 65_536, 1_000_000] {
        let (sent, received) = (bytes(size), bytes(size));
        edge.upstream.will(answer(200, &[], &received));
        let with_length =
            [request("POST", "/", &[&format!("content-length: {size}")]), sent.clone()].concat();
        let got = ask(edge.gateway.address, &with_length).await.expect("an answer");
        assert!(got.is_whole && got.body == received, "{size} bytes with a length");
        let asked = edge.upstream.asked().pop().expect("a request");
        assert!(asked.body == sent && asked.header("content-length") == [size.to_string()]);

        edge.upstream.will(vec![chunked_head(), Piece::Bytes(chunked(&received, ""))]);
        let in_chunks = [request("PUT", "/", &["transfer-encoding: chunked"]), chunked(&sent, "")].concat();
        let got = ask(edge.gateway.address, &in_chunks).await.expect("an answer");
        assert!(got.is_whole && got.body == received, "{size} bytes in chunks");
        assert!(edge.upstream.asked().pop().expect("a request").body == sent);
    }
    assert_eq!(edge.counts().await, (6, 6, 0));
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn trailers_that_are_announced_come_through_both_ways() {
    let edge = Edge::start(&[]).await;
    let head =
        "HTTP/1.1 200 OK\r\nx-upstream: yes\r\ntrailer: x-checksum\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = chunked(b"body", "x-checksum: 1234\r\n");
    edge.upstream.will(vec![Piece::Bytes([head.as_bytes(), &body].concat())]);
    let lines = ["te: trailers", "trailer: x-sum", "transfer-encoding: chunked"];
    let whole = [request("POST", "/", &lines), chunked(b"hello", "x-sum: 5678\r\n")].concat();
    let got = ask(edge.gateway.address, &whole).await.expect("an answer");
    assert_eq!((got.text().as_str(), got.is_whole), ("body", true));
    assert_eq!(got.trailers, [("x-checksum".to_owned(), b"1234".to_vec())]);
    let asked = edge.upstream.asked().pop().expect("a request");
    assert_eq!((asked.body.as_slice(), asked.trailers.as_str()), (b"hello".as_slice(), "x-sum: 5678\n"));
    // An upstream sends trailers to who says that it takes them.
    assert_eq!(asked.header("te"), ["trailers"]);
    assert_eq!(edge.counts().await, (1, 1, 0));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let edge = Edge::start(&[]).await;
    edge.upstream.will(vec![Piece::Bytes(
        b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ncontent-length: 77\r\n\r\n".to_vec(),
    )]);
    let mut client = Client::connect(edge.gateway.address).await;
    client.send(&request("HEAD", "/", &[])).await;
    let got = client.answer(false).await.expect("an answer");
    assert_eq!((got.status, got.header("content-length").as_deref()), (200, Some("77")));
    for status in ["204 No Content", "304 Not Modified"] {
        let head = format!("HTTP/1.1 {status}\r\nx-upstream: yes\r\netag: \"1\"\r\n\r\n");
        edge.upstream.will(vec![Piece::Bytes(head.into_bytes())]);
        client.send(&request("GET", "/", &[])).await;
        let got = client.answer(true).await.expect("an answer on the same connection");
        assert_eq!(got.header("etag").as_deref(), Some("\"1\""), "{got:?}");
    }
    assert_eq!(edge.counts().await, (3, 3, 0));
}

#[tokio::test]
async fn a_get_without_a_body_is_passed_on_without_one() {
    let edge = Edge::start(&[]).await;
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PURGE"] {
        let got =
            ask(edge.gateway.address, &request(method, "/a%2Fb/../c?d=e&f", &[])).await.expect("an answer");
        assert_eq!(got.status, 200);
        let asked = edge.upstream.asked().pop().expect("a request");
        assert_eq!(asked.head.lines().next(), Some(&*format!("{method} /a%2Fb/../c?d=e&f HTTP/1.1")));
        assert!(asked.header("transfer-encoding").is_empty(), "{}", asked.head);
    }
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_there_and_the_upstream_learns_how_the_request_came() {
    let edge = Edge::start(&[]).await;
    edge.upstream.will(answer(200, &["keep-alive: timeout=5", "circuitry-answer: refused", "x-end: 2"], b""));
    let lines = [
        "proxy-authorization: Basic x",
        "upgrade: websocket",
        "te: gzip",
        "x-end: 3",
        "forwarded: for=192.0.2.1",
        "x-forwarded-for: 192.0.2.1",
    ];
    let got = get(edge.gateway.address, "/", &lines).await;
    assert_eq!(
        (got.own(), got.header("keep-alive"), got.header("x-end").as_deref()),
        (None, None, Some("2"))
    );
    let asked = edge.upstream.asked().pop().expect("a request");
    for name in ["proxy-authorization", "upgrade", "te"] {
        assert_eq!(asked.header(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(asked.header("x-end"), ["3"]);
    assert_eq!(asked.header("host"), [edge.upstream.origin().trim_start_matches("http://")]);
    assert_eq!(asked.header("forwarded"), ["for=192.0.2.1", "for=unknown;host=\"gateway.test\";proto=http"]);
    assert_eq!(asked.header("x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(asked.header("x-forwarded-host"), ["gateway.test"]);
    assert_eq!(asked.header("via"), ["1.1 circuitry"]);
}

#[tokio::test]
async fn the_path_decides_which_upstream_and_which_circuit() {
    let edge = Edge::start(&[]).await;
    let other = crate::upstream::Upstream::start().await;
    other.will(answer(500, &[], b"other"));
    let upstreams = format!("web={} /; billing={} /billing", edge.upstream.origin(), other.origin());
    let variables = [
        ("CIRCUITRY_UPSTREAMS", upstreams),
        ("CIRCUITRY_REDIS_URL", edge.redis_url.clone()),
        ("CIRCUITRY_REDIS_PREFIX", edge.prefix.clone()),
        ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "0".into()),
    ];
    let gateway = Gateway::with(&variables);
    assert_eq!(get(gateway.address, "/billing/1", &[]).await.text(), "other");
    assert_eq!(get(gateway.address, "/billing/1", &[]).await.own().as_deref(), Some("refused"));
    assert_eq!(get(gateway.address, "/billings", &[]).await.text(), "well");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure_and_the_answer_is_cut() {
    let edge = Edge::start(&[("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "10")]).await;
    let head = b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ncontent-length: 100\r\n\r\nonly this".to_vec();
    let with_length = vec![Piece::Bytes(head), Piece::Close];
    let in_chunks = vec![chunked_head(), Piece::Bytes(b"9\r\nonly this\r\n".to_vec()), Piece::Close];
    let malformed = vec![chunked_head(), Piece::Bytes(b"9\r\nonly this\r\nxyz\r\n".to_vec()), Piece::Hang];
    for (script, failures) in [with_length, in_chunks, malformed].into_iter().zip(1..) {
        edge.upstream.will(script);
        let got = get(edge.gateway.address, "/", &[]).await;
        assert!(got.status == 200 && !got.is_whole, "{got:?}");
        assert_eq!(edge.counts().await, (failures, 0, failures));
    }
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn an_answer_of_another_length_than_it_says_is_a_failure_and_is_cut() {
    let edge = Edge::start(&[("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "20")]).await;
    let mut failures = 0;
    for wait in [0, 300] {
        // Where there are chunks too, a length that precedes them stays.
        for (length, own) in [(100, None), (3, None), (0, Some("upstream-failed"))] {
            let head = format!(
                "HTTP/1.1 200 OK\r\nx-upstream: yes\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n"
            );
            let (head, body) = (Piece::Bytes(head.into_bytes()), Piece::Bytes(chunked(b"hello", "")));
            edge.upstream.will(vec![head, Piece::Wait(Duration::from_millis(wait)), body]);
            let got = get(edge.gateway.address, "/", &[]).await;
            assert_eq!(got.own().as_deref(), own, "{length}: {got:?}");
            assert!(own.is_some() || !got.is_whole, "{length}: {got:?}");
            failures += 1;
            assert_eq!(edge.counts().await, (failures, 0, failures), "{length}");
        }
    }
    // One that says that it is empty, and does not end.
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n";
    let edge = Edge::start(&[("CIRCUITRY_BETWEEN_BYTES_TIMEOUT_MS", "500")]).await;
    edge.upstream.will(vec![Piece::Bytes(head.to_vec()), Piece::Hang]);
    assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("upstream-failed"));
    assert_eq!(edge.counts().await, (1, 0, 1));
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn an_upstream_that_changes_the_protocol_unasked_is_a_failure() {
    let edge = Edge::start(&[]).await;
    let head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw";
    edge.upstream.will(vec![Piece::Bytes(head.to_vec())]);
    let got = get(edge.gateway.address, "/", &["connection: upgrade", "upgrade: websocket"]).await;
    assert_eq!((got.status, got.own().as_deref()), (503, Some("upstream-failed")));
    assert_eq!(edge.counts().await, (1, 0, 1));
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_and_is_a_failure() {
    let edge = Edge::start(&[
        ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "10"),
        ("CIRCUITRY_BODY_TIMEOUT_MS", "1000"),
        ("CIRCUITRY_BETWEEN_BYTES_TIMEOUT_MS", "500"),
    ])
    .await;
    let trickle = Piece::Endless(b"1\r\nx\r\n".to_vec(), Duration::from_millis(50));
    let flood = Piece::Endless([b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat(), Duration::ZERO);
    for (body, failures) in [trickle, Piece::Hang, flood].into_iter().zip(1..) {
        edge.upstream.will(vec![chunked_head(), body]);
        let began = Instant::now();
        let got = get(edge.gateway.address, "/", &[]).await;
        assert!(got.status == 200 && !got.is_whole);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(edge.counts().await, (failures, 0, failures));
    }
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_as_http_has_it_is_a_failure_and_the_answer_is_our_own() {
    let edge = Edge::start(&[
        ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "20"),
        ("CIRCUITRY_FIRST_BYTE_TIMEOUT_MS", "500"),
        ("CIRCUITRY_CONNECT_TIMEOUT_MS", "500"),
    ])
    .await;
    let huge = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-many: 1\r\n".repeat(5_000));
    for (script, failures) in [
        vec![Piece::Hang],
        vec![Piece::Close],
        vec![Piece::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()), Piece::Close],
        vec![Piece::Bytes(bytes(1_000)), Piece::Close],
        vec![Piece::Bytes(b"HTTP/1.1 999999 Strange\r\n\r\n".to_vec()), Piece::Close],
        vec![
            Piece::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nxxxx".to_vec()),
            Piece::Close,
        ],
        vec![Piece::Bytes(huge.into_bytes()), Piece::Close],
        vec![Piece::Bytes(many.into_bytes()), Piece::Close],
    ]
    .into_iter()
    .zip(1..)
    {
        edge.upstream.will(script.clone());
        let got = get(edge.gateway.address, "/", &[]).await;
        assert_eq!((got.status, got.own().as_deref()), (503, Some("upstream-failed")), "{script:.100?}");
        assert_eq!(edge.counts().await, (failures, 0, failures), "{script:.100?}");
    }
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_is_a_failure() {
    let nobody = format!("web=http://127.0.0.1:{} /", free_port());
    let edge = Edge::start(&[("CIRCUITRY_UPSTREAMS", &nobody)]).await;
    for failures in 1..=2 {
        assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("upstream-failed"));
        assert_eq!(edge.counts().await, (failures, 0, failures));
    }
    get(edge.gateway.address, "/", &[]).await;
    assert_eq!(get(edge.gateway.address, "/", &[]).await.own().as_deref(), Some("refused"));
}

#[tokio::test]
async fn what_the_client_does_wrong_is_no_failure_of_the_upstream() {
    let edge =
        Edge::start(&[("CIRCUITRY_CLIENT_TIMEOUT_MS", "500"), ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "0")])
            .await;
    // Says that there is more, and sends nothing.
    let mut slow = Client::connect(edge.gateway.address).await;
    slow.send(&[request("POST", "/", &["content-length: 1000"]), b"begin".to_vec()].concat()).await;
    let got = slow.answer(true).await.expect("an answer");
    assert_eq!((got.status, got.own().as_deref()), (503, Some("client-failed")));
    // Goes away in the middle.
    let mut gone = Client::connect(edge.gateway.address).await;
    gone.send(&[request("POST", "/", &["content-length: 1000"]), b"begin".to_vec()].concat()).await;
    drop(gone);
    // Goes away while the answer comes.
    let more = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
    edge.upstream.will(vec![chunked_head(), Piece::Endless(more, Duration::from_millis(1))]);
    let mut gone = Client::connect(edge.gateway.address).await;
    gone.send(&request("GET", "/", &[])).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(gone);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(edge.counts().await, (0, 0, 0));
    edge.gateway.assert_never_failed();
}

/// Asks with a head and, so much later, the rest; then the connection says whether more will come.
async fn ask_in_parts(edge: &Edge, lines: &[&str], pause_ms: u64, rest: &[u8], is_all: bool) -> Answer {
    let mut client = Client::connect(edge.gateway.address).await;
    client.send(&request("POST", "/", lines)).await;
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    client.send(rest).await;
    if is_all {
        client.send_no_more().await;
    }
    client.answer(true).await.expect("an answer")
}

#[tokio::test]
async fn a_request_that_breaks_off_reaches_nobody_whole_and_is_no_failure() {
    let edge = Edge::start(&[("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "0")]).await;
    for pause_ms in [0, 300] {
        for (line, rest) in [
            ("transfer-encoding: chunked", &b""[..]),
            ("transfer-encoding: chunked", b"xyz\r\n"),
            ("transfer-encoding: chunked", b"5\r\nhello\r\n"),
            ("content-length: 10", b""),
            ("content-length: 10", b"hello"),
        ] {
            let got = ask_in_parts(&edge, &[line], pause_ms, rest, true).await;
            assert_eq!((got.status, got.own().as_deref()), (503, Some("client-failed")), "{line} {rest:?}");
        }
    }
    assert!(edge.upstream.asked().is_empty());
    assert_eq!(edge.counts().await, (0, 0, 0));
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn a_request_of_another_length_than_it_says_reaches_nobody_whole_and_is_no_failure() {
    let edge = Edge::start(&[("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "0")]).await;
    let chunks = chunked(b"hello", "");
    for pause_ms in [0, 300] {
        for length in [100, 3, 0] {
            // Where there are chunks too, a length that precedes them stays.
            let lines = [&*format!("content-length: {length}"), "transfer-encoding: chunked"];
            let got = ask_in_parts(&edge, &lines, pause_ms, &chunks, false).await;
            assert_eq!((got.status, got.own().as_deref()), (503, Some("client-failed")), "{length}");
        }
    }
    assert!(edge.upstream.asked().is_empty());
    assert_eq!(edge.counts().await, (0, 0, 0));
    let lines = ["content-length: 5", "transfer-encoding: chunked"];
    assert_eq!(ask_in_parts(&edge, &lines, 300, &chunks, false).await.text(), "well");
    assert_eq!(edge.upstream.asked().pop().expect("a request").body, b"hello");
    let lines = ["content-length: 0", "transfer-encoding: chunked"];
    assert_eq!(ask_in_parts(&edge, &lines, 300, b"0\r\n\r\n", false).await.text(), "well");
    assert_eq!(edge.upstream.asked().pop().expect("a request").body, b"");
    edge.gateway.assert_never_failed();
}

/// What a gateway before an upstream of the test's own has beside `edge`.
fn variables_for(edge: &Edge, origin: &str) -> Vec<(&'static str, String)> {
    vec![
        ("CIRCUITRY_UPSTREAMS", format!("{UPSTREAM}={origin} /")),
        ("CIRCUITRY_REDIS_URL", edge.redis_url.clone()),
        ("CIRCUITRY_REDIS_PREFIX", edge.prefix.clone()),
        ("CIRCUITRY_STORE_TIMEOUT_MS", "20000".into()),
    ]
}

#[tokio::test]
async fn a_request_that_breaks_off_while_the_answer_comes_is_not_ended_as_if_it_were_whole() {
    // Writes take longer than a probe's lease, so a probe is in one all the time and looks at the world every two seconds.
    const WRITE: Duration = Duration::from_secs(2);
    let slow_way = way(&redis_url(), |_| Fate::Waits(WRITE)).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = raw(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = read_head(&mut stream).await;
            tokio::time::sleep(WRITE / 2).await;
            let head = b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.expect("a connection");
            tell.send(None).expect("a test");
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = tell.send(Some(String::from_utf8_lossy(&bytes).into_owned()));
        }
    })
    .await;
    let upstreams = format!("{UPSTREAM}={origin} /");
    let variables = [("CIRCUITRY_UPSTREAMS", &*upstreams), ("CIRCUITRY_PROBE_TIMEOUT_MS", "1000")];
    let edge = Edge::on(&format!("redis://{slow_way}"), &variables).await;
    let settings = patient().failure_count_threshold(0).allow_after(Duration::from_millis(1));
    let worker = factory(settings.store(redis_store(&redis_url(), &edge.prefix).await)).await;
    breaker(&worker).start().await.expect("a permit").end(Outcome::Failure).await.expect("settled");

    let mut client = Client::connect(edge.gateway.address).await;
    client.send(&request("POST", "/", &["transfer-encoding: chunked"])).await;
    assert_eq!(told.recv().await.expect("the answer has begun"), None);
    // At its next look it finds the answer, and at the one after that the break too.
    tokio::time::sleep(WRITE).await;
    client.send(b"xyz\r\n").await;
    let shown = told.recv().await.expect("the end of the request").expect("all that came");
    assert!(!shown.ends_with("\r\n0\r\n\r\n"), "{shown}");
    assert!(!client.answer(true).await.is_ok_and(|got| got.is_whole && got.own().is_none()));
    edge.gateway.assert_never_failed();
}

#[tokio::test]
async fn a_client_that_stalls_is_no_failure_of_an_upstream_that_closes_or_waits_then() {
    let edge = Edge::start(&[]).await;
    let stalled = [request("POST", "/", &["content-length: 10"]), b"abc".to_vec()].concat();
    // It has a shorter patience than the gateway.
    let closes = raw(async |mut stream| {
        read_head(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    let gateway = Gateway::with(&variables_for(&edge, &closes));
    let got = ask(gateway.address, &stalled).await.expect("an answer");
    assert_eq!(got.own().as_deref(), Some("client-failed"));
    assert_eq!(edge.counts().await, (0, 0, 0));
    // It has begun with its answer.
    let waits = raw(async |mut stream| {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head).await.expect("a connection");
        std::future::pending().await
    })
    .await;
    let mut variables = variables_for(&edge, &waits);
    variables.push(("CIRCUITRY_CLIENT_TIMEOUT_MS", "1500".into()));
    variables.push(("CIRCUITRY_BETWEEN_BYTES_TIMEOUT_MS", "500".into()));
    let gateway = Gateway::with(&variables);
    let got = ask(gateway.address, &stalled).await.expect("an answer");
    assert!(got.status == 200 && !got.is_whole, "{got:?}");
    assert_eq!(edge.counts().await, (0, 0, 0));
    // One that takes the connection and closes it at once is broken, whatever there is of the request.
    let broken = raw(async |_| ()).await;
    let gateway = Gateway::with(&variables_for(&edge, &broken));
    let got = ask(gateway.address, &stalled).await.expect("an answer");
    assert_eq!(got.own().as_deref(), Some("upstream-failed"));
    assert_eq!(edge.counts().await, (1, 0, 1));
    gateway.assert_never_failed();
}

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_the_whole_request() {
    let edge = Edge::start(&[]).await;
    let early = raw(async |mut stream| {
        // The head, and no more.
        let _ = stream.read(&mut [0; 256]).await;
        let head = b"HTTP/1.1 413 Too Large\r\nx-upstream: yes\r\ncontent-length: 9\r\n\r\ntoo large";
        let _ = stream.write_all(head).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
    })
    .await;
    let gateway = Gateway::with(&variables_for(&edge, &early));
    let mut client = Client::connect(gateway.address).await;
    client.send(&[request("POST", "/", &["content-length: 100000000"]), bytes(100_000)].concat()).await;
    let got = client.answer(true).await.expect("an answer");
    assert_eq!((got.status, got.text().as_str()), (413, "too large"));
    gateway.assert_never_failed();
}

#[tokio::test]
async fn a_gateway_that_is_misconfigured_answers_and_says_once_a_request_what_to_do() {
    for (name, value, wanted) in [
        ("CIRCUITRY_UPSTREAMS", "web", "CIRCUITRY_UPSTREAMS"),
        ("CIRCUITRY_ALLOW_AFTER_MS", "a minute", "CIRCUITRY_ALLOW_AFTER_MS"),
        ("CIRCUITRY_STORE_FAILURE", "local", "CIRCUITRY_STORE_FAILURE"),
        ("CIRCUITRY_TENANT_HEADER", "Host", "CIRCUITRY_TENANT_HEADER cannot be Host"),
    ] {
        let edge = Edge::start(&[(name, value)]).await;
        let got = get(edge.gateway.address, "/", &[]).await;
        assert_eq!((got.status, got.own().as_deref()), (503, Some("misconfigured")));
        edge.gateway.says(&[wanted]).await;
        let lines = edge.gateway.lines();
        assert_eq!(lines.iter().filter(|line| line.contains(wanted)).count(), 1, "{lines:?}");
        assert!(edge.upstream.asked().is_empty());
    }
}
