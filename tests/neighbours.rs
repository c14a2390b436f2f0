//! Two machines of a rack: what one has downloaded, the other takes from it
//! (F20).

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::cluster::{Cluster, Machine};
use tests::scenario::with_kubernetes;

const MACHINES: [Machine; 3] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
    Machine::new("node-2", "node"),
];
const LIMIT: Duration = Duration::from_secs(240);

/// Needs no master: what is downloaded waits for none.
#[test]
fn f20_a_rack_downloads_once() -> Result<()> {
    const NAME: &str = "f20_a_rack_downloads_once";
    with_kubernetes(
        NAME,
        || Cluster::new(&MACHINES),
        |cluster| {
            cluster.configure("artifacts: {neighbours: true}\n")?;
            scenario(cluster)
        },
    )
}

/// What the server was asked for, without knode itself, which every machine
/// has to have before it can ask anybody.
fn asked(cluster: &Cluster) -> Vec<String> {
    let log = cluster.server.log().into_iter();
    let paths = log.map(|asked| asked.path);
    paths.filter(|path| path != "/knode").collect()
}

fn scenario(cluster: &mut Cluster) -> Result<()> {
    cluster.boot("node-1")?;
    cluster.wait_for_step("node-1", "fetch", LIMIT)?;
    cluster.wait_for_step("node-1", "neighbours", LIMIT)?;
    let first = asked(cluster);
    let files: BTreeSet<&String> = first.iter().collect();
    ensure!(files.len() == first.len() && files.len() >= 3, "{first:?}");
    ensure!(first.contains(&"/cni-plugins.tgz".to_owned()), "{first:?}");

    cluster.boot("node-2")?;
    let step = cluster.wait_for_step("node-2", "fetch", LIMIT)?;
    let second = asked(cluster);
    ensure!(
        second == first,
        "downloaded again: {:?}",
        &second[first.len()..]
    );
    let told = step["detail"].as_str().unwrap_or_default();
    let all = format!("{} fetched", files.len());
    ensure!(told.contains(&all), "{told}");
    nothing_else_is_offered(cluster)?;
    a_machine_without_neighbours_goes_to_the_mirror(cluster, &first)
}

fn nothing_else_is_offered(cluster: &mut Cluster) -> Result<()> {
    let ask = |cluster: &mut Cluster, path: &str| -> Result<String> {
        let node = cluster.node("node-2")?;
        let command = [
            "curl",
            "--silent",
            "--path-as-is",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            &format!("http://10.99.0.12:7444{path}"),
        ];
        Ok(node.exec(&command)?.stdout)
    };
    let zeros = format!("/sha256/{}", "0".repeat(64));
    for path in ["/", "/sha256/../../../../etc/knode/node.yaml", &zeros] {
        let status = ask(cluster, path)?;
        ensure!(status == "404", "{path}: {status}");
    }
    Ok(())
}

/// The neighbours are away, and what was fetched is gone: the mirror has it.
fn a_machine_without_neighbours_goes_to_the_mirror(
    cluster: &mut Cluster,
    first: &[String],
) -> Result<()> {
    cluster.node("node-1")?.kill()?;
    let node = cluster.node("node-2")?;
    node.sh("systemctl stop knode; rm -rf /opt/knode/store; systemctl start --no-block knode")?;
    tests::wait::until("everything from the mirror", LIMIT, || {
        let step = cluster.step("node-2", "fetch")?;
        let again = asked(cluster).len() >= 2 * first.len();
        Ok((again && step["state"] == "done").then_some(()))
    })
}
