//! OpenStack: scripts run by the real client against a real Neutron, routes put right on
//! its routers, and templates judged by Heat's own engine. (P49-P51, P58)

mod cloud;
mod heat;
mod routes;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloud::Cloud;
use serde_json::{Value, json};
use tests::command::Output;
use tests::programs::Programs;

const DOCS: &str = include_str!("../../docs/openstack.md");
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBZbfAqJaC5IZUUG35d9b9SRRvo82jvYblSpYtQtbVq1 ops@example.com\n";
/// Whose things are the operator's.
const PROJECT: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// The settings that docs/openstack.md has.
fn documented(nth: usize) -> &'static str {
    let block = DOCS.split("```yaml\n").nth(nth + 1);
    block
        .and_then(|rest| rest.split("```").next())
        .unwrap_or_default()
}

/// Puts settings, and what they refer to, into a folder.
fn settings(folder: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("id_ed25519.pub"), KEY)?;
    let digest = "0123456789abcdef".repeat(4);
    let lock = format!(
        "version: 1\nartifacts:\n- {{name: knode, version: 0.1.0, arch: amd64, \
         urls: ['http://10.0.0.9/knode'], sha256: {digest}}}\n"
    );
    fs::write(folder.join("kgen.lock"), lock)?;
    fs::write(folder.join("cluster.yaml"), text)?;
    Ok(())
}

/// A network outside with an address of the operator's in it, and what belongs to nobody
/// here.
fn outside(cloud: &Cloud) -> Result<()> {
    let made = |kind: &str, body: Value| -> Result<String> {
        let answer = cloud.neutron("POST", &format!("{kind}s"), Some(&json!({kind: body})))?;
        Ok(answer[kind]["id"].as_str().context("no ID")?.to_owned())
    };
    let network = made(
        "network",
        json!({"name": "public", "router:external": true}),
    )?;
    made(
        "subnet",
        json!({"network_id": network, "cidr": "203.0.113.0/24", "ip_version": 4}),
    )?;
    made(
        "floatingip",
        json!({"floating_network_id": network, "floating_ip_address": "203.0.113.10", "project_id": PROJECT}),
    )?;
    // Called as ours are, in the same project, and not ours.
    let network = made("network", json!({"name": "demo", "project_id": PROJECT}))?;
    made(
        "port",
        json!({"name": "demo-node-1", "network_id": network, "project_id": PROJECT}),
    )?;
    Ok(())
}

fn ids(cloud: &Cloud, kind: &str) -> Result<BTreeSet<String>> {
    let list = cloud.list(kind)?;
    Ok(list.iter().map(|one| one["id"].to_string()).collect())
}

fn named<'v>(list: &'v [Value], name: &str) -> Result<&'v Value> {
    let found = list
        .iter()
        .find(|one| one["name"] == name && one["tags"] != json!([]));
    found.with_context(|| format!("there is no {name} with a tag"))
}

fn good(output: Output) -> Result<String> {
    let told = output.stderr.clone();
    output.ok()?;
    Ok(told)
}

#[test]
fn a_cluster_is_made_put_right_and_taken_away() -> Result<()> {
    let programs = Programs::build()?;
    let cloud = Cloud::start("")?;
    outside(&cloud)?;
    let kinds = [
        "networks",
        "subnets",
        "routers",
        "ports",
        "security-groups",
        "floatingips",
    ];
    let shelf = |kind: &str| -> Result<BTreeSet<String>> {
        // Whoever lists security groups gets a group of his own with it.
        if kind == "security-groups" {
            let answer = cloud.ask("a-token", "GET", kind, None)?;
            let list = answer["security_groups"]
                .as_array()
                .context("no groups")?
                .clone();
            return Ok(list.iter().map(|one| one["id"].to_string()).collect());
        }
        ids(&cloud, kind)
    };
    let all = || {
        kinds
            .iter()
            .map(|kind| shelf(kind))
            .collect::<Result<Vec<_>>>()
    };
    all()?;
    let before = all()?;
    let folder = cloud.folder();
    settings(&folder, documented(0))?;
    good(cloud.run(&programs.kgen, &["render", "-o", "out"])?)?;
    let told = good(cloud.run("out/openstack/up", &[])?)?;
    ensure!(
        told.contains("machine node-2") && told.contains("All machines run"),
        "{told}"
    );

    let ports = cloud.list("ports")?;
    let node = named(&ports, "demo-node-1")?;
    ensure!(node["fixed_ips"][0]["ip_address"] == "10.0.0.31", "{node}");
    ensure!(
        node["allowed_address_pairs"][0]["ip_address"] == "10.244.1.0/24",
        "{node}"
    );
    ensure!(
        node["security_groups"]
            .as_array()
            .is_some_and(|g| g.len() == 1),
        "{node}"
    );
    let master = named(&ports, "demo-master-1")?;
    ensure!(
        master["security_groups"]
            .as_array()
            .is_some_and(|g| g.len() == 2),
        "{master}"
    );
    let floating = cloud.list("floatingips")?;
    let leads = |port: &Value| {
        let found = floating.iter().find(|f| f["port_id"] == port["id"]);
        found.map(|f| {
            f["floating_ip_address"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
    };
    ensure!(
        leads(master).as_deref() == Some("203.0.113.10"),
        "{floating:?}"
    );
    ensure!(leads(node).is_some() && floating.len() == 2, "{floating:?}");
    let subnet = named(&cloud.list("subnets")?, "demo")?.clone();
    ensure!(
        subnet["allocation_pools"][0]["start"] == "10.0.0.128",
        "{subnet}"
    );
    machines(&cloud, &folder)?;

    // Again, nothing is made.
    let (made, books) = (all()?, cloud.books()?["servers"].clone());
    let told = good(cloud.run("out/openstack/up", &[])?)?;
    ensure!(told == "All machines run.\n", "{told}");
    ensure!(
        all()? == made && cloud.books()?["servers"] == books,
        "something was made again"
    );

    routes::put_right(&cloud, &programs)?;
    // Who may come in is as it is said now.
    let elsewhere = documented(0).replace("apiFrom: [203.0.113.0/24]", "apiFrom: [192.0.2.0/24]");
    settings(&folder, &elsewhere)?;
    good(cloud.run(&programs.kgen, &["render", "-o", "out"])?)?;
    let told = good(cloud.run("out/openstack/up", &[])?)?;
    ensure!(
        told.contains("rule for 6443 from 192.0.2.0/24")
            && told.contains("no rule for 6443 from 203.0.113.0/24 any more"),
        "{told}"
    );

    // Heat is not there to be asked; its client is.
    for (command, flags) in [
        (
            "create",
            &[
                "--template",
                "--environment",
                "--wait",
                "--parameter",
                "--tags",
            ][..],
        ),
        (
            "update",
            &["--template", "--environment", "--wait", "--parameter"],
        ),
        ("delete", &["--yes", "--wait"]),
    ] {
        let help = cloud
            .run("openstack", &["stack", command, "--help"])?
            .ok()?;
        for flag in flags {
            ensure!(
                help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}]")),
                "{flag}: {help}"
            );
        }
    }

    let asked = cloud.run("out/openstack/down", &[])?;
    ensure!(
        asked.code() == 1 && asked.stderr.contains("Nothing was deleted"),
        "{asked:?}"
    );
    ensure!(asked.stdout.contains("machine etcd-3"), "{asked:?}");
    ensure!(all()? == made, "something was deleted");
    good(cloud.run("out/openstack/down", &["--yes"])?)?;
    ensure!(all()? == before, "{:?}\n{before:?}", all()?);
    let books = cloud.books()?;
    ensure!(
        books["servers"] == json!({}) && books["server_groups"] == json!({}),
        "{books}"
    );
    let nothing = cloud.run("out/openstack/down", &["--yes"])?;
    ensure!(
        nothing.stdout.contains("There is nothing with the tag"),
        "{nothing:?}"
    );
    Ok(())
}

/// Each machine has its document, its role and its place.
fn machines(cloud: &Cloud, folder: &Path) -> Result<()> {
    let books = cloud.books()?;
    let servers = books["servers"].as_object().context("no machines")?;
    ensure!(servers.len() == 6, "{} machines", servers.len());
    let groups = books["server_groups"].as_object().context("no groups")?;
    let group = groups.values().next().context("etcd is not kept apart")?;
    ensure!(
        group["policies"] == json!(["soft-anti-affinity"]),
        "{group}"
    );
    for server in servers.values() {
        let name = server["name"].as_str().context("no name")?;
        let sent = STANDARD.decode(server["user_data"].as_str().context("no user-data")?)?;
        let document = fs::read(folder.join("out").join(name).join("user-data"))?;
        ensure!(sent == document, "the user-data of {name} differs");
        let role = name.split('-').next().unwrap_or_default();
        ensure!(
            server["metadata"]["role"] == role,
            "{name}: {}",
            server["metadata"]
        );
        let apart = server["hints"]["group"] == group["id"];
        ensure!(apart == (role == "etcd"), "{name}: {}", server["hints"]);
    }
    Ok(())
}

#[test]
fn a_load_balancer_and_a_pool() -> Result<()> {
    let programs = Programs::build()?;
    let cloud = Cloud::start("")?;
    outside(&cloud)?;
    let folder = cloud.folder();
    // One master and one machine of the pool are enough to see.
    let text = documented(1)
        .replace("count: 3", "count: 1")
        .lines()
        .filter(|line| !line.contains("master-2") && !line.contains("master-3"))
        .collect::<Vec<_>>()
        .join("\n");
    settings(&folder, &text)?;
    good(cloud.run(&programs.kgen, &["render", "-o", "out"])?)?;
    for _ in 0..2 {
        good(cloud.run("out/openstack/up", &[])?)?;
        let books = cloud.books()?;
        let one = |kind: &str| -> Result<Value> {
            let all = books["lbaas"][kind]
                .as_object()
                .context("nothing was made")?;
            ensure!(all.len() == 1, "{kind}: {all:?}");
            Ok(all.values().next().cloned().unwrap_or_default())
        };
        let balancer = one("loadbalancers")?;
        ensure!(balancer["vip_address"] == "10.0.0.5", "{balancer}");
        let listener = one("listeners")?;
        ensure!(listener["protocol_port"] == 6443, "{listener}");
        ensure!(
            listener["allowed_cidrs"] == json!(["203.0.113.0/24", "10.0.0.0/24"]),
            "{listener}"
        );
        let monitor = one("healthmonitors")?;
        ensure!(
            monitor["type"] == "HTTPS" && monitor["url_path"] == "/readyz",
            "{monitor}"
        );
        ensure!(one("members")?["address"] == "10.0.0.11", "{books}");
        let servers = books["servers"].as_object().context("no machines")?;
        let pool = servers
            .values()
            .find(|s| s["name"] == "workers-1")
            .context("no pool")?;
        let disk = &pool["block_device_mapping_v2"][0];
        ensure!(
            disk["volume_size"] == 40 && disk["boot_index"] == "0",
            "{pool}"
        );
        ensure!(servers.len() == 2, "{}", servers.len());
        let floating = cloud.list("floatingips")?;
        let leads = floating
            .iter()
            .any(|f| f["port_id"] == balancer["vip_port_id"]);
        ensure!(leads && floating.len() == 1, "{floating:?}");
    }
    good(cloud.run("out/openstack/down", &["--yes"])?)?;
    let books = cloud.books()?;
    let mut shelves = books["lbaas"]
        .as_object()
        .into_iter()
        .flat_map(|all| all.values());
    ensure!(
        shelves.all(|shelf| *shelf == json!({})) && books["servers"] == json!({}),
        "{books}"
    );
    ensure!(ids(&cloud, "routers")?.is_empty(), "the router is left");
    Ok(())
}
