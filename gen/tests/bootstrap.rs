//! The bootstrap script behind a proxy, with each of the clients that a machine
//! may have. (P11)

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::{Folder, skip};
use sha2::{Digest as _, Sha256};
use units::{embedded, paths};

const KNODE: &[u8] = b"not quite knode\n";
/// What the script uses besides a client.
const TOOLS: [&str; 14] = [
    "sh",
    "uname",
    "grep",
    "mkdir",
    "rm",
    "sha256sum",
    "cut",
    "chmod",
    "sync",
    "mv",
    "ln",
    "sleep",
    "timeout",
    "cat",
];

/// A proxy that has everything; its URL, and what it was asked for.
fn proxy() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, lines) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            if sender.send(request).is_err() {
                return;
            }
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                KNODE.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(KNODE).unwrap();
        }
    });
    (url, lines)
}

fn found(program: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin"]
        .map(|folder| Path::new(folder).join(program))
        .into_iter()
        .find(|path| path.exists())
}

#[test]
fn every_client_goes_through_the_proxy() {
    for client in ["curl", "wget", "python3"] {
        let Some(program) = found(client) else {
            skip(
                "every_client_goes_through_the_proxy",
                &format!("no {client} here"),
            );
            continue;
        };
        let folder = Folder::empty();
        let bin = folder.path("bin");
        fs::create_dir(&bin).unwrap();
        for tool in TOOLS {
            symlink(found(tool).unwrap(), bin.join(tool)).unwrap();
        }
        symlink(program, bin.join(client)).unwrap();
        let script = embedded::COMMON
            .iter()
            .find(|file| file.path == paths::BOOTSTRAP_SCRIPT)
            .unwrap()
            .content
            .replace(
                paths::KNODE_SOURCES,
                &folder.path("knode.list").display().to_string(),
            )
            .replace(
                paths::KNODE,
                &folder.path("opt/knode").display().to_string(),
            );
        folder.write("bootstrap.sh", &script);
        let arch = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        let sum = units::types::to_hex(&Sha256::digest(KNODE));
        folder.write(
            "knode.list",
            &format!("{arch} {sum} http://mirror.invalid/knode\n"),
        );
        let (url, asked) = proxy();
        let output = Command::new("/bin/sh")
            .arg(folder.path("bootstrap.sh"))
            .env_clear()
            .env("PATH", &bin)
            .env("http_proxy", url.replace("http://", "http://u:p%40@"))
            .env("HTTP_PROXY", &url)
            .env("no_proxy", "localhost,127.0.0.0/8,::1,.svc")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{client}: {told}");
        assert_eq!(
            fs::read(folder.path("opt/knode")).unwrap(),
            KNODE,
            "{client}"
        );
        let request = asked.recv().unwrap();
        assert!(
            request.starts_with("GET http://mirror.invalid/knode HTTP/1."),
            "{client}: {request}"
        );
        let login = request
            .to_ascii_lowercase()
            .contains("proxy-authorization: basic dtpwqa==");
        assert!(login, "{client}: {request}");
    }
}
