//! R4 and R5: downloads against what shell scripts do, and against the slowest
//! stage alone. `cargo bench -p knode --bench fetch`

mod common;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Contestant, RUNS, compare, empty, folder, keep, shell, watched};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Bytes in R4's archive, unpacked.
const UNPACKED: u64 = 317 << 20;
/// Bytes of each of R5's four files.
const EACH: u64 = 330_000_000 / 4;

fn main() {
    let place = folder("bench-fetch");
    let served = place.join("served");
    empty(&served);
    println!("Making the files …");
    let code = Code::new(&served.join("code"));
    let results = [
        archive(&place, &served, &code),
        plain(&place, &served, &code),
    ];
    keep("fetch", &results);
    fs::remove_dir_all(&place).expect("removed");
}

/// R4: a tar.gz of programs, verified, unpacked, and on the disk.
fn archive(place: &Path, served: &Path, code: &Code) -> serde_json::Value {
    code.part(0, UNPACKED, &served.join("program"));
    let folder = served.display();
    shell(&format!(
        "tar -C {folder} -cf - program | gzip -6 > {folder}/r4.tgz; rm {folder}/program"
    ));
    let packed = served.join("r4.tgz");
    let (hash, size) = (digest(&packed), packed.metadata().expect("there").len());
    let url = format!("http://{}/r4.tgz", serve(served.to_owned()));
    let files = json!([{ "member": "program", "path": "/opt/bin/program" }]);
    let artifact = json!({
        "name": "r4", "version": "1", "urls": [url], "digest": format!("sha256:{hash}"),
        "size": size, "packing": "tar.gz", "files": files,
    });
    let ours = image(place, "r4", &[artifact]);
    let theirs = place.join("theirs");
    let (at, packed) = (theirs.display(), packed.display());
    let check = format!("echo '{hash}  f' | sha256sum -c --quiet");
    let by_shell = |name, script: String| {
        let theirs = theirs.clone();
        Contestant {
            name,
            run: Box::new(move || {
                shell(&script);
                None
            }),
            clear: Box::new(move || empty(&theirs)),
        }
    };
    let title = format!(
        "R4: {} MB of tar.gz, {} MB inside",
        size / 1_000_000,
        UNPACKED / 1_000_000
    );
    let contestants = vec![
        knode(&ours),
        by_shell(
            "curl; sha256sum -c; tar xzf; sync",
            format!("cd {at}; curl -sSf -o f {url}; {check}; tar xzf f; sync"),
        ),
        by_shell(
            "curl \\| tar xz, nothing verified, nothing synced",
            format!("cd {at}; curl -sSf {url} | tar xz"),
        ),
        by_shell("gzip -dc alone", format!("gzip -dc {packed} > /dev/null")),
        by_shell(
            "dd alone: the bytes inside to the disk, synced",
            format!(
                "dd if={} of={at}/f bs=1M count=317 conv=fsync status=none",
                code.path.display()
            ),
        ),
    ];
    compare(&title, contestants, RUNS)
}

/// R5: four plain programs from two mirrors.
fn plain(place: &Path, served: &Path, code: &Code) -> serde_json::Value {
    let mirrors = [serve(served.to_owned()), serve(served.to_owned())];
    let mut artifacts = Vec::new();
    let (mut fetch, mut check, mut copy) = (String::new(), String::new(), String::new());
    let theirs = place.join("theirs");
    let at = theirs.display();
    for index in 0..4 {
        let (name, path) = (format!("r5-{index}"), served.join(format!("r5-{index}")));
        code.part(index * EACH / 2, EACH, &path);
        let (hash, size) = (digest(&path), path.metadata().expect("there").len());
        // Half of the machines' lists begin with the one, half with the other.
        let first = usize::try_from(index).expect("small") % 2;
        let urls = [first, 1 - first].map(|mirror| format!("http://{}/{name}", mirrors[mirror]));
        fetch += &format!("curl -sSf -o {name} {};", urls[0]);
        check += &format!("echo '{hash}  {name}' | sha256sum -c --quiet;");
        copy += &format!("cp {} {at}/;", path.display());
        artifacts.push(json!({
            "name": name, "version": "1", "urls": urls, "digest": format!("sha256:{hash}"),
            "size": size, "packing": "plain", "files": [{ "path": format!("/opt/bin/{name}") }],
        }));
    }
    let ours = image(place, "r5", &artifacts);
    let by_shell = |name, script: String| {
        let theirs = theirs.clone();
        Contestant {
            name,
            run: Box::new(move || {
                shell(&script);
                None
            }),
            clear: Box::new(move || empty(&theirs)),
        }
    };
    let contestants = vec![
        knode(&ours),
        by_shell(
            "curl one after the other; sha256sum -c; sync",
            format!("cd {at}; {fetch} {check} sync"),
        ),
        by_shell(
            "curl one after the other; sha256sum -c; not synced",
            format!("cd {at}; {fetch} {check}"),
        ),
        by_shell("cp; sync", format!("{copy} sync")),
        by_shell("cp, not synced", copy.clone()),
    ];
    compare("R5: four programs, 330 MB, two mirrors", contestants, RUNS)
}

fn knode(image: &Path) -> Contestant<'_> {
    Contestant {
        name: "knode fetch (verified and synced)",
        run: Box::new(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_knode"));
            watched(command.arg("fetch").arg("--root").arg(image))
        }),
        clear: Box::new(move || {
            for below in ["opt", "var"] {
                empty(&image.join(below));
            }
        }),
    }
}

/// A folder with a node.yaml of these artifacts.
fn image(place: &Path, name: &str, artifacts: &[serde_json::Value]) -> PathBuf {
    let sample = include_str!("../../units/testdata/node-v1.yaml");
    let mut config: serde_json::Value = serde_yaml::from_str(sample).expect("the sample");
    config["artifacts"] = json!(artifacts);
    let image = place.join(name);
    fs::create_dir_all(image.join("etc/knode")).expect("made");
    let text = serde_json::to_string(&config).expect("JSON");
    fs::write(image.join("etc/knode/node.yaml"), text).expect("written");
    image
}

/// Machine code, as programs have it: the compiler's own libraries.
struct Code {
    path: PathBuf,
}

impl Code {
    fn new(path: &Path) -> Self {
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
        let sysroot = String::from_utf8(sysroot.expect("rustc").stdout).expect("UTF-8");
        let script = format!(
            "find {}/lib -size +200k -name '*.so' -o -size +200k -name '*.rlib' \
             | sort | xargs cat | head -c {} > {}",
            sysroot.trim(),
            UNPACKED + EACH,
            path.display()
        );
        shell(&script);
        Self {
            path: path.to_owned(),
        }
    }

    /// Some of it as a file; what it is short of comes from its beginning.
    fn part(&self, from: u64, length: u64, to: &Path) {
        let source = || File::open(&self.path).expect("opened");
        let mut first = source();
        io::Seek::seek(&mut first, io::SeekFrom::Start(from)).expect("sought");
        let mut to = File::create(to).expect("made");
        let mut left = length - io::copy(&mut first.take(length), &mut to).expect("copied");
        while left > 0 {
            left -= io::copy(&mut source().take(left), &mut to).expect("copied");
        }
    }
}

fn digest(path: &Path) -> String {
    let mut hash = Sha256::new();
    let mut file = File::open(path).expect("opened");
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("read") {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A server of a folder's files, as plain as can be: a thread a connection.
fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (folder, mut stream) = (folder.clone(), stream.expect("accepted"));
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
                let request = lines.next().expect("a line").expect("read");
                let end = lines.position(|line| line.is_ok_and(|line| line.is_empty()));
                end.expect("the end of the request");
                let name = request.split(' ').nth(1).expect("a path");
                let file = File::open(folder.join(name.trim_start_matches('/')));
                let mut file = file.expect("opened");
                let length = file.metadata().expect("there").len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).expect("sent");
                io::copy(&mut file, &mut stream).expect("sent");
            });
        }
    });
    address
}
