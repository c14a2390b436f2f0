//! What happens to a ring of etcd in its life: members lose their data, all of
//! it is restored from a snapshot, it is full, it grows and shrinks. The
//! commands are those of docs/operations.md.

mod growth;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::cluster::{Cluster, Machine};
use tests::command::Output;
use tests::node::Node;
use tests::scenario::on_cluster;
use tests::wait;

const MEMBERS: [&str; 3] = ["etcd-1", "etcd-2", "etcd-3"];
const LIMIT: Duration = Duration::from_secs(240);
/// What an operator keeps.
const BACKUP: &str = "/var/lib/backup.db";
const SETTINGS: &str = "\
etcd:
  config: {quota-backend-bytes: 16777216}
  snapshots: {interval: 1m, keep: 2}
";

/// F28, and the snapshots of P37's ring.
#[test]
fn f28_a_ring_loses_data_and_gets_them_back() -> Result<()> {
    const NAME: &str = "f28_a_ring_loses_data_and_gets_them_back";
    let machines = [
        Machine::new(MEMBERS[0], "etcd"),
        Machine::new(MEMBERS[1], "etcd"),
        Machine::new(MEMBERS[2], "etcd"),
        Machine::new("master", "master"),
    ];
    on_cluster(
        NAME,
        || Cluster::new(&machines),
        |cluster| {
            cluster.configure(SETTINGS)?;
            ring(cluster)
        },
    )
}

fn ring(cluster: &mut Cluster) -> Result<()> {
    for name in MEMBERS {
        cluster.boot(name)?;
    }
    for name in MEMBERS {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    put(cluster, "etcd-1", "first", "kept")?;
    one_member_loses_its_data(cluster)?;
    snapshots_are_made(cluster)?;
    a_full_database_is_told_and_mended(cluster)?;
    a_new_configuration_restarts_one_after_the_other(cluster)?;
    most_members_lose_their_data(cluster)?;
    a_member_leaves_and_comes_back(cluster)
}

/// It is back by itself, as another member with all data.
fn one_member_loses_its_data(cluster: &mut Cluster) -> Result<()> {
    let before = id(cluster, "etcd-1", "etcd-2")?;
    lose(cluster.node("etcd-2")?)?;
    wait::until("another member etcd-2 with a vote", LIMIT, || {
        let after = id(cluster, "etcd-1", "etcd-2")?;
        Ok((after != before && voters(cluster, "etcd-1")? == 3).then_some(()))
    })
    .with_context(|| steps(cluster, "etcd-2"))?;
    // Its own database has what the others had.
    wait::until("the data on etcd-2", LIMIT, || {
        let value = etcdctl(cluster.node("etcd-2")?, "get --consistency=s first")?;
        Ok(value.stdout.contains("kept").then_some(()))
    })?;
    let journal = cluster.node("etcd-2")?.journal("knode")?;
    ensure!(journal.contains("has a vote in its ring"), "{journal}");
    cluster.wait_until_ready("etcd-2", LIMIT)
}

/// By themselves with retention, and by a command.
fn snapshots_are_made(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("etcd-1")?;
    let said = knode(node, &["snapshot", BACKUP])?.ok()?;
    ensure!(said.contains("verified"), "{said}");
    let status = node.sh(&format!(
        "stat -c %a {BACKUP}; /opt/kubernetes/bin/etcdutl snapshot status {BACKUP}"
    ))?;
    ensure!(status.starts_with("600\n"), "{status}");
    // A file that was cut is no snapshot.
    node.sh(&format!("head -c 8192 {BACKUP} >/var/lib/cut.db"))?;
    let refused = knode(node, &["restore", "/var/lib/cut.db", "--yes"])?;
    ensure!(refused.code() != 0, "{}", refused.stdout);
    ensure!(
        refused.stderr.contains("E-ETCD-SNAPSHOT"),
        "{}",
        refused.stderr
    );
    // Nobody was asked.
    let refused = knode(node, &["restore", BACKUP])?;
    ensure!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    for name in MEMBERS {
        wait::until("two snapshots", LIMIT, || {
            let folder = "/var/lib/etcd-snapshots";
            let list = cluster.node(name)?.sh(&format!(
                "stat -c '%a %n' {folder} {folder}/* 2>/dev/null || true"
            ))?;
            let lines: Vec<&str> = list.lines().collect();
            ensure!(
                lines.first().is_some_and(|l| l.starts_with("700 ")),
                "{list}"
            );
            let own = format!("600 {folder}/etcd-{name}-");
            let own = lines.iter().filter(|line| line.starts_with(&own)).count();
            ensure!(own == lines.len() - 1, "{list}");
            Ok((own == 2).then_some(()))
        })?;
    }
    Ok(())
}

/// One key that is written over and over fills it with its past.
fn a_full_database_is_told_and_mended(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("etcd-1")?;
    node.sh(&format!(
        "head -c 1000000 /dev/zero | tr '\\0' x >/run/value; \
         for number in $(seq 40); do {} put large </run/value || exit 0; done; exit 1",
        command("etcdctl")
    ))
    .context("forty megabytes fit into sixteen")?;
    wait::until("E-ETCD-NOSPACE, or its end", LIMIT, || {
        for name in MEMBERS {
            let journal = cluster.node(name)?.journal("knode")?;
            if journal.contains("has reached its quota") {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })?;
    wait::until("writes again", LIMIT, || {
        put(cluster, "etcd-1", "second", "lost")?;
        Ok(Some(()))
    })?;
    for name in MEMBERS {
        wait::until("a small database", LIMIT, || {
            let node = cluster.node(name)?;
            let status = etcdctl(node, "endpoint status --write-out=json")?.ok()?;
            let status: Value = serde_json::from_str(&status)?;
            let size = status[0]["Status"]["dbSize"].as_u64().context("no size")?;
            Ok((size < 8_000_000).then_some(()))
        })?;
        cluster.wait_for_step(name, "etcd-upkeep", LIMIT)?;
    }
    Ok(())
}

/// Delivered to all at one time, it never takes two members away at once.
fn a_new_configuration_restarts_one_after_the_other(cluster: &mut Cluster) -> Result<()> {
    let settings = cluster.path("cluster.yaml");
    let text = std::fs::read_to_string(&settings)?;
    let text = text.replace("16777216", "33554432");
    std::fs::write(&settings, text)?;
    for name in MEMBERS {
        cluster.write_document(name)?;
    }
    for name in MEMBERS {
        cluster.wait_until_applied(name, LIMIT)?;
    }
    let mut away: Vec<(f64, f64)> = Vec::new();
    for name in MEMBERS {
        let journal = cluster
            .node(name)?
            .sh("journalctl --unit=etcd --output=short-unix --no-pager | \
             grep -E 'Stopping etcd|Started etcd' | tail -2")?;
        let when = |line: &str| -> Option<f64> { line.split(' ').next()?.parse().ok() };
        let times: Vec<f64> = journal.lines().filter_map(when).collect();
        ensure!(
            times.len() == 2 && journal.contains("Stopping"),
            "{name}: {journal}"
        );
        away.push((times[0], times[1]));
    }
    away.sort_by(|a, b| a.0.total_cmp(&b.0));
    eprintln!("restarted, by the clock: {away:?}");
    ensure!(away.windows(2).all(|two| two[0].1 < two[1].0), "{away:?}");
    Ok(())
}

/// Nothing is done by itself, the cure is told, and the command is that of the
/// documentation.
fn most_members_lose_their_data(cluster: &mut Cluster) -> Result<()> {
    for name in ["etcd-2", "etcd-3"] {
        cluster.node(name)?.sh("systemctl stop knode")?;
    }
    for name in ["etcd-2", "etcd-3"] {
        lose(cluster.node(name)?)?;
        cluster.node(name)?.sh("systemctl start knode --no-block")?;
    }
    for name in ["etcd-2", "etcd-3"] {
        wait::until("E-ETCD-QUORUM", LIMIT, || {
            let step = cluster.step(name, "etcd")?;
            Ok((step["failure"]["code"] == "E-ETCD-QUORUM").then_some(()))
        })
        .with_context(|| steps(cluster, name))?;
    }
    let node = cluster.node("etcd-1")?;
    let said = knode(node, &["restore", BACKUP, "--yes"])?.ok()?;
    eprintln!("{said}");
    let aside = node.sh("ls -d /var/lib/etcd/aside-*/member/wal")?;
    ensure!(aside.lines().count() == 1, "{aside}");
    for name in MEMBERS {
        wait::until("three members with a vote", LIMIT, || {
            Ok((voters(cluster, name)? == 3).then_some(()))
        })
        .with_context(|| steps(cluster, name))?;
        cluster.wait_for_step(name, "etcd", LIMIT)?;
        let node = cluster.node(name)?;
        let first = etcdctl(node, "get first")?.ok()?;
        ensure!(first.contains("kept"), "{first}");
        let second = etcdctl(node, "get second")?.ok()?;
        ensure!(second.is_empty(), "{second}");
    }
    Ok(())
}

fn a_member_leaves_and_comes_back(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("etcd-3")?;
    knode(node, &["leave", "--yes"])?.ok()?;
    wait::until("two members", LIMIT, || {
        Ok((voters(cluster, "etcd-1")? == 2).then_some(()))
    })?;
    wait::until("E-ETCD-REMOVED", LIMIT, || {
        let step = cluster.step("etcd-3", "etcd")?;
        Ok((step["failure"]["code"] == "E-ETCD-REMOVED").then_some(()))
    })?;
    knode(cluster.node("etcd-3")?, &["rejoin", "--yes"])?.ok()?;
    ensure!(voters(cluster, "etcd-1")? == 3);
    // Taken out by another, it says so, and is brought back with its data aside.
    knode(cluster.node("etcd-1")?, &["remove", "etcd-2", "--yes"])?.ok()?;
    wait::until("E-ETCD-REMOVED", LIMIT, || {
        let step = cluster.step("etcd-2", "etcd")?;
        Ok((step["failure"]["code"] == "E-ETCD-REMOVED").then_some(()))
    })
    .with_context(|| steps(cluster, "etcd-2"))?;
    knode(cluster.node("etcd-2")?, &["rejoin", "--yes"])?.ok()?;
    let members = knode(cluster.node("etcd-2")?, &["members"])?.ok()?;
    ensure!(members.lines().count() == 3, "{members}");
    ensure!(members.matches("leader").count() == 1, "{members}");
    knode(cluster.node("etcd-2")?, &["defragment"])?.ok()?;
    for name in MEMBERS {
        cluster.wait_until_ready(name, LIMIT)?;
    }
    Ok(())
}

/// What a disk does that is replaced.
fn lose(node: &Node) -> Result<()> {
    node.sh("systemctl kill --signal=KILL etcd; rm -rf /var/lib/etcd/*")?;
    Ok(())
}

fn command(program: &str) -> String {
    let pki = "/etc/kubernetes/pki/etcd";
    format!(
        "/opt/kubernetes/bin/{program} --endpoints=https://127.0.0.1:2379 \
         --cacert={pki}/ca.crt --cert={pki}/healthcheck-client.crt \
         --key={pki}/healthcheck-client.key"
    )
}

fn etcdctl(node: &Node, arguments: &str) -> Result<Output> {
    node.exec(&["sh", "-c", &format!("{} {arguments}", command("etcdctl"))])
}

fn knode(node: &Node, arguments: &[&str]) -> Result<Output> {
    let program = ["/opt/knode/bin/knode", "etcd"];
    node.exec_within(&[&program, arguments].concat(), b"", LIMIT)
}

fn put(cluster: &mut Cluster, at: &str, key: &str, value: &str) -> Result<()> {
    let node = cluster.node(at)?;
    etcdctl(node, &format!("put {key} {value}"))?.ok()?;
    Ok(())
}

/// The members as a machine's own one knows them.
fn members(cluster: &mut Cluster, at: &str) -> Result<Vec<Value>> {
    let list = etcdctl(cluster.node(at)?, "member list --write-out=json")?.ok()?;
    let list: Value = serde_json::from_str(&list)?;
    Ok(list["members"].as_array().cloned().unwrap_or_default())
}

fn id(cluster: &mut Cluster, at: &str, name: &str) -> Result<Value> {
    let members = members(cluster, at)?;
    let found = members.iter().find(|member| member["name"] == name);
    Ok(found.map(|member| member["ID"].clone()).unwrap_or_default())
}

/// How many members were started and have a vote.
fn voters(cluster: &mut Cluster, at: &str) -> Result<usize> {
    let members = members(cluster, at)?;
    let votes = |m: &&Value| m["clientURLs"].is_array() && m["isLearner"] != true;
    Ok(members.iter().filter(votes).count())
}

fn steps(cluster: &mut Cluster, name: &str) -> String {
    let step = cluster.step(name, "etcd").unwrap_or_default();
    format!("{name}: {step:#}")
}
