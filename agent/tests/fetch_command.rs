//! `knode fetch` as a whole process: what it prints, its exit codes, and that
//! it converges whenever and however it is ended (B3, F12, F14). And the step,
//! which is the same code.

mod mirror;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use knode::machine::Machine;
use knode::status::{State, Status};
use knode::steps;
use knode::sys::root::Root;
use mirror::{Answer, Mirror, content, plain};
use serde_json::Value;
use tokio::process::Command;
use units::NodeConfig;
use units::node_config::Artifact;

/// An image's folder with a node.yaml of these artifacts.
fn image(artifacts: Vec<Artifact>) -> (tempfile::TempDir, NodeConfig) {
    let sample = include_str!("../../units/testdata/node-v1.yaml");
    let mut config: NodeConfig = serde_yaml::from_str(sample).unwrap();
    config.artifacts = artifacts;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("etc/knode")).unwrap();
    std::fs::create_dir_all(folder.path().join("run/knode")).unwrap();
    let text = serde_yaml::to_string(&config).unwrap();
    std::fs::write(folder.path().join("etc/knode/node.yaml"), text).unwrap();
    (folder, config)
}

fn knode(root: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_knode"));
    command.arg("fetch").arg("--root").arg(root).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn what_is_fetched_is_told_to_people_and_to_programs() {
    let mirror = Mirror::start(|asked| match asked.path.as_str() {
        "/none" => Answer::status(404),
        _ => Answer::good(&content(), "\"1\"", asked),
    })
    .await;
    let good = plain("tool", vec![mirror.url("x")]);
    let (folder, _) = image(vec![good.clone()]);
    let output = knode(folder.path(), &[]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("tool 1: 3 MB\n1 artifacts, 3 MB fetched in "),
        "{said}"
    );
    let link = folder.path().join("opt/bin/tool").read_link().unwrap();
    // As seen from within the image.
    assert!(link.starts_with("/opt/knode/store"), "{}", link.display());

    let output = knode(folder.path(), &["--verify"]).output().await.unwrap();
    assert!(text(&output.stdout).starts_with("tool 1: in the store\n1 artifacts, 0 MB"));
    assert_eq!(mirror.asked().len(), 1);

    let mut missing = plain("missing", vec![mirror.url("none")]);
    missing.digest = knode::sys::store::sha256(b"another");
    let (other, _) = image(vec![good, missing]);
    let config = other.path().join("etc/knode/node.yaml");
    let arguments = ["--config", config.to_str().unwrap(), "--json"];
    let output = knode(folder.path(), &arguments).output().await.unwrap();
    assert_eq!(output.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["artifacts"][0]["outcome"], "stored");
    assert_eq!(report["artifacts"][1]["outcome"], "failed");
    assert_eq!(report["artifacts"][1]["failure"]["code"], "E-FETCH-HTTP");
    let output = knode(folder.path(), &arguments[..2])
        .output()
        .await
        .unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("missing 1: E-FETCH-HTTP: "), "{said}");
    assert!(
        said.contains("\n1 missing; 2 artifacts, 0 MB fetched"),
        "{said}"
    );

    let nothing = tempfile::tempdir().unwrap();
    let output = knode(nothing.path(), &[]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("E-CONFIG-READ"));
}

/// B3, F12: killed at random moments, it never leaves a wrong file in a place,
/// and the next one that is let be does the work and clears up.
#[tokio::test]
async fn b3_killed_anywhere_it_converges() {
    let mirror = Mirror::start(|asked| Answer {
        pace: Some((100_000, Duration::from_millis(8))),
        ..Answer::good(&content(), "\"1\"", asked)
    })
    .await;
    let (folder, _) = image(vec![plain("one", vec![mirror.url("x")])]);
    let right = |name: &str| {
        let link = folder.path().join("opt/bin").join(name);
        let Ok(target) = link.read_link() else {
            return false;
        };
        let target = target.strip_prefix("/").unwrap().to_owned();
        assert_eq!(
            std::fs::read(folder.path().join(target)).unwrap(),
            content()
        );
        true
    };
    let mut killed = 0;
    for _ in 0..12 {
        let mut child = knode(folder.path(), &[]).spawn().unwrap();
        let pause = Duration::from_millis(fastrand::u64(1..400));
        tokio::time::sleep(pause).await;
        child.start_kill().unwrap();
        let status = child.wait().await.unwrap();
        killed += usize::from(status.signal() == Some(9));
        right("one");
    }
    assert!(killed > 0, "none was killed in the middle");
    let output = knode(folder.path(), &[]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(right("one"));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("opt/knode/store"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// F14: a full disk has its name, leaves nothing, and the old version works.
#[tokio::test]
async fn f14_a_full_disk_is_named_and_leaves_nothing() {
    let mirror = Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked)).await;
    let mut sized = plain("tool", vec![mirror.url("x")]);
    let mut unsized_one = sized.clone();
    unsized_one.size = None;
    sized.version = "sized".to_owned();
    for artifact in [sized, unsized_one] {
        let (folder, _) = image(vec![artifact]);
        let store = folder.path().join("opt/knode/store");
        std::fs::create_dir_all(&store).unwrap();
        // A file system of its own, in a mount namespace of its own.
        let script = "mount -t tmpfs -o size=1m none \"$1/opt/knode/store\" || exit 99
            \"$2\" fetch --root \"$1\"; code=$?
            ls -A \"$1/opt/knode/store\"; exit $code";
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(folder.path())
            .arg(env!("CARGO_BIN_EXE_knode"))
            .output()
            .await
            .unwrap();
        let said = text(&output.stdout);
        assert_eq!(
            output.status.code(),
            Some(4),
            "{said}{}",
            text(&output.stderr)
        );
        assert!(said.contains("E-DISK-FULL"), "{said}");
        assert!(
            !said.lines().any(|line| line.starts_with(".partial")),
            "{said}"
        );
        assert!(!folder.path().join("opt/bin/tool").exists());
    }
}

/// F14: a newer version finds the disk full while it is unpacked; the one before it goes on being
/// what the link leads to, whole.
#[tokio::test]
async fn f14_a_disk_that_fills_up_while_unpacking_leaves_the_old_version() {
    let mirror = Mirror::start(|asked| match asked.path.as_str() {
        "/old" => Answer::good(b"the old one", "\"1\"", asked),
        _ => Answer::good(&zeros(), "\"2\"", asked),
    })
    .await;
    let mut old = plain("tool", vec![mirror.url("old")]);
    old.digest = knode::sys::store::sha256(b"the old one");
    old.size = None;
    let (folder, config) = image(vec![old.clone()]);
    std::fs::create_dir_all(folder.path().join("opt/knode/store")).unwrap();
    // Small to download, and larger than the disk once it is unpacked.
    let mut new = plain("tool", vec![mirror.url("new")]);
    new.digest = knode::sys::store::sha256(&zeros());
    new.size = Some(zeros().len() as u64);
    new.packing = units::node_config::Packing::Gz;
    let newer = folder.path().join("newer.yaml");
    let changed = NodeConfig {
        artifacts: vec![new],
        ..config
    };
    std::fs::write(&newer, serde_yaml::to_string(&changed).unwrap()).unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$1/opt/knode/store\" || exit 99
        \"$2\" fetch --root \"$1\" || exit 98
        code=0; \"$2\" fetch --root \"$1\" --config \"$1/newer.yaml\" || code=$?
        ls -A \"$1/opt/knode/store\"; cat \"$1$(readlink \"$1/opt/bin/tool\")\"; exit $code";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .arg(env!("CARGO_BIN_EXE_knode"))
        .output()
        .await
        .unwrap();
    let said = text(&output.stdout);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}{told}");
    assert!(said.contains("E-DISK-FULL"), "{said}");
    assert!(said.ends_with("the old one"), "{said}");
    let part = |line: &str| line.starts_with(".partial");
    assert!(!said.lines().any(part), "{said}");
}

/// Eight megabytes of nothing, packed.
fn zeros() -> Vec<u8> {
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![0; 8 << 20]).unwrap();
    packed.finish().unwrap()
}

/// F3: a slow artifact does not delay others' retries; all that fails or waits
/// is told, and nothing is forgotten when it is well again.
#[tokio::test]
async fn f3_each_artifact_has_attempts_of_its_own() {
    let mirror = Mirror::start(|asked| match (asked.path.as_str(), asked.before) {
        ("/slow", 0) => Answer {
            pace: Some((50_000, Duration::from_millis(100))),
            ..Answer::good(&content(), "\"1\"", asked)
        },
        ("/flaky", 0) => Answer::status(500),
        ("/wrong", 0) => Answer::whole(&vec![0; 3_000_000]),
        _ => Answer::good(&content(), "\"1\"", asked),
    })
    .await;
    let names = ["slow", "flaky", "wrong"];
    let artifacts = names.map(|name| plain(name, vec![mirror.url(name)]));
    let (folder, config) = image(artifacts.to_vec());
    let root = Root::new(folder.path());
    let status = Status::new(root.clone(), ["fetch"]);
    let steps = steps::of(&config);
    let step = steps.into_iter().find(|step| step.name() == "fetch");
    let step = step.unwrap();
    let name = "node-1".parse().unwrap();
    let machine = Arc::new(Machine::new(config, name, root, status.clone()));
    let mut installed = machine.installed.subscribe();
    let seen = async {
        installed
            .wait_for(|there| there.len() == 2)
            .await
            .unwrap()
            .clone()
    };
    let watched = Arc::clone(&machine);
    let running = tokio::spawn(async move { step.converge(&watched).await });
    let first = tokio::time::timeout(Duration::from_secs(5), seen)
        .await
        .unwrap();
    assert!(!first.contains("/opt/bin/slow"), "{first:?}");
    assert!(!running.is_finished());
    let failures = status.read(|report| report.steps[0].failures);
    assert!(failures >= 2, "{failures}");
    let told = async {
        loop {
            let step = status.read(|report| report.steps[0].clone());
            if step.state == State::Running && step.detail.starts_with("2 of 3 in place; slow ") {
                return step;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let step = tokio::time::timeout(Duration::from_secs(5), told)
        .await
        .unwrap();
    assert!(step.failure.is_none());
    let done = running.await.unwrap().unwrap();
    assert_eq!(done, "3 artifacts, 3 fetched (9 MB)");
}
