//! [`Cluster`]: requests to the nodes of a Redis Cluster, sent at most once.
//!
//! The cluster client sends a request again after any failure, a lost connection among them, which would write twice.
//! So its retries are off, and with them its redirections; those are followed here. `MOVED` and `ASK` are answers of a
//! node that has not carried the request out, so it is safe to send it on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline};
use redis::{RedisError, RedisResult, ServerErrorKind, TlsCertificates, Value};

use crate::error::server_code;
use crate::link::{Request, Timeouts};

/// While slots move, one node after the other learns of it. The deadline of the operation ends it earlier.
const HOPS: u32 = 10;
/// The first one is 0.
const LAST_SLOT: i64 = 16_383;
/// Between two tries, longer each time: nodes tell each other within some tens of milliseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// What leads into a cluster.
pub(crate) struct Entrance {
    client: ClusterClient,
    settings: Arc<Settings>,
}

/// What is needed to connect to a node that the client has no connection to.
struct Settings {
    /// Some node's address with what is the same for all nodes: login, protocol, TLS.
    any_node: ConnectionInfo,
    timeouts: Timeouts,
}

impl Entrance {
    /// Takes the addresses of some nodes; the others are learned from them.
    pub(crate) fn new(
        nodes: Vec<ConnectionInfo>,
        certificates: Option<TlsCertificates>,
        timeouts: Timeouts,
    ) -> RedisResult<Self> {
        let any_node = nodes.first().cloned();
        let any_node = any_node.ok_or((ErrorKind::InvalidClientConfig, "no node of the cluster is named"))?;
        let mut builder = ClusterClient::builder(nodes)
            .retries(0)
            .connection_timeout(timeouts.connect)
            .response_timeout(timeouts.operation);
        let any_node = match certificates {
            Some(certificates) => {
                builder = builder.certs(certificates.clone());
                Client::build_with_tls(any_node, certificates)?.get_connection_info().clone()
            }
            None => any_node,
        };
        Ok(Self { client: builder.build()?, settings: Arc::new(Settings { any_node, timeouts }) })
    }

    /// Connects to the nodes.
    pub(crate) async fn connect(&self) -> RedisResult<Cluster> {
        let nodes = self.client.get_async_connection().await?;
        Ok(Cluster { nodes, settings: Arc::clone(&self.settings) })
    }

    /// The master that has the slot of `key`, by an answer to CLUSTER SLOTS.
    pub(crate) fn home_of(&self, key: &str, slots: &Value) -> RedisResult<ConnectionInfo> {
        let any_node = &self.settings.any_node;
        let (host, port) = master_of(Slot::for_key(key), slots)
            .ok_or((ErrorKind::ClusterConnectionNotFound, "no node has the slot of the channel"))?;
        match (host, any_node.addr()) {
            (Some(host), _) => Ok(at(any_node, &host, port)),
            // It does not know how clients reach it: the way that we came is one.
            (None, ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => {
                Ok(at(any_node, host, port))
            }
            (None, _) => Ok(any_node.clone()),
        }
    }
}

/// Connections to the nodes of a cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    nodes: ClusterConnection,
    settings: Arc<Settings>,
}

impl Cluster {
    /// Sends a request to the master of its key's slot and follows redirections.
    pub(crate) async fn send(&mut self, request: &Request) -> RedisResult<Vec<Value>> {
        let count = request.commands.len();
        // Reads, too, go to the master: a replica may be behind, and a write must be read.
        let route = SingleNodeRoutingInfo::SpecificNode(Route::with_key(&request.key, SlotAddr::Master));
        let mut hop = 0;
        loop {
            let sent = self.nodes.route_pipeline(request.pipeline(), 0, count, route.clone()).await;
            let error = match sent {
                // The errors of its node are among the answers, those apart that the client acts on.
                Ok(answers) => return Ok(answers),
                Err(error) => own_error(error),
            };
            match error.kind() {
                // The client learns the slots anew before it takes the next request, so the same route leads elsewhere.
                ErrorKind::Server(ServerErrorKind::Moved) if hop < HOPS => {
                    tracing::debug!(hop, %error, "redirected");
                    tokio::time::sleep(PAUSE * hop).await;
                    hop += 1;
                }
                ErrorKind::Server(ServerErrorKind::Ask) => return self.ask(request, error).await,
                _ => return Err(error),
            }
        }
    }

    /// Sends a command to any one node.
    pub(crate) async fn send_anywhere(&mut self, command: Cmd) -> RedisResult<Value> {
        self.nodes.route_command(command, RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random)).await
    }

    /// Sends a request to the node that is taking the key's slot over, with a connection for this once: the client may
    /// have none to it, as it has no slots yet.
    async fn ask(&self, request: &Request, redirection: RedisError) -> RedisResult<Vec<Value>> {
        let node = redirection.redirect_node().and_then(|(node, _)| node.rsplit_once(':'));
        let node = node.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        // A node that does not know its own address names none.
        let Some((host, port)) = node.filter(|(host, _)| !host.is_empty()) else { return Err(redirection) };
        tracing::debug!(host, port, "asked to ask");
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.timeouts.connect))
            .set_response_timeout(Some(self.settings.timeouts.operation));
        let client = Client::open(at(&self.settings.any_node, host, port))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut pipeline = Pipeline::new();
        for command in &request.commands {
            // It holds for the one command that follows.
            pipeline.cmd("ASKING").add_command(command.clone());
        }
        let answers = connection.send_packed_commands(&pipeline, 0, 2 * request.commands.len()).await?;
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }
}

/// The error of a request, which may be that of another one: when the client cannot learn the slots anew, it gives the error of that
/// to all who wait for an answer. So a code proves that a request was not carried out only where nothing but a key's request gets it.
fn own_error(error: RedisError) -> RedisError {
    match server_code(&error).as_deref() {
        None | Some("MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "READONLY") => error,
        // Most often it is that of one node, which is no reason to replace the connections to all.
        Some("LOADING" | "MASTERDOWN") => RedisError::from((
            ErrorKind::ClusterConnectionNotFound,
            "a node of the cluster is not ready",
            error.to_string(),
        )),
        Some(_) => io::Error::other(format!("the cluster's slots cannot be learned: {error}")).into(),
    }
}

/// Ranges of slots, each with its first and last slot, its master, and its replicas; a node begins with host and port.
fn master_of(slot: Slot, slots: &Value) -> Option<(Option<String>, u16)> {
    let Value::Array(ranges) = slots else { return None };
    let master = ranges.iter().find_map(|range| match range {
        Value::Array(range) => match range.as_slice() {
            [Value::Int(first), Value::Int(last), master, ..] => {
                let (first, last) = ((*first).max(0), (*last).min(LAST_SLOT));
                let mut all = (first..=last).filter_map(|number| Slot::new(u16::try_from(number).ok()?));
                all.any(|one| one == slot).then_some(master)
            }
            _ => None,
        },
        _ => None,
    })?;
    let Value::Array(master) = master else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let host = redis::from_redis_value_ref::<Option<String>>(host).ok()?;
    Some((host.filter(|host| !host.is_empty()), u16::try_from(*port).ok()?))
}

/// The settings of `node` with another address.
fn at(node: &ConnectionInfo, new_host: &str, new_port: u16) -> ConnectionInfo {
    let mut address = node.addr().clone();
    match &mut address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            new_host.clone_into(host);
            *port = new_port;
        }
        // A cluster has no node behind a socket file; the client has refused it.
        _ => {}
    }
    node.clone().set_addr(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a node that has these slots.
    fn slots(ranges: &[(i64, i64, u16)]) -> Value {
        let ranges = ranges.iter().map(|(first, last, port)| {
            let master = [Value::BulkString(b"10.0.0.1".to_vec()), Value::Int(i64::from(*port))];
            Value::Array(vec![Value::Int(*first), Value::Int(*last), Value::Array(master.into())])
        });
        Value::Array(ranges.collect())
    }

    #[test]
    fn slots_that_there_are_not_are_not_gone_through() {
        let slot = Slot::new(100).unwrap();
        let nonsense = slots(&[(16_384, i64::MAX, 1), (i64::MIN, -1, 2), (0, i64::MAX, 3)]);
        assert_eq!(master_of(slot, &nonsense), Some((Some("10.0.0.1".to_owned()), 3)));
        assert_eq!(master_of(slot, &slots(&[(101, i64::MAX, 1), (i64::MIN, 99, 2)])), None);
    }
}
