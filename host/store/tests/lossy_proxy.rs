//! The proxy loses exactly what it is asked to lose.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use circuitry_store::conformance::LossyProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A server that answers every read with "ok" and tells what it has read.
async fn server() -> io::Result<(SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (requests, seen) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let requests = requests.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 256];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    let _ = requests.send(bytes[..length].to_vec());
                    let _ = stream.write_all(b"ok").await;
                }
            });
        }
    });
    Ok((address, seen))
}

async fn ask(client: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    client.write_all(request).await?;
    let mut bytes = [0; 256];
    let length = client.read(&mut bytes).await?;
    Ok(bytes[..length].to_vec())
}

/// Long for bytes on loopback, short for a test.
const A_WHILE: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_answer_is_lost_after_the_server_has_got_the_request() -> io::Result<()> {
    let (address, mut seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    proxy.lose_answer_to("SWAP");
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"LOAD").await?, b"ok", "another request has its answer");
    assert_eq!(ask(&mut client, b"a SWAP of b").await?, b"", "the connection ends");
    assert_eq!(
        (seen.recv().await.unwrap(), seen.recv().await.unwrap()),
        (b"LOAD".to_vec(), b"a SWAP of b".to_vec())
    );
    assert_eq!((proxy.lost(), proxy.accepted()), (1, 1));

    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"SWAP").await?, b"ok", "only one is lost");
    Ok(())
}

#[tokio::test]
async fn a_request_is_lost_before_the_server_gets_it() -> io::Result<()> {
    let (address, mut seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    proxy.lose_request_with("SWAP");
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"SWAP 1").await.unwrap_or_default(), b"");
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"SWAP 2").await?, b"ok");
    assert_eq!(seen.recv().await.unwrap(), b"SWAP 2");
    assert_eq!(proxy.lost(), 1);
    Ok(())
}

#[tokio::test]
async fn a_request_that_comes_in_two_parts_is_found() -> io::Result<()> {
    let (address, _seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    proxy.lose_answer_to("SWAP");
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"...SW").await?, b"ok");
    assert_eq!(ask(&mut client, b"AP...").await?, b"");
    Ok(())
}

#[tokio::test]
async fn a_loss_that_was_taken_back_does_not_happen() -> io::Result<()> {
    let (address, _seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    proxy.lose_answer_to("");
    proxy.lose_nothing();
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"SWAP").await?, b"ok");
    assert_eq!(proxy.lost(), 0);
    Ok(())
}

#[tokio::test]
async fn what_is_stalled_arrives_after_it() -> io::Result<()> {
    let (address, mut seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"1").await?, b"ok");
    seen.recv().await.unwrap();

    proxy.stall();
    client.write_all(b"2").await?;
    assert!(tokio::time::timeout(A_WHILE, seen.recv()).await.is_err(), "a stalled request arrived");
    proxy.resume().await;
    assert_eq!(seen.recv().await.unwrap(), b"2");
    assert_eq!(client.read(&mut [0; 8]).await?, 2);

    proxy.hold_answers();
    client.write_all(b"3").await?;
    assert_eq!(seen.recv().await.unwrap(), b"3", "only the answer is held");
    assert!(tokio::time::timeout(A_WHILE, client.read(&mut [0; 8])).await.is_err(), "a held answer arrived");
    proxy.resume().await;
    assert_eq!(client.read(&mut [0; 8]).await?, 2);
    Ok(())
}

#[tokio::test]
async fn an_abandoned_connection_stays_open_and_carries_nothing() -> io::Result<()> {
    let (address, _seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    let mut old = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut old, b"1").await?, b"ok");
    proxy.abandon();
    assert!(tokio::time::timeout(A_WHILE, ask(&mut old, b"2")).await.is_err(), "it carries, or it is closed");
    let mut new = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut new, b"3").await?, b"ok");
    Ok(())
}

#[tokio::test]
async fn refused_connections_are_taken_again_at_the_same_address() -> io::Result<()> {
    let (address, _seen) = server().await?;
    let proxy = LossyProxy::start(address).await?;
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"1").await?, b"ok");
    proxy.refuse().await;
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0, "connections end");
    let refused = TcpStream::connect(proxy.address()).await.map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
    proxy.resume().await;
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"2").await?, b"ok");
    proxy.cut();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0, "a cut ends connections");
    let mut client = TcpStream::connect(proxy.address()).await?;
    assert_eq!(ask(&mut client, b"3").await?, b"ok", "and no others");
    Ok(())
}
