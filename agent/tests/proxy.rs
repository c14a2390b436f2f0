//! The proxy of the environment: downloads and plain waits go through it, what
//! has an authority of its own never does. (P11)

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// An authority of nobody's.
const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR+gAwIBAgIUFAKNsc+nrhofGpXT/6cNYG29uH0wCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGbWlycm9yMCAXDTI2MTEyMDE2MDEzOFoYDzIxMjYxMDI3MTYw
MTM4WjARMQ8wDQYDVQQDDAZtaXJyb3IwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AATdgwmdalcDqH59gL/9C3vGT8e0a88p1COQ14/NcM0fgnExDxAjKl+dYhxKk8xs
rl3Crg/x5cGtayHcRGPbwswto1MwUTAdBgNVHQ4EFgQUg7wBeTfel3qpb4Lxd05d
uubaaPowHwYDVR0jBBgwFoAUg7wBeTfel3qpb4Lxd05duubaaPowDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAllQKIPMYjSJkyaX2QVnkNgeJLBvyt
St2Wo0OwWyJj8gIgLS9y3si5DPZB++U5kiqfMo3BUN3HIg/Tljw3FsgMi2c=
-----END CERTIFICATE-----
";

/// Answers every request with success; its address, and the requests' first
/// lines.
fn server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or_default();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let line = request.lines().next().unwrap_or_default().to_owned();
            if sender.send(line).is_err() {
                return;
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            drop(stream.write_all(answer));
        }
    });
    (address, lines)
}

fn wait(arguments: &[&str], proxy: SocketAddr) -> Output {
    let proxy = format!("http://{proxy}");
    Command::new(env!("CARGO_BIN_EXE_knode"))
        .arg("wait")
        .args(arguments)
        .env_clear()
        .env("http_proxy", &proxy)
        .env("HTTPS_PROXY", &proxy)
        .env("no_proxy", "127.0.0.0/8,.svc")
        .output()
        .expect("knode runs")
}

#[test]
fn what_is_outside_is_reached_through_the_proxy() {
    let (proxy, asked) = server();
    let output = wait(&["http://mirror.invalid/knode", "--timeout", "20"], proxy);
    assert!(output.status.success(), "{output:?}");
    let line = asked.recv_timeout(Duration::from_secs(5)).expect("asked");
    assert_eq!(line, "GET http://mirror.invalid/knode HTTP/1.1");
    // https is a tunnel.
    let output = wait(&["https://mirror.invalid/", "--timeout", "2"], proxy);
    assert_eq!(output.status.code(), Some(1));
    let line = asked.recv_timeout(Duration::from_secs(5)).expect("asked");
    assert_eq!(line, "CONNECT mirror.invalid:443 HTTP/1.1");
}

#[test]
fn what_is_excepted_is_reached_directly() {
    let (proxy, asked) = server();
    let (server, reached) = server();
    let url = format!("http://{server}/healthz");
    let output = wait(&[&url, "--timeout", "20"], proxy);
    assert!(output.status.success(), "{output:?}");
    let line = reached.recv_timeout(Duration::from_secs(5)).expect("asked");
    assert_eq!(line, "GET /healthz HTTP/1.1");
    assert!(asked.try_recv().is_err());
}

/// As the API server is, whose address may not be among the exceptions.
#[test]
fn what_has_an_authority_of_its_own_never_meets_the_proxy() {
    let (proxy, asked) = server();
    let (server, reached) = server();
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, AUTHORITY).expect("written");
    let proxy = format!("http://{proxy}");
    let output = Command::new(env!("CARGO_BIN_EXE_knode"))
        .args([
            "wait",
            &format!("https://{server}/"),
            "--timeout",
            "2",
            "--ca",
        ])
        .arg(&authority)
        .env_clear()
        .env("https_proxy", proxy)
        .output()
        .expect("knode runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // A TLS hello, which is not answered in kind.
    reached
        .recv_timeout(Duration::from_secs(5))
        .expect("connected");
    assert!(asked.try_recv().is_err());
}
