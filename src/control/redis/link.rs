//! A way to whoever counts: one server, the nodes of a cluster, or the server that sentinels name.
//!
//! All keys have one hash tag, so a cluster keeps them on one node, and a script may charge many of them at once. Where that node fails, or a server
//! does that sentinels watch, somebody else takes over after a while; until then there is no answer, and whoever asks begins anew. He begins with
//! another address each time: one that is silent must not stand before those that know.

use crate::config::{Redis, RedisPlace};
use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClientBuilder;
use ::redis::cluster_async::ClusterConnection;
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError,
    TlsCertificates, TlsMode,
};

/// Times that a cluster is asked again: it may say that another node has the keys now.
const CLUSTER_RETRIES: u32 = 2;

/// See the module.
pub(super) enum Link {
    Server(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

impl Link {
    /// Connects, for the `turn`th time.
    pub(super) async fn open(redis: &Redis, turn: usize) -> Result<Self, RedisError> {
        let written = redis.url.as_str().into_connection_info()?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(super::CONNECT))
            .set_response_timeout(Some(redis.timeout));
        match &redis.place {
            RedisPlace::Server => {
                let client = match certificates(redis) {
                    None => Client::open(written)?,
                    Some(certificates) => Client::build_with_tls(written, certificates)?,
                };
                client.get_multiplexed_async_connection_with_config(&config).await.map(Self::Server)
            }
            RedisPlace::Cluster => {
                let infos = addresses(&written, redis, turn).into_iter().map(|addr| written.clone().set_addr(addr));
                let mut builder = ClusterClientBuilder::new(infos.collect::<Vec<ConnectionInfo>>())
                    .retries(CLUSTER_RETRIES)
                    .connection_timeout(super::CONNECT)
                    .response_timeout(redis.timeout);
                if let Some(certificates) = certificates(redis) {
                    builder = builder.certs(certificates);
                }
                let connection = builder.build()?.get_async_connection().await?;
                Ok(Self::Cluster(Box::new(connection)))
            }
            RedisPlace::Sentinel { master, password } => {
                let is_tls = matches!(written.addr(), ConnectionAddr::TcpTls { .. });
                let sentinels = addresses(&written, redis, turn);
                let mut builder = SentinelClientBuilder::new(sentinels, master, SentinelServerType::Master)?
                    .set_client_to_redis_db(written.redis_settings().db());
                if let Some(user) = written.redis_settings().username() {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = written.redis_settings().password() {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(password) = password {
                    builder = builder.set_client_to_sentinel_password(&password.0);
                }
                if is_tls {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                if let Some(certificates) = certificates(redis) {
                    builder = builder.set_client_to_sentinel_certificates(certificates.clone());
                    builder = builder.set_client_to_redis_certificates(certificates);
                }
                let mut client = builder.build()?;
                client.get_async_connection_with_config(&config).await.map(Self::Server)
            }
        }
    }

    /// Asks it something.
    pub(super) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(&mut **connection).await,
        }
    }
}

/// All addresses that are known, the `turn`th first.
fn addresses(written: &ConnectionInfo, redis: &Redis, turn: usize) -> Vec<ConnectionAddr> {
    let is_tls = matches!(written.addr(), ConnectionAddr::TcpTls { .. });
    let of_node = |(host, port): &(String, u16)| match is_tls {
        true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.clone(), *port),
    };
    let mut all: Vec<_> = std::iter::once(written.addr().clone()).chain(redis.nodes.iter().map(of_node)).collect();
    let first = turn % all.len();
    all.rotate_left(first);
    all
}

fn certificates(redis: &Redis) -> Option<TlsCertificates> {
    let (_, pem) = redis.ca.as_ref()?;
    Some(TlsCertificates { client_tls: None, root_cert: Some(pem.clone().into_bytes()) })
}
