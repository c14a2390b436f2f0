//! Answers every request on port 8080 with the pod's host name, the address it was
//! reached at, and the caller's: enough to see which pod a Service picked and whether
//! the way there was masqueraded. `web get URL` asks such a server.
//!
//! It takes two of agnhost's command lines, so that `kgen wait --probe` can use it:
//! `web netexec` serves, `web connect --timeout=5s HOST:PORT` tries a connection.

use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;
use std::{env, fs, process, thread};

use nix::sys::signal::{SigSet, Signal};

const PORT: u16 = 8080;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["netexec"] => serve(),
        ["connect", "--timeout=5s", target] => connect(target),
        ["get", url] => get(url),
        _ => Err(Error::other("usage: web [get http://ADDRESS[:PORT]/PATH]")),
    }
}

/// Whether somebody accepts a connection there; a name is looked up.
fn connect(target: &str) -> Result<()> {
    let addresses: Vec<_> = target.to_socket_addrs()?.collect();
    let address = addresses.first().ok_or(Error::other("DNS"))?;
    TcpStream::connect_timeout(address, Duration::from_secs(5))?;
    Ok(())
}

/// Prints what a server answers: what curl would do, had the image one.
fn get(url: &str) -> Result<()> {
    let rest = url
        .strip_prefix("http://")
        .ok_or(Error::other("not http"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = address.parse().map_err(Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    print!("{body}");
    if head.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(Error::other(
        head.lines().next().unwrap_or_default().to_owned(),
    ))
}

fn serve() -> Result<()> {
    // PID 1 of a namespace gets no signal that it has not asked for.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    thread::spawn(move || process::exit(i32::from(signals.wait().is_err())));
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))
        .or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        thread::spawn(move || {
            if let Err(error) = stream.and_then(answer) {
                eprintln!("request failed: {error}");
            }
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let body = format!(
        "hostname {}\naddress {}\nclient {}\n",
        hostname.trim_end(),
        stream.local_addr()?.ip().to_canonical(),
        stream.peer_addr()?.ip().to_canonical(),
    );
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len(),
    )
}
