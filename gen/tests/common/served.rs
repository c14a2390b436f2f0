//! A running `kgen serve`, and how it is asked.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Folder;

/// What a server said to a request.
#[derive(Debug, Clone)]
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Said {
    pub fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self {
            status,
            head: head.to_ascii_lowercase(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// The program, which ends with this value.
pub struct Served {
    child: Child,
    pub http: Option<SocketAddr>,
    pub https: Option<SocketAddr>,
    /// What it said when it started.
    pub said: String,
    audit: std::path::PathBuf,
}

impl Served {
    /// Serves `out/pxe` of a folder, on ports of the system's choice unless
    /// another place to listen is among the arguments.
    pub fn start(folder: &Folder, more: &[&str]) -> Self {
        let audit = folder.path("audit");
        let listen: &[&str] = match more.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        let out = File::options()
            .create(true)
            .append(true)
            .open(&audit)
            .unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kgen"))
            .current_dir(folder.path(""))
            .arg("serve")
            .args(listen)
            .args(more)
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let (mut http, mut https) = (None, None);
        let mut said = String::new();
        loop {
            let start = said.len();
            assert!(told.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            let line = said[start..].trim_end();
            if let Some((_, at)) = line.split_once(" at http://") {
                http = Some(at.parse().unwrap());
            } else if let Some((_, at)) = line.split_once(" at https://") {
                https = Some(at.parse().unwrap());
            } else if line.contains(" each once, until ") {
                break;
            }
        }
        // What it says later is nobody's business, and must not block it.
        std::thread::spawn(move || {
            let mut rest = String::new();
            told.read_to_string(&mut rest).unwrap();
        });
        Self {
            child,
            http,
            https,
            said,
            audit,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http.unwrap()).unwrap()
    }

    /// Asks with any method and headers.
    pub fn ask(&self, method: &str, path: &str, headers: &str) -> Said {
        let mut stream = self.connect();
        request(&mut stream, method, path, headers);
        Said::read(stream)
    }

    pub fn get(&self, path: &str) -> Said {
        self.ask("GET", path, "")
    }

    /// Lines about requests, with JSON in each.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&self.audit).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    /// The line for which `which` holds, once it is there.
    pub fn told(&self, which: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        for _ in 0..1000 {
            if let Some(line) = self.audit().into_iter().find(&which) {
                return line;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no such line: {:#?}", self.audit());
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn status(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

/// A connection from an address of one's choice.
pub fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        socket.connect(to).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Sends a request, after which the connection is over.
pub fn request(stream: &mut impl Write, method: &str, path: &str, headers: &str) {
    let text =
        format!("{method} {path} HTTP/1.1\r\nHost: boot\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).unwrap();
}

/// `out/pxe` as it is rendered for so many machines, with documents of `size`
/// bytes.
pub fn out(machines: u16, size: usize) -> Folder {
    let folder = Folder::empty();
    let mut known = Vec::new();
    for i in 0..machines {
        let mac = mac(i);
        let own = folder.path("out/pxe").join(&mac);
        fs::create_dir_all(&own).unwrap();
        let document = format!("#cloud-config\n# secret of {mac}\n");
        fs::write(own.join("user-data"), document + &"#".repeat(size)).unwrap();
        fs::write(own.join("meta-data"), format!("instance-id: {mac}\n")).unwrap();
        fs::write(folder.path(&format!("out/pxe/{mac}.ipxe")), "#!ipxe\n").unwrap();
        known.push(serde_json::json!({"name": format!("node-{i}"), "mac": mac.replace('-', ":")}));
    }
    folder.write("out/pxe/boot.ipxe", "#!ipxe\n");
    let index = serde_json::json!({
        "version": 1,
        "cluster": "test",
        "server": "http://10.0.0.5:8080",
        "documents": "http://10.0.0.5:8080",
        "boot": ["vmlinuz", "initrd.img"],
        "machines": known,
    });
    folder.write("out/pxe/machines.json", &index.to_string());
    folder
}

/// The network card of a machine, as files are called.
pub fn mac(i: u16) -> String {
    format!("52-54-00-00-{:02x}-{:02x}", i >> 8, i & 255)
}

/// The path of its document.
pub fn document(i: u16) -> String {
    format!("/{}/user-data", mac(i))
}
