//! Waiting for real sockets (P23, P24).

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Mutex;
use std::time::Duration;

use knode::error::Code;
use knode::wait::{Expect, Target, Waiter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::process::Command;

fn closed() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn tcp(address: SocketAddr) -> Target {
    format!("tcp://{address}").parse().unwrap()
}

/// Answers every request with this status line and body.
async fn answer<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
    status: &str,
    body: &str,
) {
    let mut head = [0; 4096];
    drop(stream.read(&mut head).await);
    let length = body.len();
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    drop(stream.write_all(text.as_bytes()).await);
    drop(stream.shutdown().await);
}

/// Serves each of these answers once, and the last one from then on.
async fn server(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
    drop(rustls::crypto::ring::default_provider().install_default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut count = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (status, body) = answers[count.min(answers.len() - 1)];
            count += 1;
            answer(stream, status, body).await;
        }
    });
    address
}

#[tokio::test]
async fn p23_a_port_that_opens_ends_the_wait_and_the_reason_is_told_once() {
    let address = closed();
    let told = Mutex::new(Vec::new());
    let waiter = Waiter::new(vec![tcp(address)], None);
    let wait = waiter.wait(|story| told.lock().unwrap().push(story.to_owned()));
    let open = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        TcpListener::bind(address).await.unwrap()
    };
    let (_listener, ()) = tokio::join!(open, wait);
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("refused"), "{told:?}");
}

#[tokio::test]
async fn p23_a_deadline_ends_the_wait_with_every_reason() {
    let address = closed();
    let missing = Target::File("/nonexistent/file".into());
    let error = Waiter::new(vec![missing, tcp(address)], None)
        .wait_within(Duration::from_millis(300), |_| ())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::WaitTimeout);
    let story = error.story();
    assert!(story.contains("/nonexistent/file"), "{story}");
    assert!(story.contains(&address.to_string()), "{story}");
}

/// P24: open is not healthy: status and body count.
#[tokio::test]
async fn p24_an_answer_is_waited_for_as_it_was_described() {
    let address = server(&[
        ("503 Service Unavailable", "ok"),
        ("200 OK", "etcd failed"),
        ("401 Unauthorized", "no"),
        ("200 OK", "all is ok"),
    ])
    .await;
    let target: Target = format!("http://{address}/healthz").parse().unwrap();
    let within = |waiter: Waiter| async move {
        let told = Mutex::new(Vec::new());
        let tell = |story: &str| told.lock().unwrap().push(story.to_owned());
        let ended = waiter.wait_within(Duration::from_secs(5), tell).await;
        ended.unwrap();
        told.into_inner().unwrap()
    };
    let expect = Expect {
        status: vec![200],
        body: Some("is ok".to_owned()),
    };
    let waiter = Waiter::new(vec![target.clone()], None);
    let told = within(waiter.expecting(expect)).await;
    let told = told.join("\n");
    for reason in ["answers 503", "without \"is ok\"", "answers 401"] {
        assert!(told.contains(reason), "{reason}: {told}");
    }
    let address = server(&[("401 Unauthorized", "")]).await;
    let target: Target = format!("http://{address}/").parse().unwrap();
    let expect = Expect {
        status: vec![200, 401],
        body: None,
    };
    let waiter = Waiter::new(vec![target.clone()], None);
    assert!(within(waiter.expecting(expect)).await.is_empty());
    let error = Waiter::new(vec![target], None)
        .wait_within(Duration::from_millis(300), |_| ())
        .await;
    assert!(error.unwrap_err().story().contains("401"));
}

#[tokio::test]
async fn one_of_several_is_enough_where_that_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = tcp(listener.local_addr().unwrap());
    let targets = vec![tcp(closed()), there];
    let soon = Duration::from_millis(500);
    let any = Waiter::new(targets.clone(), None).any(true);
    any.wait_within(soon, |_| ()).await.unwrap();
    let all = Waiter::new(targets, None).wait_within(soon, |_| ()).await;
    assert_eq!(all.unwrap_err().code(), Code::WaitTimeout);
}

/// Sockets that accept, HTTP over them, and files.
#[tokio::test]
async fn sockets_and_files_are_noticed_when_they_appear() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let target = |text: String| text.parse::<Target>().unwrap();
    let targets = vec![
        target(format!("unix://{}", path("a.sock").display())),
        target(format!("http+unix://{}:/healthz", path("b.sock").display())),
        target(format!("file://{}", path("c").display())),
    ];
    // A socket file that nobody listens at is not enough.
    drop(std::os::unix::net::UnixListener::bind(path("a.sock")).unwrap());
    let waiter = Waiter::new(targets, None);
    let waiting = waiter.wait_within(Duration::from_secs(5), |_| ());
    let appear = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::remove_file(path("a.sock")).unwrap();
        let first = UnixListener::bind(path("a.sock")).unwrap();
        let second = UnixListener::bind(path("b.sock")).unwrap();
        std::fs::write(path("c"), "").unwrap();
        let (stream, _) = second.accept().await.unwrap();
        answer(stream, "200 OK", "").await;
        first
    };
    let (_first, waited) = tokio::join!(appear, waiting);
    waited.unwrap();
}

/// R6: few connections while a target refuses, whoever it is.
#[tokio::test]
async fn r6_a_server_that_is_not_ready_gets_under_five_requests_a_second() {
    let address = server(&[("503 Service Unavailable", "")]).await;
    let requests = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", front.local_addr().unwrap());
    let counted = std::sync::Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = front.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut back = tokio::net::TcpStream::connect(address).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut stream, &mut back).await);
        }
    });
    let limit = Duration::from_secs(6);
    let waiter = Waiter::new(vec![url.parse().unwrap()], None);
    waiter.wait_within(limit, |_| ()).await.unwrap_err();
    let count = requests.load(std::sync::atomic::Ordering::Relaxed);
    assert!((6..30).contains(&count), "{count} in 6 s");
}

async fn knode(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knode"));
    command.arg("wait").args(arguments).output().await.unwrap()
}

/// What a unit's ExecStartPre= sees.
#[tokio::test]
async fn exit_codes_are_as_the_help_says() {
    let address = server(&[("401 Unauthorized", "")]).await;
    let url = format!("http://{address}/");
    let output = knode(&[&url, "--status", "200,401", "--timeout", "5"]).await;
    assert_eq!(output.status.code(), Some(0));
    let file = "file:///nonexistent/file";
    let output = knode(&["--any", file, &url, "--status", "401"]).await;
    assert_eq!(output.status.code(), Some(0));
    let output = knode(&[&url, "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("E-WAIT-TIMEOUT") && said.contains("401"),
        "{said}"
    );
    for wrong in [
        ["--any", "--all"],
        ["--status", "99"],
        ["--timeout", "soon"],
    ] {
        let output = knode(&[&[url.as_str()], wrong.as_slice()].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
    let help = String::from_utf8(knode(&["--help"]).await.stdout).unwrap();
    assert!(
        help.contains("Exit codes: 0") && help.contains("http+unix"),
        "{help}"
    );
}
