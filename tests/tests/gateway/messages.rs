//! What is passed on, and what becomes of bodies.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, ask, get, request};
use crate::process::{Edge, Gateway};
use crate::servers::free_port;
use crate::upstream::{Piece, answer, chunked_head};

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

#[tokio::test]
async fn an_upstream_may_answer_before_it_has_the_whole_request() {
    let edge = Edge::start(&[]).await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let early = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The head, and no more.
            let _ = stream.read(&mut [0; 256]).await;
            let head = b"HTTP/1.1 413 Too Large\r\nx-upstream: yes\r\ncontent-length: 9\r\n\r\ntoo large";
            let _ = stream.write_all(head).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    });
    let variables = [
        ("CIRCUITRY_UPSTREAMS", format!("web=http://{early} /")),
        ("CIRCUITRY_REDIS_URL", edge.redis_url.clone()),
        ("CIRCUITRY_REDIS_PREFIX", edge.prefix.clone()),
    ];
    let gateway = Gateway::with(&variables);
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
