//! [`Subscription`]: a connection of its own that hears what is published, until it is lost.
//!
//! On a cluster it leads to the node of the channel's slot, which is where the others publish. Whether that node knows
//! sharded publishing decides for both sides, so they agree also while a cluster is upgraded node by node.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSubSink, PubSubStream};
use redis::{Client, ErrorKind, RedisError, RedisResult};
use tokio::time::timeout;

use super::{Link, Origin, no_connection_within};

/// One connection that hears one channel.
pub(crate) enum Subscription {
    Plain {
        sink: PubSubSink,
        messages: PubSubStream,
    },
    #[cfg(feature = "cluster")]
    Sharded {
        connection: redis::aio::MultiplexedConnection,
        pushes: tokio::sync::mpsc::UnboundedReceiver<redis::PushInfo>,
    },
}

impl Link {
    /// Whether connections can be made at all.
    pub(crate) fn can_subscribe(&self) -> bool {
        !matches!(self.inner.origin, Origin::Given(_))
    }

    /// Whether a message is to be published on the node of the channel's slot.
    pub(crate) fn is_cluster(&self) -> bool {
        match &self.inner.origin {
            #[cfg(feature = "cluster")]
            Origin::Cluster(_) => true,
            _ => false,
        }
    }

    /// Makes a connection that hears `channel`.
    pub(crate) async fn subscribe(&self, channel: &str) -> RedisResult<Subscription> {
        let limit = self.inner.timeouts.attempt();
        let made = timeout(limit, async {
            match &self.inner.origin {
                Origin::Given(_) => Err(RedisError::from((
                    ErrorKind::InvalidClientConfig,
                    "nobody here knows where the given connection leads to",
                ))),
                Origin::Server(client) => Subscription::plain(client, channel).await,
                #[cfg(feature = "cluster")]
                Origin::Cluster(entrance) => self.subscribe_at_home(entrance, channel).await,
                #[cfg(feature = "sentinel")]
                Origin::Sentinel(sentinels) => {
                    let master = sentinels.for_subscriptions.lock().await.async_get_client().await?;
                    Subscription::plain(&master, channel).await
                }
            }
        });
        made.await.unwrap_or_else(|_| Err(no_connection_within(limit)))
    }

    #[cfg(feature = "cluster")]
    async fn subscribe_at_home(
        &self,
        entrance: &crate::cluster::Entrance,
        channel: &str,
    ) -> RedisResult<Subscription> {
        let (mut connection, number) = self.connection().await?;
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let slots = connection.send_anywhere(slots).await;
        let slots = slots.inspect_err(|error| self.look_into(error, &connection, number))?;
        let node = entrance.home_of(channel, &slots)?;
        match Subscription::sharded(node.clone(), channel, self.inner.timeouts).await {
            Err(error) if crate::error::is_unknown_command(&error) => {
                Subscription::plain(&Client::open(node)?, channel).await
            }
            made => made,
        }
    }
}

impl Subscription {
    async fn plain(client: &Client, channel: &str) -> RedisResult<Self> {
        let (mut sink, messages) = client.get_async_pubsub().await?.split();
        sink.subscribe(channel).await?;
        Ok(Self::Plain { sink, messages })
    }

    #[cfg(feature = "cluster")]
    async fn sharded(
        node: redis::ConnectionInfo,
        channel: &str,
        timeouts: super::Timeouts,
    ) -> RedisResult<Self> {
        // The older protocol has no way to tell that the slot has moved. Whoever has shards speaks the newer one.
        let settings = node.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let (sender, pushes) = tokio::sync::mpsc::unbounded_channel();
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeouts.connect))
            .set_response_timeout(Some(timeouts.operation))
            .set_push_sender(sender);
        let client = Client::open(node.set_redis_settings(settings))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        subscribe_to_shard(&mut connection, channel).await?;
        Ok(Self::Sharded { connection, pushes })
    }

    /// The next message; `None` when the connection is lost or the channel has moved. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Plain { messages, .. } => Some(messages.next().await?.get_payload_bytes().to_vec()),
            #[cfg(feature = "cluster")]
            Self::Sharded { pushes, .. } => loop {
                let push = pushes.recv().await?;
                match push.kind {
                    redis::PushKind::Disconnection | redis::PushKind::SUnsubscribe => return None,
                    _ => {
                        if let Some(message) = redis::Msg::from_push_info(push) {
                            return Some(message.get_payload_bytes().to_vec());
                        }
                    }
                }
            },
        }
    }

    /// Whether the other end still answers, and would let us subscribe. It is asked by subscribing again, which changes
    /// nothing and needs no permission beyond those that there are.
    pub(crate) async fn is_alive(&mut self, channel: &str, limit: Duration) -> bool {
        let answer = match self {
            Self::Plain { sink, .. } => timeout(limit, sink.subscribe(channel)).await,
            #[cfg(feature = "cluster")]
            Self::Sharded { connection, .. } => timeout(limit, subscribe_to_shard(connection, channel)).await,
        };
        matches!(answer, Ok(Ok(())))
    }
}

#[cfg(feature = "cluster")]
async fn subscribe_to_shard(
    connection: &mut redis::aio::MultiplexedConnection,
    channel: &str,
) -> RedisResult<()> {
    let mut command = redis::cmd("SSUBSCRIBE");
    command.arg(channel);
    connection.send_packed_command(&command).await?.extract_error().map(drop)
}
