//! `sys::bus` against a real systemd. Runs inside a node (a container with systemd as PID 1), as
//! root:
//!
//! ```text
//! cargo test -p knode --test sys_bus --no-run     # then copy the binary into the node, and there:
//! ./sys_bus-… --include-ignored --test-threads=1
//! ```

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use knode::sys::bus::{Activity, Bus, Error, JobResult, UnitState, Verb};
use nix::mount::{MsFlags, mount};
use tokio::time::timeout;

const UNITS: &str = "/run/systemd/system";

/// Connects, after making sure that there is a systemd: a test without one must not pass.
async fn bus() -> Bus {
    assert!(
        fs::exists(UNITS).expect("readable"),
        "no systemd here: run this inside a node"
    );
    timeout(Duration::from_secs(20), async {
        loop {
            match Bus::connect().await {
                Ok(bus) => return bus,
                // Early in the boot.
                Err(Error::NotConnected(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(e) => panic!("{e:?}"),
            }
        }
    })
    .await
    .expect("the system bus comes up")
}

/// Unit files that go with the test.
struct Units(BTreeSet<String>);

impl Units {
    async fn new(bus: &Bus, units: &[(&str, &str)]) -> Self {
        let names = units.iter().map(|(name, _)| (*name).to_owned()).collect();
        for (name, text) in units {
            fs::write(format!("{UNITS}/{name}"), text).expect("written");
        }
        bus.daemon_reload().await.expect("reloaded");
        Units(names)
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        for name in &self.0 {
            let _gone = fs::remove_file(format!("{UNITS}/{name}"));
            let _stopped = std::process::Command::new("systemctl")
                .args(["kill", "--signal=KILL", name])
                .output();
            let _stopped = std::process::Command::new("systemctl")
                .args(["stop", name])
                .output();
            let _reset = std::process::Command::new("systemctl")
                .args(["reset-failed", name])
                .output();
        }
    }
}

fn systemctl(args: &[&str]) -> String {
    let output = std::process::Command::new("systemctl")
        .args(args)
        .output()
        .expect("systemctl runs");
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn service_is_started_restarted_and_stopped_and_its_state_is_read() {
    let bus = bus().await;
    let name = "knode-test-long.service";
    let before = bus.unit(name).await.expect("an answer");
    assert_eq!(
        (before.load.as_str(), before.active.as_str()),
        ("not-found", "inactive")
    );
    assert!(!before.is_loaded() && before.invocation_id.is_empty());
    let activity = bus.activity(name).await.expect("an answer");
    assert_eq!(activity, Activity::from(&before));

    // The reload is over when the call returns: the new file is known.
    let _units = Units::new(
        &bus,
        &[(name, "[Service]\nType=exec\nExecStart=/bin/sleep 1000\n")],
    )
    .await;
    assert_eq!(bus.unit(name).await.expect("an answer").unit_file, "static");
    bus.start(name).await.expect("started");
    let first = bus.unit(name).await.expect("an answer");
    assert!(first.is_active() && first.is_loaded());
    let activity = bus.activity(name).await.expect("an answer");
    assert!(activity.is_active());
    assert_eq!(activity, Activity::from(&first));
    let service = first.service.clone().expect("it is a service");
    assert_eq!(
        (first.sub.as_str(), service.result.as_str()),
        ("running", "success")
    );
    assert_eq!(
        service.main_pid.to_string(),
        systemctl(&["show", "--value", "-p", "MainPID", name])
    );
    assert_eq!(
        first.invocation_id,
        systemctl(&["show", "--value", "-p", "InvocationID", name])
    );
    bus.start(name).await.expect("started already");
    assert_eq!(bus.unit(name).await.expect("an answer"), first);

    bus.restart(name).await.expect("restarted");
    let second = bus.unit(name).await.expect("an answer");
    assert_ne!(second.invocation_id, first.invocation_id);
    bus.stop(name).await.expect("stopped");
    bus.stop(name).await.expect("stopped already");
    let last = bus.unit(name).await.expect("an answer");
    assert_eq!(
        (
            last.active.as_str(),
            last.service.expect("a service").main_pid
        ),
        ("inactive", 0)
    );
    assert!(
        bus.unit("basic.target")
            .await
            .expect("an answer")
            .service
            .is_none()
    );
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn job_that_fails_says_how() {
    let bus = bus().await;
    let _units = Units::new(
        &bus,
        &[
            ("knode-test-fails.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 7'\n"),
            (
                "knode-test-needs.service",
                "[Unit]\nRequires=knode-test-fails.service\nAfter=knode-test-fails.service\n\
                 [Service]\nType=exec\nExecStart=/bin/sleep 1000\n",
            ),
            (
                "knode-test-slow.service",
                "[Unit]\nJobRunningTimeoutSec=1\n[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n",
            ),
            ("knode-test-bad.service", "[Service]\nType=nonsense\n"),
        ],
    )
    .await;
    std::os::unix::fs::symlink("/dev/null", format!("{UNITS}/knode-test-masked.service"))
        .expect("linked");
    bus.daemon_reload().await.expect("reloaded");

    let failed = |error: Error| match error {
        Error::JobFailed { result, .. } => result,
        other => panic!("{other:?}"),
    };
    let error = bus
        .start("knode-test-fails.service")
        .await
        .expect_err("it exits with 7");
    assert_eq!(failed(error), JobResult::Failed);
    let state = bus
        .unit("knode-test-fails.service")
        .await
        .expect("an answer");
    let service = state.service.clone().expect("a service");
    assert_eq!(
        (state.active.as_str(), service.result.as_str()),
        ("failed", "exit-code")
    );
    assert_eq!((service.exec_main_code, service.exec_main_status), (1, 7));
    bus.reset_failed("knode-test-fails.service")
        .await
        .expect("reset");
    assert_eq!(
        bus.unit("knode-test-fails.service")
            .await
            .expect("an answer")
            .active,
        "inactive"
    );

    let error = bus
        .start("knode-test-needs.service")
        .await
        .expect_err("what it needs fails");
    assert_eq!(failed(error), JobResult::Dependency);
    let error = bus
        .start("knode-test-slow.service")
        .await
        .expect_err("it takes too long");
    assert_eq!(failed(error), JobResult::Timeout);

    let error = bus
        .start("knode-test-nowhere.service")
        .await
        .expect_err("no such unit");
    assert!(
        matches!(&error, Error::NoSuchUnit(unit) if unit == "knode-test-nowhere.service"),
        "{error:?}"
    );
    let error = bus
        .start("knode-test-masked.service")
        .await
        .expect_err("masked");
    assert!(
        matches!(&error, Error::Refused { name, .. } if name == "org.freedesktop.systemd1.UnitMasked"),
        "{error:?}"
    );
    fs::remove_file(format!("{UNITS}/knode-test-masked.service")).expect("removed");
    let error = bus
        .start("knode-test-bad.service")
        .await
        .expect_err("a bad file");
    assert!(
        matches!(&error, Error::Refused { name, .. } if name.contains("systemd1")),
        "{error:?}"
    );
    let error = bus.start("not a unit's name").await.expect_err("no name");
    assert!(matches!(&error, Error::Refused { .. }), "{error:?}");
    let error = bus.activity("not a unit's name").await;
    assert!(matches!(error, Err(Error::NoSuchUnit(_))), "{error:?}");
    assert!(
        bus.unit("knode-test-bad.service")
            .await
            .expect("an answer")
            .load
            == "bad-setting"
    );
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn enqueue_does_not_wait_and_a_stop_cancels_the_start() {
    let bus = bus().await;
    let name = "knode-test-oneshot.service";
    let _units = Units::new(
        &bus,
        &[(name, "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n")],
    )
    .await;
    let begin = Instant::now();
    bus.enqueue(Verb::Start, name).await.expect("queued");
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        bus.unit(name).await.expect("an answer").active,
        "activating"
    );
    // Waiting may be given up: the job stays.
    timeout(Duration::from_millis(300), bus.start(name))
        .await
        .expect_err("it takes long");
    assert_eq!(
        bus.unit(name).await.expect("an answer").active,
        "activating"
    );

    let other = bus.clone();
    let start = tokio::spawn(async move { other.start(name).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    bus.stop(name).await.expect("stopped");
    let error = start
        .await
        .expect("it ran")
        .expect_err("the stop was in its way");
    assert!(
        matches!(
            &error,
            Error::JobFailed {
                result: JobResult::Canceled,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(matches!(
        bus.enqueue(Verb::Start, "knode-test-no.service").await,
        Err(Error::NoSuchUnit(_))
    ));
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn no_result_is_lost_among_hundreds_of_jobs() {
    let bus = bus().await;
    let _units = Units::new(
        &bus,
        &[(
            "knode-test-many@.service",
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit $$(( %i %% 2 ))'\n",
        )],
    )
    .await;
    // More jobs than zbus's queue of 64 messages holds, while others' jobs end all the time. (The
    // bus itself allows a connection 128 calls at a time.)
    let flood: Vec<_> = (1000..1300)
        .map(|i| format!("knode-test-many@{i}.service"))
        .collect();
    let mut flood = std::process::Command::new("systemctl")
        .args(["start", "--no-block"])
        .args(&flood)
        .spawn()
        .expect("systemctl");
    let starts: Vec<_> = (0..100)
        .map(|i| {
            let bus = bus.clone();
            tokio::spawn(
                async move { (i, bus.start(&format!("knode-test-many@{i}.service")).await) },
            )
        })
        .collect();
    for start in starts {
        let (i, result) = timeout(Duration::from_secs(60), start)
            .await
            .expect("not stuck")
            .expect("it ran");
        match (i % 2, result) {
            (0, Ok(()))
            | (
                1,
                Err(Error::JobFailed {
                    result: JobResult::Failed,
                    ..
                }),
            ) => {}
            (_, other) => panic!("{i}: {other:?}"),
        }
    }
    // The same one by one, where each is over before one could look.
    for i in (0..60).step_by(2) {
        bus.start(&format!("knode-test-many@{i}.service"))
            .await
            .expect("started");
    }
    flood.wait().expect("the flood was let in");
    systemctl(&["reset-failed", "knode-test-many@*"]);
}

async fn until(
    watch: &mut knode::sys::bus::UnitWatch,
    wanted: impl Fn(&UnitState) -> bool,
) -> UnitState {
    timeout(Duration::from_secs(20), async {
        loop {
            let state = watch.next().await.expect("told");
            if wanted(&state) {
                return state;
            }
        }
    })
    .await
    .expect("in time")
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn flood_of_others_jobs_does_not_hold_up_the_reply() {
    let bus = bus().await;
    // Targets start at once: their jobs end in one burst, between our question and its answer.
    let names: Vec<_> = (0..400)
        .map(|i| format!("knode-test-flood-{i}.target"))
        .collect();
    let mut files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "[Unit]\n"))
        .collect();
    let all = format!("[Unit]\nWants={}\n", names.join(" "));
    let ours = (
        "knode-test-calm.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    );
    files.extend([("knode-test-flood.target", all.as_str()), ours]);
    for (name, text) in &files {
        fs::write(format!("{UNITS}/{name}"), text).expect("written");
    }
    bus.daemon_reload().await.expect("reloaded");
    for _ in 0..10 {
        bus.enqueue(Verb::Start, "knode-test-flood.target")
            .await
            .expect("queued");
        let start = timeout(
            Duration::from_secs(30),
            bus.start("knode-test-calm.service"),
        )
        .await;
        start.expect("not stuck").expect("started");
        let mut stop = std::process::Command::new("systemctl")
            .arg("stop")
            .args(&names)
            .spawn()
            .expect("systemctl");
        let start = timeout(
            Duration::from_secs(30),
            bus.start("knode-test-calm.service"),
        )
        .await;
        start.expect("not stuck").expect("started");
        stop.wait().expect("stopped");
    }
    for (name, _) in &files {
        fs::remove_file(format!("{UNITS}/{name}")).expect("removed");
    }
    bus.daemon_reload().await.expect("reloaded");
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn death_and_restart_of_a_service_are_heard() {
    let bus = bus().await;
    let name = "knode-test-watched.service";
    // Listening begins before the unit exists.
    let mut watch = bus.watch_unit(name).await.expect("an ear");
    let text = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=200ms\n";
    let _units = Units::new(&bus, &[(name, text)]).await;
    bus.start(name).await.expect("started");
    let first = until(&mut watch, |state| state.is_active()).await;
    assert_eq!(first.service.expect("a service").restarts, 0);

    systemctl(&["kill", "--signal=KILL", name]);
    let again = until(&mut watch, |state| {
        state.is_active()
            && state
                .service
                .as_ref()
                .is_some_and(|service| service.restarts == 1)
    })
    .await;
    assert_ne!(again.invocation_id, first.invocation_id);
    // F18: the counter that makes the next pauses longer goes, the service stays.
    bus.reset_failed(name).await.expect("reset");
    let forgiven = bus.unit(name).await.expect("an answer");
    assert_eq!(forgiven.invocation_id, again.invocation_id);
    assert_eq!(forgiven.service.expect("a service").restarts, 0);
    bus.daemon_reload().await.expect("reloaded");
    bus.stop(name).await.expect("stopped");
    until(&mut watch, |state| state.active == "inactive").await;

    // Nobody looks while hundreds of changes come: the connection goes on working, and what is
    // seen then is the latest.
    for _ in 0..60 {
        bus.start(name).await.expect("started");
        bus.stop(name).await.expect("stopped");
    }
    bus.start(name).await.expect("started");
    until(&mut watch, UnitState::is_active).await;
    let quiet = async { while timeout(Duration::from_secs(1), watch.next()).await.is_ok() {} };
    timeout(Duration::from_secs(20), quiet)
        .await
        .expect("silence in the end");
    bus.stop(name).await.expect("stopped");
}

#[tokio::test]
#[ignore = "needs a running systemd: run inside a node"]
async fn kernels_opinion_of_the_clock_is_told() {
    let answer = bus().await.clock_synchronised().await.expect("an answer");
    let shown = std::process::Command::new("timedatectl")
        .args(["show", "--value", "-p", "NTPSynchronized"])
        .output();
    let shown = shown.ok().filter(|output| output.status.success());
    let expected = shown.map(|output| String::from_utf8_lossy(&output.stdout).trim() == "yes");
    assert_eq!(answer, expected);
}

#[test]
fn without_a_bus_the_error_says_so() {
    common::apart(|| {
        mount(
            Some("none"),
            "/run",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("an empty /run");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let error = runtime.block_on(Bus::connect()).expect_err("no bus");
        assert!(matches!(error, Error::NotConnected(_)), "{error:?}");
    });
}
