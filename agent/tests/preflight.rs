//! The step `preflight` on file systems that are really mounted noexec, read-only, or full (F14,
//! F15), in a mount namespace of its own.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{apart, sh};
use knode::graph::Step;
use knode::machine::Machine;
use knode::status::Status;
use knode::steps;
use knode::sys::root::Root;
use units::NodeConfig;

/// Runs the step once below `folder`; what it says, or its code and story.
fn preflight(folder: &Path) -> Result<String, (String, String)> {
    let sample = include_str!("../../units/testdata/node-v1.yaml");
    let config: NodeConfig = serde_yaml::from_str(sample).expect("the sample");
    let root = Root::new(folder);
    let first = &steps::of(&config)[0];
    assert_eq!(
        first.name(),
        "preflight",
        "its failure is the first that is told"
    );
    let step: Arc<dyn Step<Machine>> = Arc::clone(first);
    let status = Status::new(root.clone(), ["preflight"]);
    let machine = Machine::new(config, "node-1".parse().expect("a name"), root, status);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(step.converge(&machine))
        .map_err(|error| (error.code().to_string(), error.story()))
}

#[test]
fn places_that_cannot_be_used_are_named_and_a_mended_one_is_enough() {
    apart(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display().to_string();
        sh(&format!("mkdir -p {at}/opt {at}/var/lib {at}/run/knode"));
        let told = preflight(folder.path()).expect("nothing is certain to break");
        assert!(told.contains("checks"), "{told}");

        for (mount, code, words) in [
            ("/opt -o noexec", "E-MOUNT", "/opt is mounted noexec"),
            ("/opt -o ro", "E-MOUNT", "/opt is read-only"),
            ("/var/lib -o ro", "E-MOUNT", "/var/lib is read-only"),
            // The sample fetches 60 MB as they are.
            ("/opt -o size=50m", "E-DISK-FULL", "/opt has 50 MiB free"),
            ("/opt -o nr_inodes=100", "E-DISK-FULL", "/opt has"),
            (
                "/var/lib -o size=1m",
                "E-DISK-FULL",
                "/var/lib has 1 MiB free",
            ),
        ] {
            let (place, options) = mount.split_once(' ').expect("both");
            sh(&format!("mount -t tmpfs {options} none {at}{place}"));
            let (found, story) = preflight(folder.path()).expect_err(mount);
            assert_eq!(found, code, "{mount}: {story}");
            assert!(story.contains(words), "{mount}: {story}");
            sh(&format!("umount {at}{place}"));
        }
        preflight(folder.path()).expect("mended");
    });
}

/// A mirror that answers everything with "not found", and believes it is `date`.
fn mirror(date: &str) -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/kubelet", listener.local_addr().expect("bound"));
    let answer = format!("HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            // A request as small as this comes in one piece.
            let _bytes = stream.read(&mut [0; 4096]).expect("a request");
            stream.write_all(answer.as_bytes()).expect("answered");
        }
    });
    url
}

#[test]
fn a_clock_that_differs_from_a_mirrors_is_told_and_so_is_who_does_not_answer() {
    use time::format_description::well_known::Rfc2822;
    let sample = include_str!("../../units/testdata/node-v1.yaml");
    let mut config: NodeConfig = serde_yaml::from_str(sample).expect("the sample");
    let at = |hours: i64| {
        let date = time::OffsetDateTime::now_utc() + time::Duration::hours(hours);
        date.format(&Rfc2822)
            .expect("a date")
            .replace("+0000", "GMT")
    };
    let (right, wrong) = (mirror(&at(0)), mirror(&at(3)));
    config.artifacts[0].urls = vec![right.clone(), wrong.clone()];
    config.artifacts.truncate(1);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    config.cluster.endpoint = format!("https://{}", nobody.local_addr().expect("bound"));
    drop(nobody);

    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("the first");
    let root = Root::new(folder.path());
    let outside = runtime.block_on(knode::check::look_outside(&root, &config));
    let facts = knode::check::Facts {
        outside,
        ..knode::check::Facts::default()
    };
    let findings = knode::check::judge(&facts, Some(&config));
    let told: Vec<_> = findings
        .iter()
        .filter(|f| f.subject.starts_with("mirror") || f.subject.starts_with("endpoint"))
        .map(|f| (f.code.map(|code| code.as_str()), f.found.as_str()))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0].0, Some("E-CONNECT"), "{told:?}");
    assert!(told.contains(&(None, "answers, same time")), "{told:?}");
    let behind = told.iter().find(|(code, _)| *code == Some("E-CLOCK"));
    let (_, found) = behind.expect("told");
    assert!(
        found.contains("our clock is 2 h 59 min behind") || found.contains("3 h 0 min behind"),
        "{found}"
    );
}
