use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::http::StatusCode;

use super::{ArtifactServer, Fault};
use crate::network::Network;
use crate::{report, scope};

#[test]
fn the_mirror_does_as_it_is_told() -> Result<()> {
    if let Some(reason) = report::nodes_missing() {
        report::skip("the_mirror_does_as_it_is_told", &reason);
        return Ok(());
    }
    let network = Network::new("10.99.0.1/24".parse()?)?;
    let server = ArtifactServer::start(&network, 0)?;
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
    let served = server.add_bytes("file", &bytes)?;
    assert_eq!(served.size, 200_000);
    assert_eq!(served.url, format!("http://{}/file", server.address()));
    let ask = |range: &str| network.inside(|| get(server.address(), "/file", range));

    let whole = ask("")?;
    assert_eq!((whole.status, &whole.body), (200, &bytes));
    let rest = ask("bytes=199990-")?;
    assert_eq!(
        (rest.status, rest.body.as_slice()),
        (206, &bytes[199_990..])
    );
    assert_eq!(ask("bytes=5-9")?.body, bytes[5..10]);
    assert_eq!(ask("bytes=-3")?.body, bytes[199_997..]);
    assert_eq!(ask("bytes=200000-")?.status, 416);

    server.set_fault_times("/file", Fault::Status(StatusCode::SERVICE_UNAVAILABLE), 1);
    assert_eq!(ask("")?.status, 503);
    assert_eq!(ask("")?.status, 200);
    server.set_fault("file", Fault::CutAfter(70_000));
    let cut = ask("")?;
    assert_eq!(
        (cut.body.len(), cut.stalled, cut.length),
        (70_000, false, 200_000)
    );
    server.set_fault("file", Fault::StallAfter(70_000));
    let stalled = ask("")?;
    assert_eq!((stalled.body.len(), stalled.stalled), (70_000, true));
    server.set_fault("file", Fault::Silence);
    assert!(ask("")?.stalled);
    server.set_fault("file", Fault::WrongBytes);
    let wrong = ask("")?.body;
    assert!(wrong != bytes && wrong.len() == bytes.len());
    server.set_fault("file", Fault::NoRange);
    assert_eq!(ask("bytes=5-9")?.status, 200);
    server.set_fault("file", Fault::Throttle(400_000));
    let began = Instant::now();
    assert_eq!(ask("")?.body, bytes);
    assert!(
        began.elapsed() > Duration::from_millis(400),
        "{:?}",
        began.elapsed()
    );
    server.clear_fault("file");
    assert_eq!(ask("")?.status, 200);
    assert_eq!(server.requests("file"), 14);
    assert_eq!(server.log()[1].range.as_deref(), Some("bytes=199990-"));

    let name = network.name().to_owned();
    drop(server);
    drop(network);
    assert_eq!(scope::leftovers(&name)?, Vec::<String>::new());
    Ok(())
}

struct Answer {
    status: u16,
    length: usize,
    body: Vec<u8>,
    stalled: bool,
}

/// Asks once and reads until the connection ends, or nothing has come for a second.
fn get(server: SocketAddr, path: &str, range: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let range = match range {
        "" => String::new(),
        range => format!("Range: {range}\r\n"),
    };
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{range}\r\n"
    )?;
    let mut bytes = Vec::new();
    let stalled = match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        ended => ended.map(|_| false)?,
    };
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else {
        return Ok(Answer {
            status: 0,
            length: 0,
            body: bytes,
            stalled,
        });
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    Ok(Answer {
        status: head.split(' ').nth(1).context("no status")?.parse()?,
        length: length.map_or(Ok(0), str::parse)?,
        body: bytes[end + 4..].to_vec(),
        stalled,
    })
}
