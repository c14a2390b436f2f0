//! A name server outside the cluster, inside the machines' network.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tests::network::Network;

const NXDOMAIN: u8 = 3;
const REFUSED: u8 = 5;

/// Answers `known.…` with one address, refuses `refused.…`, and knows no other
/// name. Source: RFC 1035.
pub struct Server {
    asked: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a port of the bridge's address.
    pub fn start(network: &Network, port: u16, address: Ipv4Addr) -> Result<Self> {
        let bind = SocketAddr::from((network.gateway(), port));
        let socket = network.inside(|| UdpSocket::bind(bind).context("listening for queries"))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (names, ended) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut buffer = [0; 1024];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some((name, answer)) = answer(&buffer[..length], address) {
                    names
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(name);
                    if let Err(error) = socket.send_to(&answer, client) {
                        eprintln!("answering {client}: {error}");
                    }
                }
            }
        });
        Ok(Self {
            asked,
            stop,
            thread: Some(thread),
        })
    }

    /// Every name that was asked for.
    pub fn asked(&self) -> BTreeSet<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the name server's thread panicked");
        }
    }
}

/// The name that is asked for, and the answer.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<(String, Vec<u8>)> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(&String::from_utf8_lossy(query.get(at..at + length)?));
        name.push('.');
        at += length;
    }
    name.make_ascii_lowercase();
    let kind = query.get(at..at + 2)?;
    let question = query.get(12..at + 4)?;
    let known = name.starts_with("known.");
    let rcode = match () {
        () if known => 0,
        () if name.starts_with("refused.") => REFUSED,
        () => NXDOMAIN,
    };
    let answers = u8::from(known && kind == [0, 1]);
    let mut message = query.get(..2)?.to_vec();
    // A response to a query that desired recursion, which was available; the
    // question; no records but the answers.
    message.extend([0x81, 0x80 | rcode, 0, 1, 0, answers, 0, 0, 0, 0]);
    message.extend(question);
    if answers > 0 {
        // The question's name, A, IN, 30 s, four bytes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        message.extend(address.octets());
    }
    Some((name, message))
}
