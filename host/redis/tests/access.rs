//! Who may use the server: passwords, users with few permissions, and TLS.

mod support;

use std::fs;
use std::time::Duration;

use anyhow::Result;
use circuitry_redis::{RedisStore, RedisStoreBuilder};
use circuitry_store::{Store, StoreError, Swapped};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use support::process::{ServerProcess, free_port};
use support::{CLUSTER_PERMISSIONS, PERMISSIONS, SENTINEL_PERMISSIONS, eventually, own_store, value, write};

fn denied<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(error @ StoreError::Denied { .. }) => {
            let message = error.to_string();
            assert!(!message.contains("s3cret"), "{message}");
            message
        }
        other => panic!("it is to be Denied: {other:?}"),
    }
}

fn other<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(error @ StoreError::Other { .. }) => error.to_string(),
        other => panic!("it is to be Other: {other:?}"),
    }
}

/// Makes the user `worker` anew with these permissions on the keys of circuits.
async fn set_user(server: &ServerProcess, permissions: &str) -> Result<()> {
    let user = ["ACL", "SETUSER", "worker", "reset", "on", ">s3cret", "~circuitry:*"];
    server.run::<String>(&user.into_iter().chain(permissions.split(' ')).collect::<Vec<_>>()).await?;
    Ok(())
}

async fn connect_as(server: &ServerProcess, login: &str) -> Result<RedisStore, StoreError> {
    RedisStore::connect(&format!("redis://{login}@127.0.0.1:{}", server.port)).await
}

#[tokio::test]
async fn a_password_by_url_opens_and_a_wrong_one_or_none_is_denied() -> Result<()> {
    let server = ServerProcess::start(["--requirepass", "s3cret"]).await?;
    for protocol in ["resp2", "resp3"] {
        let connect = |login: &str| {
            let url = format!("redis://{login}127.0.0.1:{}/?protocol={protocol}", server.port);
            async move { own_store().connect(&url).await }
        };
        write(&connect(":s3cret@").await?, "circuit", None, b"1").await;
        write(&connect("default:s3cret@").await?, "circuit", None, b"1").await;
        for login in [":wrong@", "default:wrong@", "nobody:s3cret@", ""] {
            denied(connect(login).await);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_password_with_special_characters_is_given_percent_encoded() -> Result<()> {
    let server = ServerProcess::start(["--requirepass", "p@ss:w/ord#1%"]).await?;
    connect_as(&server, ":p%40ss%3Aw%2Ford%231%25").await?;
    Ok(())
}

#[tokio::test]
async fn a_user_with_the_documented_permissions_can_do_everything() -> Result<()> {
    let readme = include_str!("../README.md");
    for line in [PERMISSIONS, CLUSTER_PERMISSIONS, SENTINEL_PERMISSIONS] {
        assert!(readme.contains(line), "the README lists other permissions than {line}");
    }

    let server = ServerProcess::start::<&str>([]).await?;
    set_user(&server, PERMISSIONS).await?;
    let store = connect_as(&server, "worker:s3cret").await?;
    assert_eq!(store.load("circuit").await?.entry, None);
    let mut version = write(&store, "circuit", None, b"1").await.version;
    for ttl in [Some(Duration::from_secs(60)), None] {
        let Swapped::Stored(receipt) = store.swap("circuit", Some(&version), b"2", ttl).await? else {
            panic!("nobody else writes it")
        };
        version = receipt.version;
    }
    let mortal = store.swap("mortal", None, b"1", Some(Duration::from_secs(60))).await?;
    assert!(matches!(mortal, Swapped::Stored(_)));
    assert!(matches!(store.swap("circuit", None, b"late", None).await?, Swapped::Conflict(_)));
    server.run::<String>(&["SCRIPT", "FLUSH"]).await?;
    write(&store, "circuit", Some(&version), b"3").await;
    server.run::<String>(&["SET", "circuitry:foreign", "text"]).await?;
    assert!(other(store.load("foreign").await).contains("a string"), "TYPE says what it is");

    // Beyond its prefix it may do nothing.
    let beyond = RedisStore::builder().prefix("orders:");
    let beyond = beyond.connect(&format!("redis://worker:s3cret@127.0.0.1:{}", server.port)).await?;
    denied(beyond.load("circuit").await);
    denied(beyond.swap("circuit", None, b"1", None).await);
    Ok(())
}

/// A permission that is missing is Denied, and never a write of which the caller is told that it was none.
#[tokio::test]
async fn without_any_one_permission_a_swap_is_denied_and_writes_nothing() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    let admin = RedisStore::connect(&server.url()).await?;
    let needed = ["+hmget", "+evalsha", "+hset", "+pexpire", "+persist", "+exists", "+time"];
    for missing in needed {
        let rest: Vec<&str> = PERMISSIONS.split(' ').filter(|permission| *permission != missing).collect();
        set_user(&server, &rest.join(" ")).await?;
        let store = connect_as(&server, "worker:s3cret").await?;
        let mut was_denied = 0;
        let minute = Some(Duration::from_secs(60));
        for (exists, ttl) in [(true, minute), (true, None), (false, minute), (false, None)] {
            let circuit = format!("exists: {exists}, ttl: {ttl:?}, without {missing}");
            let before = match exists {
                true => Some(write(&admin, &circuit, None, b"1").await.version),
                false => None,
            };
            let answer = store.swap(&circuit, before.as_ref(), b"2", ttl).await;
            let entry = admin.load(&circuit).await?.entry;
            if let Ok(Swapped::Stored(receipt)) = &answer {
                assert_eq!(entry.map(|entry| entry.version).as_ref(), Some(&receipt.version), "{circuit}");
            } else {
                denied(answer);
                assert_eq!(
                    entry.map(|entry| entry.version),
                    before,
                    "{circuit}: it was denied, and has written"
                );
                was_denied += 1;
            }
        }
        assert!(was_denied > 0, "no swap needs {missing}");
    }
    Ok(())
}

#[tokio::test]
async fn without_info_the_store_does_not_connect_and_says_what_is_missing() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    set_user(&server, "+hmget +evalsha").await?;
    let message = denied(connect_as(&server, "worker:s3cret").await);
    assert!(message.contains("info"), "{message}");
    Ok(())
}

/// The client's connection manager keeps a failed login for ever; the store does not.
#[tokio::test]
async fn a_login_that_fails_for_a_while_works_again_afterwards() -> Result<()> {
    let server = ServerProcess::start::<&str>([]).await?;
    set_user(&server, PERMISSIONS).await?;
    let store = connect_as(&server, "worker:s3cret").await?;
    let first = write(&store, "circuit", None, b"1").await;

    server.run::<i64>(&["ACL", "DELUSER", "worker"]).await?;
    eventually("the loss of the user is noticed", Duration::from_secs(10), || async {
        matches!(store.load("circuit").await, Err(StoreError::Denied { .. })).then_some(())
    })
    .await;
    denied(store.swap("circuit", Some(&first.version), b"2", None).await);
    denied(store.load("circuit").await);

    set_user(&server, PERMISSIONS).await?;
    assert_eq!(value(&store, "circuit").await.as_deref(), Some(&b"1"[..]));
    write(&store, "circuit", Some(&first.version), b"2").await;
    Ok(())
}

/// A server behind TLS with certificates of its own authority.
struct TlsServer {
    process: ServerProcess,
    tls_port: u16,
    authority: String,
    client: (String, String),
}

impl TlsServer {
    async fn start(asks_clients: bool) -> Result<Self> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let number = fastrand::u64(..);
        authority.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let signed = |name: &str| -> Result<(String, String)> {
            let key = KeyPair::generate()?;
            let mut certificate = CertificateParams::new(vec![name.to_owned()])?;
            certificate.distinguished_name.push(DnType::CommonName, name);
            Ok((certificate.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let (certificate, key) = signed("localhost")?;

        let folder = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> Result<String> {
            let path = folder.path().join(name);
            fs::write(&path, text)?;
            Ok(path.to_string_lossy().into_owned())
        };
        let tls_port = free_port()?;
        let arguments = [
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &file("server.pem", &certificate)?,
            "--tls-key-file",
            &file("server.key", &key)?,
            "--tls-ca-cert-file",
            &file("authority.pem", &authority_pem)?,
            "--tls-auth-clients",
            if asks_clients { "yes" } else { "no" },
        ];
        let process = ServerProcess::start_in(folder, free_port()?, arguments).await?;
        Ok(Self { process, tls_port, authority: authority_pem, client: signed("worker")? })
    }

    async fn connect(&self, builder: RedisStoreBuilder, scheme: &str) -> Result<RedisStore, StoreError> {
        builder.connect(&format!("{scheme}://localhost:{}", self.tls_port)).await
    }
}

#[tokio::test]
async fn rediss_speaks_tls_to_a_server_whose_certificate_is_trusted() -> Result<()> {
    let server = TlsServer::start(false).await?;
    let trusting = || own_store().root_certificate_pem(server.authority.clone());
    let store = server.connect(trusting(), "rediss").await?;
    let receipt = write(&store, "circuit", None, b"1").await;
    assert_eq!(value(&store, "circuit").await.as_deref(), Some(&b"1"[..]));

    // After a loss it comes back with TLS.
    let _: i64 = server.process.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    eventually("it is back", Duration::from_secs(10), || async { store.load("circuit").await.ok() }).await;
    write(&store, "circuit", Some(&receipt.version), b"2").await;
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_refused_and_is_no_outage() -> Result<()> {
    let (server, stranger) = (TlsServer::start(false).await?, TlsServer::start(false).await?);
    let trusts_another = own_store().root_certificate_pem(stranger.authority.clone());
    let message = other(server.connect(trusts_another, "rediss").await);
    assert!(message.contains("certificate"), "{message}");
    let message = other(server.connect(own_store().root_certificate_pem("no certificate"), "rediss").await);
    assert!(message.contains("certificate"), "{message}");

    // The name in the certificate is localhost.
    let by_number = own_store().root_certificate_pem(server.authority.clone());
    let message = other(by_number.connect(&format!("rediss://127.0.0.1:{}", server.tls_port)).await);
    assert!(message.contains("certificate"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_server_may_ask_for_the_clients_certificate() -> Result<()> {
    let server = TlsServer::start(true).await?;
    let trusting = || own_store().root_certificate_pem(server.authority.clone());
    let (certificate, key) = server.client.clone();
    let store = server.connect(trusting().client_certificate_pem(certificate, key), "rediss").await?;
    write(&store, "circuit", None, b"1").await;
    let without = server.connect(trusting(), "rediss").await;
    assert!(without.is_err(), "{without:?}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_without_tls_is_refused_and_says_what_to_write() -> Result<()> {
    let server = TlsServer::start(false).await?;
    let message =
        other(server.connect(own_store().root_certificate_pem(server.authority.clone()), "redis").await);
    assert!(message.contains("rediss://"), "{message}");
    Ok(())
}

#[tokio::test]
async fn settings_out_of_bounds_are_refused_by_name() {
    for timeout in [Duration::ZERO, Duration::from_secs(61)] {
        let builder = || own_store().lazy();
        let url = "redis://127.0.0.1";
        assert!(other(builder().operation_timeout(timeout).connect(url).await).contains("operation_timeout"));
        assert!(other(builder().connect_timeout(timeout).connect(url).await).contains("connect_timeout"));
    }
}
