//! A door to the participants that can be made to fail: behind one address, always the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the door behaves to those who come and to those who are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It leads to the participants.
    None,
    /// It takes connections and everything that is sent, and says nothing.
    Hangs,
    /// Nobody listens.
    Refuses,
    /// It leads to the participants for a second, nobody listens for the next, and so on.
    Flaps,
    /// It says one byte a second, of what might become an answer.
    Trickles,
    /// It says whatever comes to its mind, as fast as it is read.
    Babbles,
}

impl Fault {
    /// Those that are one, in the order in which they are played.
    pub const ALL: [Fault; 5] = [Fault::Hangs, Fault::Refuses, Fault::Flaps, Fault::Trickles, Fault::Babbles];

    /// What it does, for the table.
    pub fn name(self) -> &'static str {
        match self {
            Fault::None => "healthy",
            Fault::Hangs => "hangs",
            Fault::Refuses => "refuses connections",
            Fault::Flaps => "up 1 s, down 1 s",
            Fault::Trickles => "one byte a second",
            Fault::Babbles => "garbage",
        }
    }
}

/// How long a door that flaps is open, and shut.
const FLAP: Duration = Duration::from_secs(1);
/// Between two bytes of one that trickles.
const TRICKLE: Duration = Duration::from_secs(1);
/// An empty SETTINGS frame of HTTP/2.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Connections that wait to be taken.
const BACKLOG: u32 = 1_024;

/// The door; shut when dropped.
pub struct Door {
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    _keeper: JoinSet<()>,
}

impl Door {
    /// One that leads to `behind`, which is `HOST:PORT`.
    pub fn to(behind: &str) -> anyhow::Result<Self> {
        let listener = listen("127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;
        let (fault, told) = watch::channel(Fault::None);
        let behind: Arc<str> = behind.into();
        let mut keeper = JoinSet::new();
        keeper.spawn(async move {
            if let Err(error) = keep(listener, address, told, behind).await {
                panic!("the door to the participants: {error:#}");
            }
        });
        Ok(Self { address, fault, _keeper: keeper })
    }

    /// From now on it behaves like this, also to those who are inside.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("listen on {address}"))?;
    Ok(socket.listen(BACKLOG)?)
}

/// One manner after the other, each until it is told another one. Whoever is inside leaves with it.
async fn keep(
    first: TcpListener,
    address: SocketAddr,
    mut told: watch::Receiver<Fault>,
    behind: Arc<str>,
) -> anyhow::Result<()> {
    let mut listener = Some(first);
    loop {
        let fault = *told.borrow_and_update();
        let open_for = if fault == Fault::Flaps { FLAP } else { Duration::MAX };
        if fault != Fault::Refuses {
            let listening = match listener.take() {
                Some(listening) => listening,
                None => listen(address)?,
            };
            tokio::select! {
                changed = told.changed() => changed?,
                () = receive(&listening, fault, &behind) => {}
                () = tokio::time::sleep(open_for) => {}
            }
            drop(listening);
        }
        let shut_for = match fault {
            Fault::Refuses => Duration::MAX,
            Fault::Flaps => FLAP,
            Fault::None | Fault::Hangs | Fault::Trickles | Fault::Babbles => Duration::ZERO,
        };
        tokio::select! {
            changed = told.changed(), if fault == Fault::Refuses || fault == Fault::Flaps => changed?,
            () = tokio::time::sleep(shut_for) => {}
        }
    }
}

async fn receive(listener: &TcpListener, fault: Fault, behind: &Arc<str>) {
    // Dropped with this future, and everybody in it.
    let mut inside = JoinSet::new();
    while let Ok((guest, _)) = listener.accept().await {
        let behind = Arc::clone(behind);
        inside.spawn(async move {
            // A guest that leaves in the middle is no fault of the door.
            let _left = treat(guest, fault, &behind).await;
        });
        while inside.try_join_next().is_some() {}
    }
}

async fn treat(mut guest: TcpStream, fault: Fault, behind: &str) -> std::io::Result<()> {
    let mut heard = [0; 4_096];
    match fault {
        Fault::None | Fault::Flaps => {
            let mut host = TcpStream::connect(behind).await?;
            host.set_nodelay(true)?;
            guest.set_nodelay(true)?;
            copy_bidirectional(&mut guest, &mut host).await.map(drop)
        }
        Fault::Hangs => {
            while guest.read(&mut heard).await? > 0 {}
            Ok(())
        }
        Fault::Trickles => {
            let (mut from, mut to) = guest.split();
            let listening = async {
                while from.read(&mut heard).await? > 0 {}
                Ok(())
            };
            let saying = async {
                for byte in SETTINGS.iter().cycle() {
                    to.write_all(&[*byte]).await?;
                    tokio::time::sleep(TRICKLE).await;
                }
                Ok(())
            };
            tokio::select! { ended = listening => ended, ended = saying => ended }
        }
        Fault::Babbles => {
            let mut seed = 7_u32;
            loop {
                for byte in &mut heard {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *byte = seed.to_be_bytes()[0];
                }
                guest.write_all(&heard).await?;
            }
        }
        Fault::Refuses => Ok(()),
    }
}
