//! What lies under a key: ours is written as documented, and what others wrote is left alone.

mod support;

use std::time::Duration;

use anyhow::Result;
use circuitry_redis::{RedisStore, SWAP_SCRIPT};
use circuitry_store::{Store, StoreError, Swapped, Version};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};
use support::{own_prefix, own_store, plain, server_url, write};

async fn run<T: FromRedisValue>(server: &mut MultiplexedConnection, command: &[&[u8]]) -> Result<T> {
    let mut packed = redis::Cmd::new();
    for part in command {
        packed.arg(*part);
    }
    Ok(packed.query_async(server).await?)
}

#[tokio::test]
async fn an_entry_is_a_hash_of_version_and_value_under_the_prefix_and_the_name() -> Result<()> {
    let mut server = plain(&server_url()).await?;
    let prefix = own_prefix();
    let store = RedisStore::builder().prefix(&prefix).connect(&server_url()).await?;
    let key = format!("{prefix}emails/{{acme}}:*");
    assert_eq!(store.key("emails/{acme}:*"), key);

    let Swapped::Stored(receipt) =
        store.swap("emails/{acme}:*", None, b"\0\xff", Some(Duration::from_secs(100))).await?
    else {
        panic!("nobody else writes it")
    };
    let fields: Vec<(String, Vec<u8>)> = run(&mut server, &[b"HGETALL", key.as_bytes()]).await?;
    let expected = [
        ("version".to_owned(), receipt.version.as_bytes().to_vec()),
        ("value".to_owned(), b"\0\xff".to_vec()),
    ];
    assert_eq!(fields, expected);
    let left_ms: i64 = run(&mut server, &[b"PTTL", key.as_bytes()]).await?;
    assert!((90_000..=100_000).contains(&left_ms), "{left_ms}");

    write(&store, "emails/{acme}:*", Some(&receipt.version), b"without end").await;
    let left_ms: i64 = run(&mut server, &[b"PTTL", key.as_bytes()]).await?;
    assert_eq!(left_ms, -1, "a swap without time to live takes the old one away");
    Ok(())
}

#[tokio::test]
async fn stores_with_different_prefixes_or_databases_share_nothing() -> Result<()> {
    let url = server_url();
    let (one, other) = (own_store().connect(&url).await?, own_store().connect(&url).await?);
    write(&one, "circuit", None, b"1").await;
    assert_eq!(other.load("circuit").await?.entry, None);

    let prefix = own_prefix();
    let in_database = |number: u8| {
        let (prefix, url) = (prefix.clone(), format!("{}/{number}", url.trim_end_matches('/')));
        async move { RedisStore::builder().prefix(prefix).connect(&url).await }
    };
    write(&in_database(1).await?, "circuit", None, b"1").await;
    assert_eq!(in_database(2).await?.load("circuit").await?.entry, None);
    assert!(in_database(1).await?.load("circuit").await?.entry.is_some());
    Ok(())
}

#[tokio::test]
async fn a_key_of_somebody_else_is_refused_by_name_and_left_unharmed() -> Result<()> {
    let mut server = plain(&server_url()).await?;
    let store = own_store().connect(&server_url()).await?;
    let foreign: [(&str, &[&[u8]], &str); 8] = [
        ("text", &[b"SET", b"", b"text", b"PX", b"1000000"], "a string"),
        ("list", &[b"RPUSH", b"", b"a", b"b"], "a list"),
        ("set", &[b"SADD", b"", b"a"], "a set"),
        ("sorted set", &[b"ZADD", b"", b"1", b"a"], "a zset"),
        ("stream", &[b"XADD", b"", b"*", b"a", b"b"], "a stream"),
        ("hash", &[b"HSET", b"", b"state", b"open"], "a hash without the fields version and value"),
        ("half", &[b"HSET", b"", b"version", b"1"], "a hash"),
        ("other half", &[b"HSET", b"", b"value", b"1"], "a hash"),
    ];
    for (name, make, found) in foreign {
        let key = store.key(name);
        let mut make = make.to_vec();
        make[1] = key.as_bytes();
        run::<Value>(&mut server, &make).await?;
        let dump: Vec<u8> = run(&mut server, &[b"DUMP", key.as_bytes()]).await?;

        let version = Version::from_bytes(*b"1");
        let answers = [
            ("load", store.load(name).await.map(drop)),
            ("swap", store.swap(name, None, b"new", Some(Duration::from_secs(1))).await.map(drop)),
            ("swap", store.swap(name, Some(&version), b"new", None).await.map(drop)),
        ];
        for (operation, answer) in answers {
            let Err(error @ StoreError::Other { .. }) = answer else {
                panic!("{operation} of a {name}: {answer:?}")
            };
            let message = error.to_string();
            for part in [operation, &key, found, "Delete or rename the key", "prefix"] {
                assert!(message.contains(part), "{part:?} is not in: {message}");
            }
        }

        let after: Vec<u8> = run(&mut server, &[b"DUMP", key.as_bytes()]).await?;
        assert_eq!(after, dump, "the {name} was changed");
        let left_ms: i64 = run(&mut server, &[b"PTTL", key.as_bytes()]).await?;
        assert!(if name == "text" { left_ms > 900_000 } else { left_ms == -1 }, "{name}: {left_ms}");
    }
    Ok(())
}

#[tokio::test]
async fn an_absent_entry_is_absent_and_an_entry_may_have_more_fields() -> Result<()> {
    let mut server = plain(&server_url()).await?;
    let store = own_store().connect(&server_url()).await?;
    for _ in 0..3 {
        assert_eq!(store.load("nobody wrote it").await?.entry, None);
    }
    // Room for what a later version may keep beside it.
    let first = write(&store, "more", None, b"1").await;
    run::<i64>(&mut server, &[b"HSET", store.key("more").as_bytes(), b"later", b"field"]).await?;
    write(&store, "more", Some(&first.version), b"2").await;
    let later: String = run(&mut server, &[b"HGET", store.key("more").as_bytes(), b"later"]).await?;
    assert_eq!(later, "field");
    Ok(())
}

/// A message about a name of 1,024 bytes of anything is one line that can be read.
#[tokio::test]
async fn a_message_shows_a_hostile_name_escaped_and_shortened() -> Result<()> {
    let mut server = plain(&server_url()).await?;
    let store = own_store().connect(&server_url()).await?;
    let name = "\n\u{1b}[2J🦀".repeat(113);
    run::<Value>(&mut server, &[b"SET", store.key(&name).as_bytes(), b"text"]).await?;
    let message = store.load(&name).await.expect_err("it is a string").to_string();
    assert!(message.len() < 1_000 && !message.contains(['\n', '\u{1b}']), "{message:?}");
    assert!(message.contains("bytes)"), "{message}");
    Ok(())
}

/// The script as a host in another language sends it: its arguments, its answers, and its behaviour when sent twice.
#[tokio::test]
async fn the_script_answers_as_it_documents_and_a_second_copy_of_a_write_changes_nothing() -> Result<()> {
    let mut server = plain(&server_url()).await?;
    let key = own_prefix() + "script";
    let mut swap = async |arguments: [&str; 5]| -> Result<Vec<Value>> {
        let mut command = redis::cmd("EVAL");
        command.arg(SWAP_SCRIPT).arg(1).arg(&key).arg(&arguments);
        Ok(command.query_async(&mut server).await?)
    };
    let text = |text: &str| Value::BulkString(text.into());

    let answer = swap(["1", "v0", "v1", "one", ""]).await?;
    assert!(
        matches!(answer[..], [Value::Int(0), Value::Int(_)]),
        "an entry is expected, there is none: {answer:?}"
    );
    let answer = swap(["0", "", "v1", "one", ""]).await?;
    let [Value::Int(1), Value::Int(now_ms)] = answer[..] else { panic!("stored: {answer:?}") };
    assert!(now_ms > 1_600_000_000_000, "milliseconds since 1970: {now_ms}");

    for again in 0..3 {
        let answer = swap(["0", "", "v1", "one", ""]).await?;
        assert!(
            matches!(answer[..], [Value::Int(1), Value::Int(_)]),
            "copy {again} of a stored write: {answer:?}"
        );
    }
    let answer = swap(["1", "v1", "v2", "two", "1000"]).await?;
    assert!(matches!(answer[..], [Value::Int(1), Value::Int(_)]), "stored: {answer:?}");
    for late in [["0", "", "v1", "one", ""], ["1", "v0", "v1", "one", ""]] {
        let answer = swap(late).await?;
        assert_eq!(answer[..1], [Value::Int(0)], "a late copy of the first write loses");
        assert_eq!(answer[2..], [text("v2"), text("two")]);
    }
    Ok(())
}
