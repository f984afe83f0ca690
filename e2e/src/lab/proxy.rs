//! A way to a server that can be closed: what is under way then is held back, and comes late when it is opened again.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A TCP proxy on a loopback port of its own; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// An open one.
    pub async fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free port on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        let open = watch::Sender::new(true);
        let gate = open.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(connection(client, to, gate.clone()));
            }
        });
        Ok(Self { port, open, task })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through in either direction. Connections are accepted and stay, as in a network that loses packets.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Lets everything through, first what was held back.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: TcpStream, to: SocketAddr, gate: watch::Receiver<bool>) {
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let (client, server) = (client.into_split(), server.into_split());
    tokio::join!(
        pump(client.0, server.1, gate.clone()),
        pump(server.0, client.1, gate)
    );
}

/// Passes bytes on until either side ends.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<bool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if gate.wait_for(|open| *open).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // Who hangs up while nothing gets through is not heard either.
    if gate.wait_for(|open| *open).await.is_ok() {
        // The other side may have hung up by itself.
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_back_comes_late() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
            .await
            .unwrap();
        let (mut there, _) = server.accept().await.unwrap();
        let mut got = [0; 3];
        client.write_all(b"one").await.unwrap();
        there.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one");

        proxy.cut();
        client.write_all(b"two").await.unwrap();
        drop(client);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), there.read_exact(&mut got));
        assert!(waited.await.is_err());
        proxy.mend();
        there.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"two");
        assert_eq!(there.read(&mut got).await.unwrap(), 0);
    }
}
