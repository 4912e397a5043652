//! A web server that says whose it is, and a client that goes on asking on one connection.

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::listen;
use crate::{
    ns::NetNs,
    time::{BootTime, wait_until},
};

/// How long a client waits between looks at whether it is to end.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long an attempt to connect may take, an answer once the client is to end, and every answer if the client is
/// [impatient](Conversation::impatient).
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers HTTP requests to any address of this namespace at `port`, both families, with `name`, for ever;
/// connections stay open.
///
/// # Errors
///
/// If the port is taken.
pub fn serve_web(name: &str, port: u16) -> Result<()> {
    let listener = listen(port)?;
    loop {
        // One client's failure is its own; the next connection shows whether the server still works.
        if let Ok((stream, _)) = listener.accept() {
            let name = name.to_owned();
            thread::spawn(move || answer(stream, &name).ok());
        }
    }
}

fn answer(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..len]);
        while let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            request.drain(..end + 4);
            let length = name.len() + 1;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}\n")?;
        }
    }
}

/// One request of a [`Conversation`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// When it was sent.
    pub sent: BootTime,
    /// When it was answered, and by whom. `None`: the connection broke, or the conversation ended first.
    pub answer: Option<(BootTime, String)>,
}

/// What a [`Conversation`] saw.
#[derive(Clone, Debug, Default)]
pub struct Conversed {
    /// All requests, in order.
    pub exchanges: Vec<Exchange>,
    /// When a connection could not be made or broke, and why.
    pub errors: Vec<(BootTime, String)>,
    /// How many connections were made.
    pub connections: usize,
}

impl Conversed {
    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.exchanges.iter().filter(|exchange| exchange.answer.is_some()).count()
    }

    /// How many requests were not answered.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.exchanges.len() - self.answered()
    }

    /// The longest time between two answers in a row.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let times: Vec<BootTime> =
            self.exchanges.iter().filter_map(|exchange| Some(exchange.answer.as_ref()?.0)).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
    }

    /// How many answers each server has given.
    #[must_use]
    pub fn by_server(&self) -> BTreeMap<&str, usize> {
        let mut by_server = BTreeMap::new();
        for (_, name) in self.exchanges.iter().filter_map(|exchange| exchange.answer.as_ref()) {
            *by_server.entry(name.as_str()).or_default() += 1;
        }
        by_server
    }
}

/// A client that sends one request after the other to a server of [`serve_web`], on one connection as long as that
/// lasts, and then on the next.
#[derive(Debug)]
pub struct Conversation {
    seen: Arc<Mutex<Conversed>>,
    run: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Conversation {
    /// Begins in the namespace of a client: a request every `interval`, or later if the one before is not answered.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered.
    pub fn start(ns: &NetNs, server: SocketAddr, interval: Duration) -> Result<Self> {
        Self::begin(ns, server, interval, None)
    }

    /// The same, but gives a connection up on which an answer takes longer than two seconds.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered.
    pub fn impatient(ns: &NetNs, server: SocketAddr, interval: Duration) -> Result<Self> {
        Self::begin(ns, server, interval, Some(TIMEOUT))
    }

    fn begin(ns: &NetNs, server: SocketAddr, interval: Duration, patience: Option<Duration>) -> Result<Self> {
        let (seen, run) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(true)));
        let client = Client { server, interval, patience, seen: Arc::clone(&seen), run: Arc::clone(&run) };
        let thread = ns.run(|| Ok(thread::spawn(move || client.talk())))?;
        Ok(Self { seen, run, thread: Some(thread) })
    }

    /// Waits until `count` more requests have been answered.
    ///
    /// # Errors
    ///
    /// If they are not within `deadline`, with the errors so far.
    pub fn wait_answers(&self, count: usize, deadline: Duration) -> Result<()> {
        let goal = lock(&self.seen).answered() + count;
        wait_until(&format!("{count} answers"), deadline, || {
            (lock(&self.seen).answered() >= goal).then_some(())
        })
        .map_err(|error| anyhow!("{error}; {:?}", lock(&self.seen).errors))
    }

    /// What it has seen so far.
    #[must_use]
    pub fn so_far(&self) -> Conversed {
        lock(&self.seen).clone()
    }

    /// Ends it after the answer to the last request.
    #[must_use]
    pub fn stop(mut self) -> Conversed {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        self.run.store(false, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(seen: &Mutex<Conversed>) -> MutexGuard<'_, Conversed> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Client {
    server: SocketAddr,
    interval: Duration,
    patience: Option<Duration>,
    seen: Arc<Mutex<Conversed>>,
    run: Arc<AtomicBool>,
}

impl Client {
    fn runs(&self) -> bool {
        self.run.load(Ordering::Relaxed)
    }

    fn talk(&self) {
        while self.runs() {
            if let Err(error) = self.one_connection() {
                lock(&self.seen).errors.push((BootTime::now(), error.to_string()));
                thread::sleep(self.interval);
            }
        }
    }

    fn one_connection(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.server, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        lock(&self.seen).connections += 1;
        while self.runs() {
            let start = Instant::now();
            lock(&self.seen).exchanges.push(Exchange { sent: BootTime::now(), answer: None });
            stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n")?;
            let name = self.read(&mut stream)?;
            if let Some(last) = lock(&self.seen).exchanges.last_mut() {
                last.answer = Some((BootTime::now(), name));
            }
            thread::sleep(self.interval.saturating_sub(start.elapsed()));
        }
        Ok(())
    }

    fn read(&self, stream: &mut TcpStream) -> std::io::Result<String> {
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        let asked = Instant::now();
        let mut ended = None;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(Error::new(ErrorKind::UnexpectedEof, "the server has hung up")),
                Ok(len) => answer.extend_from_slice(&buffer[..len]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e),
            }
            let text = String::from_utf8_lossy(&answer);
            if let Some((_, body)) = text.split_once("\r\n\r\n")
                && let Some(name) = body.strip_suffix('\n')
            {
                return Ok(name.to_owned());
            }
            if self.patience.is_some_and(|patience| asked.elapsed() > patience) {
                return Err(Error::new(ErrorKind::TimedOut, "no answer"));
            }
            if !self.runs() && ended.get_or_insert_with(Instant::now).elapsed() > TIMEOUT {
                return Err(Error::new(ErrorKind::TimedOut, "no answer to the last request"));
            }
        }
    }
}
