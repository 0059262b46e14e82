//! A store that is down, stands still, or answers nonsense.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use circuitry::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Answer, get};
use crate::process::{Edge, UPSTREAM};
use crate::servers::{OwnRedis, address_of, free_port, plain, run};
use crate::upstream::{Piece, answer};

/// A short one, so that a store that hangs is told from one that is slow; longer than this machine takes for a round trip.
const STORE_TIMEOUT: (&str, &str) = ("CIRCUITRY_STORE_TIMEOUT_MS", "300");
/// What several waits for the store, and a busy machine, may take.
const SOON: Duration = Duration::from_secs(10);

async fn timed(edge: &Edge) -> Answer {
    let began = Instant::now();
    let got = get(edge.gateway.address, "/", &[]).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    got.assert_own_or_upstreams();
    got
}

fn assert_refused(got: &Answer) {
    assert_eq!((got.status, got.own().as_deref()), (503, Some("store-down")), "{got:?}");
    assert_eq!(got.header("retry-after").as_deref(), Some("1"));
}

#[tokio::test]
async fn without_a_store_requests_are_admitted_or_refused_as_configured() {
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let edge = Edge::on(&nobody, &[STORE_TIMEOUT]).await;
    for _ in 0..5 {
        assert_eq!(timed(&edge).await.text(), "well");
    }
    let edge = Edge::on(&nobody, &[STORE_TIMEOUT, ("CIRCUITRY_STORE_FAILURE", "refuse")]).await;
    for _ in 0..5 {
        assert_refused(&timed(&edge).await);
    }
    assert!(edge.upstream.asked().is_empty());
}

#[tokio::test]
async fn a_store_that_stands_still_delays_a_request_by_its_timeout_only() {
    let redis = OwnRedis::start().await;
    let edge = Edge::on(&redis.url(), &[STORE_TIMEOUT]).await;
    assert_eq!(timed(&edge).await.text(), "well");
    redis.stop();
    for _ in 0..3 {
        assert_eq!(timed(&edge).await.text(), "well");
    }
    redis.go_on();
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        timed(&edge).await;
    }
    assert_eq!(timed(&edge).await.own().as_deref(), Some("refused"), "it protects again");
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_is_used_again() {
    let mut redis = OwnRedis::start().await;
    let edge = Edge::on(&redis.url(), &[STORE_TIMEOUT]).await;
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        timed(&edge).await;
    }
    assert_eq!(timed(&edge).await.own().as_deref(), Some("refused"));
    redis.kill();
    assert_eq!(timed(&edge).await.status, 500, "nobody knows that it is open");
    redis.start_again().await;
    for _ in 0..3 {
        assert_eq!(timed(&edge).await.status, 500);
    }
    assert_eq!(timed(&edge).await.own().as_deref(), Some("refused"));
}

#[tokio::test]
async fn what_is_not_ours_in_the_store_is_left_as_it_is() {
    for policy in ["admit", "refuse"] {
        let edge = Edge::start(&[("CIRCUITRY_STORE_FAILURE", policy)]).await;
        let (mut redis, key) = (plain(&edge.redis_url).await, format!("{}{UPSTREAM}", edge.prefix));
        for (write, wanted) in [
            (vec!["SET", &key, "somebody's"], "holds a string"),
            (vec!["RPUSH", &key, "somebody's"], "holds a list"),
            (vec!["HSET", &key, "other", "field"], "a hash without the fields"),
            (vec!["HSET", &key, "version", "1"], "only one of the fields"),
            (
                vec!["HSET", &key, "version", "0123456789abcdef", "value", "damaged"],
                "the stored record cannot be used",
            ),
        ] {
            let _: i64 = run(&mut redis, &["DEL", &key]).await;
            let _: redis::Value = run(&mut redis, &write).await;
            let before: Vec<u8> = run(&mut redis, &["DUMP", &key]).await;
            let got = timed(&edge).await;
            if policy == "admit" {
                assert_eq!(got.text(), "well", "{write:?}");
            } else {
                assert_refused(&got);
            }
            let after: Vec<u8> = run(&mut redis, &["DUMP", &key]).await;
            assert_eq!(before, after, "{write:?}");
            // Somebody has to do something about it, so it is said.
            edge.gateway.says(&[wanted]).await;
        }
        let _: i64 = run(&mut redis, &["DEL", &key]).await;
        edge.gateway.assert_never_failed();
    }
}

#[tokio::test]
async fn a_store_that_answers_nonsense_is_a_store_that_is_down() {
    let deep = b"*1\r\n".repeat(100_000);
    for nonsense in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\0\0\0\0",
        b"*2147483647\r\n",
        b"$9999999999\r\n",
        b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
        b":1\r\n:1\r\n",
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n+no time\r\n",
        b"-\r\n-\r\n",
        &deep,
        b"",
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let bytes = nonsense.to_vec();
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let bytes = bytes.clone();
                tokio::spawn(async move {
                    let mut asked = [0; 4_096];
                    while stream.read(&mut asked).await.is_ok_and(|size| size > 0) {
                        let _ = stream.write_all(&bytes).await;
                    }
                });
            }
        });
        let edge = Edge::on(&format!("redis://{address}"), &[STORE_TIMEOUT]).await;
        let shown = String::from_utf8_lossy(&nonsense[..nonsense.len().min(40)]);
        assert_eq!(timed(&edge).await.text(), "well", "{shown:?}");
        edge.gateway.assert_never_failed();
        server.abort();
    }
}

#[tokio::test]
async fn a_store_that_lets_nobody_in_is_said_and_the_password_is_not() {
    let redis = OwnRedis::start().await;
    let mut plain = plain(&redis.url()).await;
    let _: String = run(&mut plain, &["CONFIG", "SET", "requirepass", "right"]).await;
    let wrong = redis.url().replace("redis://", "redis://:wr0ng@");
    let edge = Edge::on(&wrong, &[STORE_TIMEOUT]).await;
    assert_eq!(timed(&edge).await.text(), "well");
    edge.gateway.says(&["denies", "WRONGPASS"]).await;
    let lines = edge.gateway.lines();
    assert!(!lines.iter().any(|line| line.contains("wr0ng")), "{lines:?}");

    let right = redis.url().replace("redis://", "redis://:right@") + "/3";
    let edge = Edge::on(&right, &[]).await;
    timed(&edge).await;
    let _: String = run(&mut plain, &["SELECT", "3"]).await;
    let found: i64 = run(&mut plain, &["EXISTS", &format!("{}{UPSTREAM}", edge.prefix)]).await;
    assert_eq!(found, 1, "user, password and database of the URL are used");
}

#[tokio::test]
async fn a_gateway_whose_store_cannot_use_a_variable_is_misconfigured_and_passes_nothing_on() {
    for (policy, url, wanted) in [
        ("admit", "", "CIRCUITRY_REDIS_URL is not set"),
        ("refuse", "", "CIRCUITRY_REDIS_URL is not set"),
        ("admit", "rediss://host", "TLS (rediss://) is not supported"),
    ] {
        let edge = Edge::start(&[("CIRCUITRY_REDIS_URL", url), ("CIRCUITRY_STORE_FAILURE", policy)]).await;
        let got = timed(&edge).await;
        assert_eq!((got.status, got.own().as_deref()), (503, Some("misconfigured")), "{policy} {url}");
        edge.gateway.says(&["CIRCUITRY_REDIS_URL", wanted]).await;
        assert!(edge.upstream.asked().is_empty());
    }
}

#[tokio::test]
async fn a_probe_whose_lease_an_outage_could_not_prolong_is_prolonged_after_it() {
    let redis = OwnRedis::start().await;
    let variables =
        [STORE_TIMEOUT, ("CIRCUITRY_ALLOW_AFTER_MS", "200"), ("CIRCUITRY_PROBE_TIMEOUT_MS", "8000")];
    let edge = Edge::on(&redis.url(), &variables).await;
    edge.upstream.will(answer(500, &[], b""));
    for _ in 0..3 {
        timed(&edge).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    edge.upstream.will([vec![Piece::Wait(Duration::from_secs(11))], answer(200, &[], b"late")].concat());
    let address = edge.gateway.address;
    let probe = tokio::spawn(async move { get(address, "/", &[]).await });
    // It takes no writes when the renewal comes, at 4 s, and takes them again before the next, at 6 s.
    let mut plain = plain(&redis.url()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _: String = run(&mut plain, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _: String = run(&mut plain, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(get(address, "/", &[]).await.own().as_deref(), Some("refused"));
    assert_eq!(probe.await.expect("a task").text(), "late");
    assert_eq!(edge.information().await.state, State::Closed);
}

/// What becomes of a write.
pub(crate) enum Fate {
    Passes,
    /// It is carried out, and nobody hears of it.
    IsLost,
    Waits(Duration),
}

/// A way to a Redis on which writes, numbered from 0, have a fate.
pub(crate) async fn way(redis_url: &str, fate: impl Fn(u32) -> Fate + Clone + Send + 'static) -> SocketAddr {
    let redis = address_of(redis_url);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let writes = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (writes, fate) = (writes.clone(), fate.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(redis).await.expect("a Redis");
                let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
                loop {
                    tokio::select! {
                        size = client.read(&mut asked) => {
                            let Ok(size @ 1..) = size else { return };
                            let is_write = asked[..size].windows(7).any(|word| word == b"EVALSHA");
                            let fate = if is_write { fate(writes.fetch_add(1, Ordering::Relaxed)) } else { Fate::Passes };
                            if let Fate::Waits(time) = fate {
                                tokio::time::sleep(time).await;
                            }
                            server.write_all(&asked[..size]).await.expect("a Redis");
                            if let Fate::IsLost = fate {
                                let _ = server.read(&mut answered).await;
                                return;
                            }
                        }
                        size = server.read(&mut answered) => {
                            let Ok(size @ 1..) = size else { return };
                            if client.write_all(&answered[..size]).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_outcome_whose_answer_is_lost_is_counted_once() {
    const REQUESTS: u64 = 12;
    // The script has to be known, or its first run is no write.
    let known = Edge::start(&[]).await;
    get(known.gateway.address, "/", &[]).await;
    let every_other = |number: u32| if number.is_multiple_of(2) { Fate::IsLost } else { Fate::Passes };
    let way = way(&known.redis_url, every_other).await;
    let prefix = [("CIRCUITRY_REDIS_PREFIX", known.prefix.as_str())];
    let edge = Edge::on(&format!("redis://{way}"), &prefix).await;
    for _ in 0..REQUESTS {
        assert_eq!(timed(&edge).await.text(), "well");
    }
    assert_eq!(known.counts().await, (REQUESTS + 1, REQUESTS + 1, 0));
    edge.gateway.assert_never_failed();
}
