//! A TCP proxy between a host and nats-server that reads the NATS protocol well
//! enough to lose one chosen message.
//!
//! A *commit* is what ends a group of the host's: the message that closes an
//! atomic batch ([`Commit::Batch`]), or the ordinary publish of a commit record
//! that needs no batch ([`Commit::Single`]). What can be lost of one is a
//! [`Loss`]; each is an outcome that the host cannot tell from the others:
//!
//! ```text
//!            host            proxy           server
//! Request      ──── commit ────╳                        did not happen
//! Reply        ──── commit ──────────────────▶ stored   happened
//!                                ╳──── ack ───┘
//! MidBatch     ── 1st ──────────────────────▶ staged    did not happen
//!              ── 2nd ─────────╳ both sides closed
//! AfterRequest ──── commit ──────────────────▶ stored   happened, or not:
//!                              ╳ both sides closed      a race, on purpose
//! ```
//!
//! Besides, the proxy can cut every connection, refuse new ones, and hold
//! everything back while connections stay open.

mod frame;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use frame::Frame;

/// Which commit a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The last message of an atomic batch.
    Batch,
    /// A commit record published on its own.
    Single,
}

/// What is lost of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The commit never reaches the server.
    Request,
    /// The commit is made; its answer never reaches the host.
    Reply,
    /// The connection breaks after the first message of the batch.
    MidBatch,
    /// The connection breaks right behind the commit.
    AfterRequest,
}

/// A fault that was ordered; resolves once it has happened.
#[must_use = "a fault counts only if it is known to have happened"]
pub struct Ordered(oneshot::Receiver<()>);

impl Ordered {
    /// Waits until the fault has happened.
    pub async fn happened(self) -> Result<()> {
        tokio::time::timeout(crate::PATIENCE, self.0)
            .await
            .context("the proxy saw no message of the kind it was to lose")?
            .context("the proxy was dropped before its fault happened")
    }
}

struct Order {
    commit: Commit,
    loss: Loss,
    done: oneshot::Sender<()>,
}

#[derive(Default)]
struct Faults {
    /// Waits for its commit. At most one at a time: faults are told apart by what
    /// they do to one commit, and two at once would be a third kind.
    order: Option<Order>,
    /// Reply subject whose message is dropped, once it comes.
    swallow: Option<(String, oneshot::Sender<()>)>,
    /// Counts the frames of each direction, for tests of the proxy.
    frames: u64,
}

/// State of all connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Data flows.
    Open,
    /// Connections stay, nothing moves.
    Held,
    /// No connection is accepted.
    Closed,
}

pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
    gate: watch::Sender<Gate>,
    /// Rises at each cut; a connection of an earlier epoch ends.
    epoch: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

/// One direction of one connection, all it needs.
#[derive(Clone)]
struct Wires {
    faults: Arc<Mutex<Faults>>,
    gate: watch::Receiver<Gate>,
    epoch: Arc<watch::Sender<u64>>,
    /// The epoch in which the connection was accepted.
    begun: u64,
}

impl Wires {
    /// Whether the connection was cut. Looked at before each frame, so that nothing
    /// passes after a cut however late its task comes to see it.
    fn is_cut(&self) -> bool {
        *self.epoch.borrow() != self.begun
    }
}

impl Proxy {
    /// Listens on a free port and forwards to the server at `nats_url`. The
    /// server need not be there yet.
    pub async fn start(nats_url: &str) -> Result<Proxy> {
        let server = nats_url
            .strip_prefix("nats://")
            .with_context(|| format!("{nats_url} does not begin with nats://"))?
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        let (gate, gate_seen) = watch::channel(Gate::Open);
        let epoch = watch::Sender::new(0);
        let wires = Wires {
            faults: faults.clone(),
            gate: gate_seen,
            epoch: Arc::new(epoch.clone()),
            begun: 0,
        };
        let accepting = tokio::spawn(accept(listener, server, wires));
        Ok(Proxy {
            address,
            faults,
            gate,
            epoch,
            accepting,
        })
    }

    /// What a host is given as `--nats`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Orders the loss of the next commit of that kind.
    ///
    /// # Panics
    /// If the fault ordered before has not happened yet.
    pub fn lose(&self, commit: Commit, loss: Loss) -> Ordered {
        let (done, happened) = oneshot::channel();
        let mut faults = lock(&self.faults);
        assert!(
            faults.order.is_none() && faults.swallow.is_none(),
            "the proxy was given a fault while another waits to happen"
        );
        faults.order = Some(Order { commit, loss, done });
        Ordered(happened)
    }

    /// The next commit is made, and its reply is lost.
    pub fn swallow_reply_of_next_commit(&self, commit: Commit) -> Ordered {
        self.lose(commit, Loss::Reply)
    }

    /// The next commit is lost on its way to the server.
    pub fn swallow_next_commit(&self, commit: Commit) -> Ordered {
        self.lose(commit, Loss::Request)
    }

    /// Breaks every connection. New ones are accepted.
    pub fn cut(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Breaks every connection and accepts no new one until [`Proxy::open`].
    pub fn close(&self) {
        self.gate.send_replace(Gate::Closed);
        self.cut();
    }

    /// Holds everything back in both directions; connections stay open.
    pub fn hold(&self) {
        self.gate.send_replace(Gate::Held);
    }

    /// Lets everything through again.
    pub fn open(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// Frames forwarded so far, both ways together.
    pub fn frames(&self) -> u64 {
        lock(&self.faults).frames
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: String, wires: Wires) {
    loop {
        // A host that cannot connect tries again: nothing to do about a failed accept.
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        // Before the gate is looked at: closed in between, the connection is cut.
        let begun = *wires.epoch.borrow();
        let closed = *wires.gate.borrow() == Gate::Closed;
        if closed {
            continue; // dropping `client` is the refusal
        }
        let wires = Wires {
            begun,
            ..wires.clone()
        };
        let server = server.clone();
        tokio::spawn(async move {
            // The server may be down, which the host is to see as a closed connection.
            if let Ok(upstream) = TcpStream::connect(&server).await {
                connection(client, upstream, wires).await;
            }
        });
    }
}

/// Forwards both ways until either side ends or the proxy cuts; then closes both.
async fn connection(client: TcpStream, server: TcpStream, wires: Wires) {
    let (mut epoch, begun) = (wires.epoch.subscribe(), wires.begun);
    for socket in [&client, &server] {
        // Without this a commit would wait for the acknowledgement of what went before.
        let _ = socket.set_nodelay(true);
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        _ = to_server(client_read, server_write, wires.clone()) => {}
        _ = to_client(server_read, client_write, wires) => {}
        _ = epoch.wait_for(|epoch| *epoch != begun) => {}
    }
}

/// What becomes of a frame.
enum Fate {
    Forward,
    Drop,
    /// The connection ends with this frame, which is not forwarded.
    Cut,
    /// The connection ends right behind this frame.
    ForwardAndCut,
}

async fn to_server(read: OwnedReadHalf, mut write: OwnedWriteHalf, mut wires: Wires) -> Result<()> {
    let mut read = BufReader::new(read);
    while let Some(frame) = Frame::read(&mut read).await? {
        wires.gate.wait_for(|gate| *gate != Gate::Held).await?;
        if wires.is_cut() {
            return Ok(());
        }
        let fate = judge_request(&mut lock(&wires.faults), &frame);
        match fate {
            Fate::Forward => forward(&mut write, &frame).await?,
            Fate::Drop => {}
            Fate::Cut => {
                wires.epoch.send_modify(|epoch| *epoch += 1);
                return Ok(());
            }
            Fate::ForwardAndCut => {
                // Cut first: no answer can come through between the two. This direction
                // ends here, after the frame, unless the write has to wait.
                wires.epoch.send_modify(|epoch| *epoch += 1);
                return forward(&mut write, &frame).await;
            }
        }
    }
    Ok(())
}

async fn to_client(read: OwnedReadHalf, mut write: OwnedWriteHalf, mut wires: Wires) -> Result<()> {
    let mut read = BufReader::new(read);
    while let Some(frame) = Frame::read(&mut read).await? {
        wires.gate.wait_for(|gate| *gate != Gate::Held).await?;
        if wires.is_cut() {
            return Ok(());
        }
        let fate = judge_reply(&mut lock(&wires.faults), &frame);
        if let Fate::Forward = fate {
            forward(&mut write, &frame).await?;
        }
    }
    Ok(())
}

async fn forward(write: &mut OwnedWriteHalf, frame: &Frame) -> Result<()> {
    Ok(write.write_all(&frame.bytes).await?)
}

fn judge_request(faults: &mut Faults, frame: &Frame) -> Fate {
    faults.frames += 1;
    let Some(order) = &faults.order else {
        return Fate::Forward;
    };
    let hit = match order.loss {
        Loss::MidBatch => frame.batch_sequence() == Some(2) && !frame.closes_batch(),
        _ => match order.commit {
            Commit::Batch => frame.closes_batch(),
            Commit::Single => frame.is_single_record(),
        },
    };
    if !hit {
        return Fate::Forward;
    }
    let Some(Order { loss, done, .. }) = faults.order.take() else {
        return Fate::Forward;
    };
    if loss == Loss::Reply
        && let Some(reply) = &frame.reply
    {
        faults.swallow = Some((reply.clone(), done));
        return Fate::Forward;
    }
    // Nobody may be waiting to hear of it; the fault has happened all the same.
    let _ = done.send(());
    match loss {
        Loss::Request => Fate::Drop,
        Loss::MidBatch => Fate::Cut,
        Loss::AfterRequest | Loss::Reply => Fate::ForwardAndCut,
    }
}

fn judge_reply(faults: &mut Faults, frame: &Frame) -> Fate {
    faults.frames += 1;
    match faults.swallow.take_if(|(reply, _)| *reply == frame.subject) {
        Some((_, done)) => {
            let _ = done.send(());
            Fate::Drop
        }
        None => Fate::Forward,
    }
}
