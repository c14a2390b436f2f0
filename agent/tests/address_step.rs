//! The step `address` on interfaces that come late, are the wrong ones, or lose what they had
//! (F9, F11), in network namespaces of their own.

mod common;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Namespace, sh};
use knode::graph::Step;
use knode::machine::Machine;
use knode::status::Status;
use knode::steps;
use knode::sys::root::Root;
use units::NodeConfig;

const SOON: Duration = Duration::from_secs(20);

/// The step of a machine with these addresses in its settings; the folder lives as long as they
/// are used.
fn step(named: &[&str]) -> (Arc<dyn Step<Machine>>, Arc<Machine>, tempfile::TempDir) {
    let sample = include_str!("../../units/testdata/node-v1.yaml");
    let mut config: NodeConfig = serde_yaml::from_str(sample).expect("the sample");
    config.node.addresses = named.iter().map(|a| ip(a)).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let root = Root::new(folder.path());
    root.create_dir("/run/knode", 0o755).expect("a folder");
    let steps = steps::of(&config);
    let step = steps.into_iter().find(|step| step.name() == "address");
    let status = Status::new(root.clone(), ["address"]);
    let machine = Machine::new(config, "node-1".parse().expect("a name"), root, status);
    (step.expect("there"), Arc::new(machine), folder)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(SOON, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

/// F9: nothing is there when it begins; link, address and way out come one by one.
#[test]
fn f9_an_interface_that_comes_late_is_waited_for() {
    for named in [&["10.1.0.10"][..], &[]] {
        Namespace::new().block_on(move || async move {
            let (step, machine, _folder) = step(named);
            let context = Arc::clone(&machine);
            let working = tokio::spawn(async move { step.converge(&context).await });
            let detail = || machine.status.read(|report| report.steps[0].detail.clone());
            soon("a word on what it waits for", async {
                while !detail().contains("E-ADDRESS") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            sh("ip link add late type veth peer name away; ip link set away up; ip link set late up");
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!working.is_finished(), "{}", detail());
            sh("ip address add 10.1.0.10/24 dev late; ip route add default via 10.1.0.1");
            let told = soon("the address", working).await;
            assert_eq!(told.expect("no panic").expect("found"), "10.1.0.10");
            assert_eq!(*machine.addresses.borrow(), Some(vec![ip("10.1.0.10")]));
        });
    }
}

/// F11: the way out is by another container runtime's bridge, within the pods' range.
#[test]
fn f11_an_address_of_the_pods_is_never_the_machines() {
    Namespace::new().block_on(|| async {
        // The sample's pods are in 10.244.0.0/16.
        sh(
            "ip link add pods type bridge; ip link add far type veth peer name up0; \
            ip link set far master pods; ip link set far up; ip link set pods up; ip link set up0 up; ip address add 10.244.1.1/24 dev pods; \
            ip route add default via 10.244.1.2",
        );
        let (step, machine, _folder) = step(&[]);
        let context = Arc::clone(&machine);
        let working = tokio::spawn(async move { step.converge(&context).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!working.is_finished());
        sh("ip address add 10.1.0.10/24 dev up0; ip route replace default via 10.1.0.1");
        let told = soon("the address", working).await;
        assert_eq!(told.expect("no panic").expect("found"), "10.1.0.10");
    });
}

/// F11: a lost address is told and nothing changed for it; one that is back at once is no news;
/// another one is.
#[test]
fn f11_a_lost_address_is_told_and_another_one_is_taken() {
    Namespace::new().block_on(|| async {
        sh(
            "ip link add up0 type veth peer name away; ip link set away up; ip link set up0 up; \
            ip address add 10.1.0.10/24 dev up0; ip route add default via 10.1.0.1",
        );
        let (step, machine, _folder) = step(&[]);
        step.converge(&machine).await.expect("found");
        let mut facts = machine.addresses.subscribe();
        facts.mark_unchanged();

        // As when a network manager restarts.
        let again = step.again(&machine);
        sh(
            "ip address flush dev up0; ip address add 10.1.0.10/24 dev up0; \
            ip route add default via 10.1.0.1",
        );
        let waited = tokio::time::timeout(Duration::from_secs(4), again).await;
        assert!(waited.is_err(), "the same address again is news");

        sh("ip address flush dev up0");
        soon("the loss noticed", step.again(&machine)).await;
        let error = step.converge(&machine).await.expect_err("lost");
        assert_eq!(error.code().as_str(), "E-ADDRESS");
        assert!(!facts.has_changed().expect("lives"));
        assert_eq!(*machine.addresses.borrow(), Some(vec![ip("10.1.0.10")]));

        sh("ip address add 10.1.0.77/24 dev up0; ip route add default via 10.1.0.1");
        let told = step.converge(&machine).await.expect("another one");
        assert_eq!(told, "10.1.0.77");
        assert!(facts.has_changed().expect("lives"));
    });
}
