//! `kgen serve`: scripts, kernels and documents for machines that boot from the
//! network, asked as machines ask. (P53)

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use common::served::{Said, Served, connect_from, document, mac, out, request};
use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

/// Nobody may ask twice, not even at once after it.
const ONCE: [&str; 3] = ["--json", "--repeat", "0s"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ONCE, more].concat()
}

#[test]
fn what_is_there_is_served_and_nothing_else() {
    let folder = out(1, 0);
    folder.write("out/pxe/vmlinuz", "0123456789");
    folder.write("out/pxe/dnsmasq.conf", "port=0\n");
    folder.write("secret", "s3cret\n");
    let served = Served::start(&folder, &with(&[]));
    let own = format!("/{}.ipxe", mac(0));
    for path in ["/boot.ipxe", &own] {
        let said = served.get(path);
        assert_eq!((said.status, said.text().as_str()), (200, "#!ipxe\n"));
    }
    let missing = [
        "/",
        "/machines.json",
        "/dnsmasq.conf",
        "/served.jsonl",
        "/../secret",
        "/../../secret",
        "/%2e%2e/secret",
        "//etc/passwd",
        "/%2e%2e%2fsecret",
        "http://boot/../../secret",
        "/52-54-00-00-00-00/../../../secret",
        "/vmlinuz/../boot.ipxe",
    ];
    for path in missing {
        let said = served.get(path);
        assert_eq!(said.status, 404, "{path}: {}", said.text());
        assert!(!said.text().contains("s3cret"), "{path}");
    }
    for path in ["/52-54-00-99-99-99.ipxe", "/52-54-00-99-99-99/user-data"] {
        let said = served.get(path);
        let told = "kgen: no machine of test has the network card 52:54:00:99:99:99\n";
        assert_eq!((said.status, said.text().as_str()), (404, told));
    }
    // A file that is to be there and is not.
    let said = served.get("/initrd.img");
    assert_eq!(said.status, 404);
    assert!(!said.text().contains("out/pxe"), "{}", said.text());
    let said = served.ask("POST", "/boot.ipxe", "");
    assert_eq!(said.status, 405);
    assert!(said.head.contains("allow: get, head"), "{}", said.head);
    let said = served.ask("HEAD", "/boot.ipxe", "");
    assert_eq!((said.status, said.body.len()), (200, 0));
    assert!(said.head.contains("content-length: 7"), "{}", said.head);
    // One line for each, in which nothing of a document is.
    let lines = served.audit();
    assert_eq!(lines.len(), missing.len() + 7, "{lines:#?}");
    assert_eq!(lines[1]["machine"], "node-0");
    assert_eq!(lines[1]["mac"], "52:54:00:00:00:00");
    assert_eq!(lines[1]["status"], 200);
}

#[test]
fn parts_of_a_kernel_are_served() {
    let folder = out(1, 0);
    let kernel: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(folder.path("out/pxe/vmlinuz"), &kernel).unwrap();
    let served = Served::start(&folder, &with(&[]));
    let whole = served.get("/vmlinuz");
    assert_eq!(whole.status, 200);
    assert!(whole.body == kernel);
    assert!(
        whole.head.contains("accept-ranges: bytes"),
        "{}",
        whole.head
    );
    let tag = whole.head.split("etag: ").nth(1).unwrap();
    let tag = tag.split("\r\n").next().unwrap().to_owned();
    let part = served.ask("GET", "/vmlinuz", "Range: bytes=1000000-1999999\r\n");
    assert_eq!(part.status, 206);
    assert!(part.body == kernel[1_000_000..2_000_000]);
    assert!(
        part.head
            .contains("content-range: bytes 1000000-1999999/3000000"),
        "{}",
        part.head
    );
    let rest = format!("Range: bytes=2999990-\r\nIf-Range: {tag}\r\n");
    let rest = served.ask("GET", "/vmlinuz", &rest);
    assert_eq!((rest.status, &rest.body[..]), (206, &kernel[2_999_990..]));
    let other = served.ask("GET", "/vmlinuz", "Range: bytes=5-\r\nIf-Range: \"x\"\r\n");
    assert_eq!((other.status, other.body.len()), (200, kernel.len()));
    let beyond = served.ask("GET", "/vmlinuz", "Range: bytes=3000000-\r\n");
    assert_eq!(beyond.status, 416);
    assert!(beyond.head.contains("content-range: bytes */3000000"));
    let head = served.ask("HEAD", "/vmlinuz", "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(
        head.head.contains("content-length: 3000000"),
        "{}",
        head.head
    );
}

#[test]
fn a_document_is_served_once_also_after_a_restart() {
    let folder = out(2, 30_000);
    let served = Served::start(&folder, &with(&[]));
    // Neither who looks nor who asks for what is beside it has had it.
    assert_eq!(served.ask("HEAD", &document(0), "").status, 200);
    assert_eq!(served.get(&format!("/{}/meta-data", mac(0))).status, 200);
    let said = served.get(&document(0));
    assert_eq!(said.status, 200);
    let file = fs::read(folder.path(&format!("out/pxe{}", document(0)))).unwrap();
    assert!(said.body == file);
    assert!(
        said.head.contains("cache-control: no-store"),
        "{}",
        said.head
    );
    served.told(|line| line["outcome"] == "sent" && line["bytes"] == file.len());
    let again = served.get(&document(0));
    assert_eq!(again.status, 410);
    assert!(
        again.text().contains("sent to 127.0.0.1 at 2"),
        "{}",
        again.text()
    );
    assert!(again.text().contains("kgen serve --again node-0"));
    // Parts of it are no way around.
    let part = served.ask("GET", &document(0), "Range: bytes=10-\r\n");
    assert_eq!(part.status, 410);
    served.told(|line| line["status"] == 410 && line["machine"] == "node-0");
    // Killed, not ended: what was given is on the disk.
    drop(served);
    let served = Served::start(&folder, &with(&[]));
    assert_eq!(served.get(&document(0)).status, 410);
    assert_eq!(served.get(&document(1)).status, 200);
    served.told(|line| line["machine"] == "node-1" && line["outcome"] == "sent");
    // The operator lets one have it again, while it runs.
    folder.run(&["serve", "--again", "node-0"]);
    assert_eq!(served.get(&document(1)).status, 410);
    assert_eq!(served.get(&document(0)).status, 200);
    folder.run(&["serve", "--again", "52:54:00:00:00:01"]);
    assert_eq!(served.get(&document(1)).status, 200);
    // Nothing of a document is in what is told and kept.
    for file in ["audit", "out/pxe/served.jsonl"] {
        assert!(!folder.read(file).contains("secret"), "{file}");
    }
    let output = folder
        .kgen()
        .args(["serve", "--again", "node-3"])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains("no machine has the name or the network card node-3"),
        "{told}"
    );
}

#[test]
fn the_time_for_documents_is_limited() {
    let folder = out(1, 0);
    let served = Served::start(&folder, &with(&["--for", "0s"]));
    assert_eq!(served.get("/boot.ipxe").status, 200);
    let said = served.get(&document(0));
    assert_eq!(said.status, 410);
    assert!(
        said.text().contains("the time for it is up"),
        "{}",
        said.text()
    );
}

/// Who was cut off asks again and has all of it.
#[test]
fn a_document_that_did_not_arrive_is_served_again() {
    let size = 40_000_000;
    let folder = out(1, size);
    let served = Served::start(&folder, &with(&[]));
    let mut stream = served.connect();
    request(&mut stream, "GET", &document(0), "");
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    served.told(|line| line["outcome"] == "broken off" && line["bytes"] == 0);
    // Somebody else does not get it meanwhile.
    let peer = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
    let other = connect_from(peer, served.http.unwrap());
    let said = asked(other, &document(0));
    assert_eq!(said.status, 410);
    assert!(
        said.text().contains("begun by 127.0.0.1 at 2"),
        "{}",
        said.text()
    );
    let said = served.get(&document(0));
    assert_eq!(said.status, 200);
    assert!(said.body.len() > size);
    served.told(|line| line["outcome"] == "sent");
    assert_eq!(served.get(&document(0)).status, 410);
}

fn asked(mut stream: TcpStream, path: &str) -> Said {
    request(&mut stream, "GET", path, "");
    Said::read(stream)
}

#[test]
fn a_thousand_machines_at_once_have_each_its_own() {
    let machines = 1000;
    let folder = out(machines, 30_000);
    let served = Served::start(&folder, &with(&[]));
    for status in [200, 410] {
        let mut streams: Vec<TcpStream> = (0..machines).map(|_| served.connect()).collect();
        for (i, stream) in (0..).zip(&mut streams) {
            request(stream, "GET", &document(i), "");
        }
        for (i, stream) in (0..).zip(streams) {
            let said = Said::read(stream);
            assert_eq!(said.status, status, "{i}: {}", said.text());
            if status == 200 {
                let own = format!("#cloud-config\n# secret of {}\n", mac(i));
                assert!(said.text().starts_with(&own), "{i}");
            }
        }
        // That each was taken is known when its connection is over.
        for i in 0..1000 {
            let told = || {
                let of_status = |line: &&serde_json::Value| line["status"] == status;
                served.audit().iter().filter(of_status).count()
            };
            if told() == usize::from(machines) {
                break;
            }
            assert!(i < 999, "{} lines", told());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn over_tls_documents_are_secret() {
    let folder = out(1, 0);
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "boot");
    let leaf = params.signed_by(&key, &issuer).unwrap();
    folder.write("ca.crt", &root.pem());
    folder.write("tls.crt", &leaf.pem());
    folder.write("tls.key", &key.serialize_pem());
    let tls = [
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-cert",
        "tls.crt",
        "--tls-key",
        "tls.key",
    ];
    let served = Served::start(&folder, &with(&tls));
    let said = served.get(&document(0));
    assert_eq!(said.status, 403);
    assert!(said.text().contains("over TLS only"), "{}", said.text());
    assert_eq!(served.get("/boot.ipxe").status, 200);
    let curl = |more: &[&str]| {
        let url = format!("https://{}{}", served.https.unwrap(), document(0));
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--write-out",
            "%{http_code}",
        ]);
        let output = curl.args(more).arg(url).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Who does not know the authority learns nothing, and takes nothing away.
    assert_eq!(curl(&[]), "000");
    let ca = folder.path("ca.crt");
    let told = curl(&["--cacert", ca.to_str().unwrap()]);
    assert!(
        told.starts_with("#cloud-config\n") && told.ends_with("200"),
        "{told}"
    );
    served.told(|line| line["outcome"] == "sent" && line["machine"] == "node-0");
    let told = curl(&["--cacert", ca.to_str().unwrap()]);
    assert!(told.ends_with("410"), "{told}");
    // Files that do not fit together are told, and nothing of a key is.
    folder.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    for (certificate, key) in [
        ("tls.crt", "other.key"),
        ("tls.key", "tls.key"),
        ("tls.crt", "no.key"),
    ] {
        let output = folder
            .kgen()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--tls-listen",
                "127.0.0.1:0",
            ])
            .args(["--tls-cert", certificate, "--tls-key", key])
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(certificate) || told.contains(key), "{told}");
        assert!(!told.contains("PRIVATE"), "{told}");
    }
}

/// What is on its way when it is told to end goes on to its end.
#[test]
fn it_ends_when_it_is_told_to() {
    let folder = out(1, 0);
    let size = 30_000_000;
    fs::write(folder.path("out/pxe/vmlinuz"), vec![7; size]).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let served = Served::start(&folder, &with(&[]));
        let idle = served.connect();
        let mut stream = served.connect();
        request(&mut stream, "GET", "/vmlinuz", "");
        let mut first = vec![0; 1000];
        stream.read_exact(&mut first).unwrap();
        served.signal(signal);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(first.len() + rest.len() > size, "{signal}: {}", rest.len());
        drop(idle);
        assert_eq!(served.status(), Some(0), "{signal}");
    }
}

#[test]
fn what_cannot_be_served_is_told() {
    let told = |folder: &common::Folder, args: &[&str], code| {
        let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
        let output = folder.kgen().args(args).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{told}");
        told.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let folder = out(1, 0);
    let none = told(&folder, &["--from", "nowhere"], 2);
    assert!(
        none.contains("nowhere/machines.json: there is no such file"),
        "{none}"
    );
    let port = told(&folder, &["--state", "no/such/folder"], 1);
    assert!(port.contains("opening no/such/folder"), "{port}");
    for (index, part) in [
        ("nonsense", "expected"),
        (
            r#"{"version":2,"cluster":"a","server":"http://a","documents":"http://a","boot":[],"machines":[]}"#,
            "is of the form 2",
        ),
        (
            r#"{"version":1,"cluster":"a","server":"http://a","documents":"http://a","boot":["../../x"],"machines":[]}"#,
            "is not the name of a file",
        ),
        (
            r#"{"version":1,"cluster":"a","server":"http://a","documents":"http://a","boot":[],"machines":[{"name":"a","mac":"x"}]}"#,
            "is not the address of a network card",
        ),
    ] {
        folder.write("out/pxe/machines.json", index);
        let told = told(&folder, &[], 2);
        assert!(
            told.contains(part) && told.contains("kgen render writes it anew"),
            "{told}"
        );
    }
    let folder = out(1, 0);
    let taken = Served::start(&folder, &[]);
    let address = taken.http.unwrap().to_string();
    let output = folder
        .kgen()
        .args(["serve", "--listen", &address])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&format!("listening at {address}")), "{told}");
    // Lines are for people, unless JSON is asked for.
    let mut stream = taken.connect();
    stream
        .write_all(b"GET /boot.ipxe HTTP/1.0\r\n\r\n")
        .unwrap();
    assert_eq!(Said::read(stream).status, 200);
    let line = folder.read("audit");
    assert!(line.contains(" - GET /boot.ipxe 200 7 sent\n"), "{line}");
}
