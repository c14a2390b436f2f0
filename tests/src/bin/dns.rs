//! `dns NAME TYPE [ADDRESS:PORT]` asks a name server, by default the first of
//! /etc/resolv.conf, and prints what it answers, a line each: `rcode NOERROR`, then
//! `TYPE VALUE` of every answer in order of the text. Source: RFC 1035, RFC 2782.

use std::io::{Error, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use std::{env, fs, process};

const TYPES: [(&str, u16); 5] = [
    ("A", 1),
    ("CNAME", 5),
    ("PTR", 12),
    ("AAAA", 28),
    ("SRV", 33),
];
const RCODES: [&str; 6] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (name, kind, server) = match &arguments[..] {
        [name, kind] => (name, kind, configured()?),
        [name, kind, server] => (name, kind, server.parse().map_err(Error::other)?),
        _ => return Err(Error::other("usage: dns NAME TYPE [ADDRESS:PORT]")),
    };
    let (_, code) = TYPES
        .into_iter()
        .find(|(text, _)| text == kind)
        .ok_or(Error::other("unknown type"))?;
    let answer = exchange(server, &question(name, code)?)?;
    print!("{}", shown(&answer).ok_or(Error::other("not an answer"))?);
    Ok(())
}

fn configured() -> Result<SocketAddr> {
    let text = fs::read_to_string("/etc/resolv.conf")?;
    let mut servers = text.lines().filter_map(|l| l.strip_prefix("nameserver "));
    let first = servers.next().ok_or(Error::other("no name server"))?;
    let address: IpAddr = first.trim().parse().map_err(Error::other)?;
    Ok(SocketAddr::new(address, 53))
}

fn question(name: &str, code: u16) -> Result<Vec<u8>> {
    // An identity, recursion desired, one question.
    let identity = process::id().to_be_bytes();
    let mut bytes = vec![identity[2], identity[3], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).map_err(Error::other)?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(code.to_be_bytes());
    bytes.extend([0, 1]);
    Ok(bytes)
}

fn exchange(server: SocketAddr, question: &[u8]) -> Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(question)?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer)?;
        if buffer[..2] == question[..2] {
            return Ok(buffer[..length].to_vec());
        }
    }
}

fn shown(answer: &[u8]) -> Option<String> {
    let count = |at| {
        Some(usize::from(u16::from_be_bytes([
            *answer.get(at)?,
            *answer.get(at + 1)?,
        ])))
    };
    let rcode = RCODES.get(usize::from(answer.get(3)? & 15))?;
    let mut at = 12;
    for _ in 0..count(4)? {
        at = name(answer, at)?.1 + 4;
    }
    let mut lines = Vec::new();
    for _ in 0..count(6)? {
        at = name(answer, at)?.1;
        let (code, length) = (count(at)?, count(at + 8)?);
        let data = at + 10;
        let kind = TYPES.into_iter().find(|(_, c)| usize::from(*c) == code);
        let kind = kind.map_or("OTHER", |(text, _)| text);
        let bytes = answer.get(data..data + length)?;
        let value = match kind {
            "A" => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
            "AAAA" => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string(),
            "CNAME" | "PTR" => name(answer, data)?.0,
            // Priority and weight are left out.
            "SRV" => format!("{} {}", count(data + 4)?, name(answer, data + 6)?.0),
            _ => format!("{length} bytes"),
        };
        lines.push(format!("{kind} {value}\n"));
        at = data + length;
    }
    lines.sort();
    Some(format!("rcode {rcode}\n{}", lines.concat()))
}

/// A name and the place after it; names may point to others before them.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut text, mut after) = (String::new(), None);
    // No name has more labels, and none that is a loop ends.
    for _ in 0..128 {
        let length = usize::from(*message.get(at)?);
        if length >= 0xc0 {
            after = after.or(Some(at + 2));
            at = (length & 0x3f) << 8 | usize::from(*message.get(at + 1)?);
        } else if length == 0 {
            return Some((text, after.unwrap_or(at + 1)));
        } else {
            text.push_str(&String::from_utf8_lossy(
                message.get(at + 1..at + 1 + length)?,
            ));
            text.push('.');
            at += 1 + length;
        }
    }
    None
}
