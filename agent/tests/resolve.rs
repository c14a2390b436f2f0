//! Names where name servers are dead, silent, failing or right (F5), in a network of its own and
//! with a resolv.conf of its own.

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::{Namespace, sh};
use knode::error::{Code, Error};
use knode::sys::{api::Api, http, resolve};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const SERVER: &str = "127.0.0.53";

/// What a name server does with a question (RFC 1035, 4.1.1).
#[derive(Clone, Copy)]
enum Answers {
    Nothing,
    /// As one that was made its own forwarder finds out.
    Failure,
    NoSuchName,
    Loopback,
}

/// Answers every question in one way; it ends with the process.
fn name_server(address: &str, answers: Answers) {
    let socket = UdpSocket::bind((address, 53)).expect("port 53 of an empty network");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length], answers) {
                socket.send_to(&answer, from).expect("sent");
            }
        }
    });
}

fn answer(question: &[u8], answers: Answers) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let name = question[HEADER..].iter().position(|byte| *byte == 0)?;
    let end = HEADER + name + 1 + 4;
    let is_v4 = question[end - 4..end] == [0, 1, 0, 1];
    let (code, count) = match answers {
        Answers::Nothing => return None,
        Answers::Failure => (2, 0),
        Answers::NoSuchName => (3, 0),
        Answers::Loopback => (0, u8::from(is_v4)),
    };
    let mut answer = question[..2].to_vec();
    // A response; recursion was desired and is available.
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&question[HEADER..end]);
    if count == 1 {
        // The name above, type A, class IN, a minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// Runs in a network of its own, with this as /etc/resolv.conf.
fn with_resolv_conf<F, R>(text: &'static str, job: impl FnOnce() -> F + Send + 'static) -> R
where
    F: Future<Output = R>,
    R: Send + 'static,
{
    let namespace = Namespace::new();
    namespace.run(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        sh(&format!(
            "mount --bind {} /etc/resolv.conf",
            file.path().display()
        ));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(job())
    })
}

/// The failure of each of the ways in which names are used, which have to be one.
async fn failure(host: &str) -> Error {
    let error = resolve::addresses(host).await.expect_err(host);
    let url = format!("https://{host}:6443");
    let client = http::client(&http::Trust::default()).expect("a client");
    let mirror = http::date(&client, &url).await.expect_err(host);
    let authority = rcgen_authority();
    let api = Api::new(&url, &authority, None).expect("a client");
    let api = api.ready().await.expect_err(host);
    for other in [mirror, api] {
        assert_eq!(other.code(), error.code(), "{}", other.story());
        assert!(other.story().contains(&error.story()), "{}", other.story());
    }
    error
}

/// Any certificate authority: no server is reached.
fn rcgen_authority() -> Vec<u8> {
    let mut of = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    of.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    of.self_signed(&key).expect("signed").pem().into_bytes()
}

fn once() {
    // Others of this process may have been quicker.
    let _known = rustls::crypto::ring::default_provider().install_default();
}

#[test]
fn f5_dead_silent_and_failing_name_servers_are_told_from_wrong_names() {
    once();
    for (answers, code, words) in [
        (None, Code::Dns, ""),
        (Some(Answers::Nothing), Code::Dns, "no answer"),
        (Some(Answers::Failure), Code::Dns, ""),
        (Some(Answers::NoSuchName), Code::NoName, "there is no"),
    ] {
        let error = with_resolv_conf("nameserver 127.0.0.53\n", move || async move {
            if let Some(answers) = answers {
                name_server(SERVER, answers);
            }
            failure("mirror.example.test").await
        });
        let story = error.story();
        eprintln!("{}: {story}", error.code());
        assert_eq!(error.code(), code, "{story}");
        for part in ["mirror.example.test", SERVER, words] {
            assert!(story.contains(part), "no {part}: {story}");
        }
    }
    // A name that is there, of a host that is not: another thing altogether.
    let error = with_resolv_conf("nameserver 127.0.0.53\n", || async {
        name_server(SERVER, Answers::Loopback);
        let client = http::client(&http::Trust::default()).expect("a client");
        http::date(&client, "http://mirror.example.test:9/").await
    });
    assert_eq!(error.expect_err("nobody").code(), Code::Connect);
}

#[test]
fn f5_one_name_server_of_two_is_enough_and_none_is_told() {
    once();
    let found = with_resolv_conf("nameserver 127.0.0.53\nnameserver 127.0.0.54\n", || async {
        name_server(SERVER, Answers::Nothing);
        name_server("127.0.0.54", Answers::Loopback);
        let work = resolve::addresses("mirror.example.test");
        tokio::time::timeout(Duration::from_secs(5), work).await
    });
    let found = found.expect("in time").expect("found");
    assert_eq!(
        found,
        ["127.0.0.1".parse::<std::net::IpAddr>().expect("v4")]
    );

    let error = with_resolv_conf("# before the network is up\n", || async {
        resolve::addresses("mirror.example.test").await
    });
    let error = error.expect_err("nobody was asked");
    assert_eq!(error.code(), Code::Dns);
    assert!(
        error.story().contains("/etc/resolv.conf"),
        "{}",
        error.story()
    );
}
