//! The cable between a client and the daemon: it can be cut, and mends itself for the next connection.

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections to its address go on to another one. They end when it is cut or dropped.
pub struct Cable {
    pub addr: String,
    cuts: watch::Sender<u32>,
    laid: tokio::task::JoinHandle<()>,
}

impl Cable {
    pub async fn to(far_end: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let (cuts, cut) = watch::channel(0);
        let far_end = far_end.to_owned();
        let laid = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut cut, far_end) = (cut.clone(), far_end.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(far_end).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { addr, cuts, laid })
    }

    /// Breaks all connections that it carries.
    pub fn cut(&mut self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.laid.abort();
    }
}
