//! Input that nobody sends who means well.

use circuitry::Context;

use crate::client::{ask, request};
use crate::process::{Edge, UPSTREAM};
use crate::servers::{plain, run};
use crate::upstream::{Piece, answer, chunked_head};

/// What the server of the runtime refuses by itself, before the gateway sees it: what is no HTTP.
const NO_HTTP: [u16; 4] = [400, 411, 414, 431];

/// Bytes that have a meaning somewhere on the way.
const PARTS: &[&[u8]] = &[
    b"acme",
    b"/",
    b"%2F",
    b"%",
    b"..",
    b"\xff",
    b"\xc3\x28",
    b" ",
    b"\t",
    b";",
    b",",
    b"*",
    b"$1",
    b"{",
    b"}",
    b":",
    b"web",
    b"circuitry:",
    b"\"",
    b"\\",
    b"'",
    b"<",
    b"0",
    b"-1",
    b"\x7f",
    b"\x01",
    b"\xf0\x9f\x92\xa9",
    b"?",
    b"#",
];

fn text(longest: usize) -> Vec<u8> {
    let parts = if fastrand::u8(..) < 8 { longest } else { fastrand::usize(..8) };
    (0..parts).flat_map(|_| PARTS[fastrand::usize(..PARTS.len())]).copied().collect()
}

fn line(name: &str) -> Vec<u8> {
    [name.as_bytes(), b": ", &text(20_000), b"\r\n"].concat()
}

/// Headers, paths and tenants at random.
fn anything() -> Vec<u8> {
    let mut bytes = [&b"GET /"[..], &text(5_000), b" HTTP/1.1\r\nhost: gateway.test\r\n"].concat();
    for _ in 0..fastrand::usize(..4) {
        bytes.extend(match fastrand::u8(..8) {
            0..4 => line("x-tenant"),
            4 => line("connection"),
            5 => line("content-length"),
            6 => line("x-any"),
            _ => line("forwarded"),
        });
    }
    [bytes, b"\r\n".to_vec()].concat()
}

#[tokio::test]
async fn whatever_is_sent_the_answer_is_our_own_or_the_upstreams_and_no_other_tenants_circuit_moves() {
    let edge =
        Edge::start(&[("CIRCUITRY_TENANT_HEADER", "X-Tenant"), ("CIRCUITRY_CLIENT_TIMEOUT_MS", "200")]).await;
    edge.upstream.will(answer(500, &[], b""));
    let seed = fastrand::get_seed();
    for number in 0..400 {
        let bytes = anything();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
        // A connection that is closed without a word is the server's answer to what it cannot read at all.
        if let Ok(got) = ask(edge.gateway.address, &bytes).await
            && !NO_HTTP.contains(&got.status)
        {
            got.assert_own_or_upstreams();
            assert!(got.status == 500 || got.status == 503, "seed {seed}, {number}: {shown:?}: {got:?}");
        }
    }
    edge.gateway.assert_never_failed();
    // Each circuit is that of a tenant whose name was sent as it is: the key decodes to it.
    let mut redis = plain(&edge.redis_url).await;
    let keys: Vec<Vec<u8>> = run(&mut redis, &["KEYS", &format!("{}*", edge.prefix)]).await;
    assert!(!keys.is_empty(), "some of it was in order");
    for key in keys {
        let key = String::from_utf8(key).expect("a name is UTF-8");
        let tenant = key.strip_prefix(&format!("{}{UPSTREAM}/", edge.prefix)).expect("a tenant's circuit");
        assert!(!tenant.contains('/') && !tenant.is_empty() && tenant.len() < 1_024, "{tenant:?}");
    }
    // A neighbour that sent nothing has nothing.
    let neighbour = edge.worker().await.breaker_for(UPSTREAM, &Context::tenant("neighbour"));
    assert_eq!(neighbour.information().await.expect("a store").counts.total, 0);
}

#[tokio::test]
async fn what_an_upstream_says_can_not_pass_for_our_own() {
    let edge = Edge::start(&[]).await;
    edge.upstream.will(answer(503, &["Circuitry-Answer: refused", "retry-after: 5"], b"the circuit is open"));
    let got = ask(edge.gateway.address, &request("GET", "/", &[])).await.expect("an answer");
    assert_eq!(got.own(), None);
    got.assert_own_or_upstreams();
}

#[tokio::test]
async fn whatever_an_upstream_answers_the_gateway_lives_on() {
    let edge = Edge::start(&[
        ("CIRCUITRY_FAILURE_COUNT_THRESHOLD", "1000000"),
        ("CIRCUITRY_FIRST_BYTE_TIMEOUT_MS", "300"),
        ("CIRCUITRY_BETWEEN_BYTES_TIMEOUT_MS", "300"),
    ])
    .await;
    for _ in 0..150 {
        let bytes = text(2_000);
        let script = match fastrand::u8(..5) {
            0 => vec![Piece::Bytes(bytes), Piece::Close],
            1 => {
                vec![Piece::Bytes([b"HTTP/1.1 200 ".as_slice(), &bytes, b"\r\n\r\n"].concat()), Piece::Close]
            }
            2 => vec![
                Piece::Bytes(
                    [b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\nx: ".as_slice(), &bytes, b"\r\n\r\n"].concat(),
                ),
                Piece::Close,
            ],
            3 => vec![chunked_head(), Piece::Bytes(bytes), Piece::Close],
            _ => vec![
                Piece::Bytes(
                    [
                        b"HTTP/1.1 200 OK\r\nx-upstream: yes\r\ncontent-length: ".as_slice(),
                        &bytes,
                        b"\r\n\r\n",
                    ]
                    .concat(),
                ),
                Piece::Close,
            ],
        };
        edge.upstream.will(script);
        if let Ok(got) = ask(edge.gateway.address, &request("GET", "/", &[])).await
            && got.status != 200
        {
            assert_eq!((got.status, got.own().as_deref()), (503, Some("upstream-failed")), "{got:?}");
        }
    }
    edge.upstream.will(answer(200, &[], b"well"));
    assert_eq!(ask(edge.gateway.address, &request("GET", "/", &[])).await.expect("an answer").text(), "well");
    edge.gateway.assert_never_failed();
}
