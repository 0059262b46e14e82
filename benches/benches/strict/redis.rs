//! The commands of a strict call on Redis, sent bare by the same client library.

use circuitry_benches::servers::redis_connection;
use circuitry_redis::SWAP_SCRIPT;
use circuitry_store::Version;
use redis::aio::ConnectionManager;

use crate::VALUE_BYTES;

pub(crate) struct Bare {
    connection: ConnectionManager,
    script: String,
    key: String,
    version: Vec<u8>,
    value: Vec<u8>,
}

impl Bare {
    pub(crate) async fn new() -> Self {
        let mut connection = redis_connection().await;
        let script: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(SWAP_SCRIPT)
            .query_async(&mut connection)
            .await
            .expect("a script");
        let key = format!("bench:bare:{}", std::process::id());
        let _: i64 = redis::cmd("DEL").arg(&key).query_async(&mut connection).await.expect("an answer");
        let mut bare = Self { connection, script, key, version: vec![0; 16], value: vec![b'x'; VALUE_BYTES] };
        bare.swap(false).await;
        bare
    }

    /// One bare read.
    pub(crate) async fn read(&mut self) {
        let value: Option<Vec<u8>> = redis::cmd("GET")
            .arg("bench:nothing")
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        assert!(value.is_none());
    }

    /// What a call sends.
    pub(crate) async fn load_and_swap(&mut self) {
        self.load().await;
        self.swap(true).await;
    }

    async fn load(&mut self) {
        let entry: (Option<Vec<u8>>, Option<Vec<u8>>) = redis::cmd("HMGET")
            .arg(&self.key)
            .arg("version")
            .arg("value")
            .query_async(&mut self.connection)
            .await
            .expect("an answer");
        assert!(entry.1.is_some());
    }

    async fn swap(&mut self, exists: bool) {
        let next = Version::mint().expect("randomness").into_bytes();
        let expected = if exists { self.version.as_slice() } else { &[] };
        let answer: (i64, i64) = redis::cmd("EVALSHA")
            .arg(&self.script)
            .arg(1)
            .arg(&self.key)
            .arg(i32::from(exists))
            .arg(expected)
            .arg(&next)
            .arg(&self.value)
            .arg(86_400_000)
            .query_async(&mut self.connection)
            .await
            .expect("stored");
        assert_eq!(answer.0, 1);
        self.version = next;
    }
}
