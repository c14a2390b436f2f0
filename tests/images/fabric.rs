//! What every machine on Azure can ask: the wire server, whose goal state a machine has to
//! acknowledge before cloud-init goes on, and the instance metadata service.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tests::network::Network;

const WIRE_SERVER: &str = "168.63.129.16";
const METADATA: &str = "169.254.169.254";

/// The machine's identifier: its firmware's, and in its metadata.
pub const VM: &str = "6b6e6f64-0000-4000-8000-000000000001";

const GOAL_STATE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<GoalState>
  <Version>2012-11-30</Version>
  <Incarnation>1</Incarnation>
  <Machine><ExpectedState>Started</ExpectedState></Machine>
  <Container>
    <ContainerId>c1</ContainerId>
    <RoleInstanceList>
      <RoleInstance><InstanceId>i1</InstanceId><State>Started</State></RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
"#;

/// What Azure's DHCP server tells. By the routes cloud-init knows the machine's primary card;
/// without them it reports a failure, and does not wait for the metadata service.
pub fn dhcp_options(gateway: Ipv4Addr) -> [String; 2] {
    let hosts = [WIRE_SERVER, METADATA].map(|host| format!("{host}/32,{gateway}"));
    [
        format!(
            "option:classless-static-route,0.0.0.0/0,{gateway},{}",
            hosts.join(",")
        ),
        format!("245,{WIRE_SERVER}"),
    ]
}

/// Both services, until the test's process ends.
pub struct Fabric {
    reports: Receiver<String>,
}

impl Fabric {
    /// Answers on the bridge, for a machine with this card and address.
    pub fn start(network: &Network, mac: &str, address: &str) -> Result<Self> {
        let metadata = json!({
            "compute": {"name": "node-1", "vmId": VM},
            "network": {"interface": [{
                "macAddress": mac.replace(':', ""),
                "ipv4": {
                    "ipAddress": [{"privateIpAddress": address, "publicIpAddress": ""}],
                    "subnet": [{"address": "10.99.0.0", "prefix": "24"}],
                },
                "ipv6": {"ipAddress": []},
            }]},
        });
        let (sender, reports) = channel();
        for host in [WIRE_SERVER, METADATA] {
            network.add_address(&format!("{host}/32"))?;
            let listener = network.inside(|| {
                TcpListener::bind((host, 80)).with_context(|| format!("listening on {host}"))
            })?;
            let (sender, metadata) = (sender.clone(), metadata.to_string());
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A machine that goes away in between asks again.
                    answer(stream, &metadata, &sender).ok();
                }
            });
        }
        Ok(Self { reports })
    }

    /// What the machine reported of itself to the wire server.
    pub fn report(&self, limit: Duration) -> Result<String> {
        let report = self.reports.recv_timeout(limit);
        report.context("the machine reported nothing")
    }
}

/// One request, one answer.
fn answer(mut stream: TcpStream, metadata: &str, reports: &Sender<String>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let content = if request.contains("comp=goalstate") {
        GOAL_STATE
    } else if request.contains("comp=health") {
        reports.send(String::from_utf8_lossy(&body).into_owned())?;
        ""
    } else {
        metadata
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    )?;
    Ok(())
}
