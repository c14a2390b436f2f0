//! Twenty machines boot one pool's document at once (P60, F20): two with bodies,
//! the others hollow. All get certificates by the token, ranges of their own,
//! and are Ready; and what a token is worth ends with its time.

mod hollow;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hollow::{Hollow, Joined, Joining};
use ipnet::IpNet;
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::document::Document;
use tests::network::Network;
use tests::scenario::with_kubernetes;
use tests::{kube, report, wait};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    // Not booted before the others have their ranges.
    Machine::new("late", "node"),
];
/// Machines with bodies, and the last bytes of their addresses.
const REAL: [(&str, u8); 2] = [("pooled-1", 31), ("pooled-2", 32)];
/// The last byte of the first hollow one's address.
const FIRST: u8 = 41;
const HOLLOW: u8 = 18;
const LIMIT: Duration = Duration::from_secs(400);
const SOON: Duration = Duration::from_secs(120);
const NODE_CONFIG: &str = "/etc/knode/node.yaml";
const BOOTSTRAP: &str = "/etc/kubernetes/bootstrap-kubelet.conf";

#[test]
fn pool_of_20() -> Result<()> {
    let kubemark = kube::directory().join("kubemark");
    if !kubemark.is_file() {
        report::skip("pool_of_20", "no kubemark in $KUBE_BIN_DIR");
        return Ok(());
    }
    with_kubernetes(
        "pool_of_20",
        || Cluster::new(&MACHINES),
        |cluster| whole_way(cluster, &kubemark),
    )
}

fn whole_way(cluster: &mut Cluster, kubemark: &Path) -> Result<()> {
    // As knode itself does at its start.
    drop(rustls::crypto::ring::default_provider().install_default());
    let settings = cluster.path("cluster.yaml");
    let mut text = fs::read_to_string(&settings)?;
    text.push_str("pools:\n- {name: workers, labels: {example.com/pool: workers}}\n");
    fs::write(&settings, text)?;
    let document = cluster
        .kgen(&["--pool", "workers", "--format", "cloud-init"])?
        .ok()?;
    let mut hollow = twenty_join_at_once(cluster, &document)?;
    let network = cluster.network().clone();
    for machine in &mut hollow {
        machine.start(&network, kubemark)?;
    }
    all_are_ready(cluster, &hollow)?;
    nobody_was_turned_away(cluster)?;
    a_named_machine_gets_a_range_that_nobody_has(cluster)?;
    the_operator_waits(cluster)?;
    a_token_ends_with_its_time(cluster, &document)
}

/// They wait for their master, and ask when it is there.
fn twenty_join_at_once(cluster: &mut Cluster, document: &str) -> Result<Vec<Hollow>> {
    let parsed = Document::new(document);
    let hollow: Vec<Hollow> = (0..HOLLOW)
        .map(|n| {
            let address = address(cluster, FIRST + n);
            Hollow::new(&parsed, &format!("hollow-{n}"), address)
        })
        .collect::<Result<_>>()?;
    let joining = hollow.iter().map(Hollow::joining).collect();
    let network = cluster.network().clone();
    let joins = thread::spawn(move || join(&network, joining));
    for (name, last) in REAL {
        cluster.boot_unnamed(name, last, name, document.as_bytes())?;
    }
    cluster.boot("master")?;
    cluster.import_images("master", LIMIT)?;
    for (name, _) in REAL {
        cluster.import_images(name, LIMIT)?;
        cluster.wait_until_ready(name, LIMIT)?;
    }
    let joined = joins.join().map_err(|_| anyhow!("joining panicked"))??;
    let mut ranges = BTreeSet::new();
    for (machine, joined) in hollow.iter().zip(&joined) {
        let name = machine.name();
        ensure!(
            joined.said.contains(&format!("system:node:{name} for")),
            "{name}: {}",
            joined.said
        );
        ranges.extend(joined.ranges.iter().copied());
    }
    ensure!(ranges.len() == joined.len(), "shared ranges: {ranges:?}");
    let took = joined.iter().map(|j| j.took.as_secs_f64());
    eprintln!(
        "{} hollow machines joined, the last one {:.1} s after the API server was ready",
        joined.len(),
        took.fold(0.0, f64::max)
    );
    Ok(hollow)
}

fn address(cluster: &Cluster, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = cluster.network().gateway().octets();
    Ipv4Addr::new(a, b, c, last)
}

/// All of them at once, from within the machines' network.
fn join(network: &Network, joining: Vec<Joining>) -> Result<Vec<Joined>> {
    network.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let tasks: Vec<_> = joining
                .into_iter()
                .map(|machine| tokio::spawn(machine.join(LIMIT)))
                .collect();
            let mut joined = Vec::new();
            for task in tasks {
                joined.push(task.await??);
            }
            Ok(joined)
        })
    })
}

fn all_are_ready(cluster: &mut Cluster, hollow: &[Hollow]) -> Result<()> {
    let ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let mut names = BTreeSet::from(["master".to_owned()]);
    names.extend(REAL.map(|(name, _)| name.to_owned()));
    names.extend(hollow.iter().map(|machine| machine.name().to_owned()));
    ensure!(names.len() == 1 + usize::from(HOLLOW) + REAL.len());
    let mut nodes = Value::Null;
    wait::until("21 Nodes Ready", LIMIT, || {
        nodes = cluster.get(&["nodes"])?;
        let items = nodes["items"].as_array().into_iter().flatten();
        let are: BTreeSet<String> = items
            .filter(|node| ready(node))
            .filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned()))
            .collect();
        Ok((are == names).then_some(()))
    })
    .with_context(|| hollow.first().map(Hollow::log).unwrap_or_default())?;
    let items = nodes["items"].as_array().context("no list")?;
    let mut ranges = BTreeSet::new();
    for node in items {
        let range: IpNet = node["spec"]["podCIDR"]
            .as_str()
            .context("no range")?
            .parse()?;
        ensure!(ranges.insert(range), "{range} twice");
        let pooled = node["metadata"]["name"] != "master";
        let label = &node["metadata"]["labels"]["example.com/pool"];
        ensure!(!pooled || label == "workers", "{node:#}");
    }
    // What docs/operations.md says to type.
    let pooled = cluster.get(&["nodes", "--selector", "example.com/pool=workers"])?;
    let pooled = pooled["items"].as_array().map_or(0, Vec::len);
    ensure!(pooled == usize::from(HOLLOW) + REAL.len(), "{pooled}");
    cluster.kgen(&["render", "-o", "out"])?.ok()?;
    let tokens = cluster.path("out/pools");
    let tokens = tokens.to_str().context("the folder's name is not text")?;
    cluster.kubectl(&["apply", "-f", tokens], "")?.ok()?;
    Ok(())
}

/// Every machine asked once for a certificate, and got it; nobody was told to
/// come back later. From the API server's audit log.
fn nobody_was_turned_away(cluster: &mut Cluster) -> Result<()> {
    let log = cluster
        .node("master")?
        .read_file("/var/log/kubernetes/audit.log")?;
    let mut asked = Vec::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line)?;
        let status = &event["responseStatus"]["code"];
        ensure!(*status != 429, "throttled: {event:#}");
        let user = event["user"]["username"].as_str().unwrap_or_default();
        if user.starts_with("system:bootstrap:") && event["verb"] == "create" {
            ensure!(*status == 201, "{event:#}");
            let at = event["requestReceivedTimestamp"].as_str();
            asked.push(OffsetDateTime::parse(at.unwrap_or_default(), &Rfc3339)?);
        }
    }
    ensure!(
        asked.len() == usize::from(HOLLOW) + REAL.len(),
        "{} requests",
        asked.len()
    );
    asked.sort();
    let spread = asked[asked.len() - 1] - asked[0];
    eprintln!(
        "{} requests within {:.2} s, none throttled",
        asked.len(),
        spread.as_seconds_f64()
    );
    Ok(())
}

/// The controller manager knows nothing of a machine that is only in the
/// settings, so it gives ranges to those as well.
fn a_named_machine_gets_a_range_that_nobody_has(cluster: &mut Cluster) -> Result<()> {
    let nodes = cluster.get(&["nodes"])?;
    let items = nodes["items"].as_array().context("no list")?;
    let taken: BTreeSet<String> = items
        .iter()
        .map(|node| node["spec"]["podCIDR"].to_string())
        .collect();
    cluster.boot("late")?;
    cluster.import_images("late", LIMIT)?;
    cluster.wait_until_ready("late", LIMIT)?;
    let own = cluster.get(&["node", "late"])?["spec"]["podCIDR"].to_string();
    ensure!(own.contains("10.244.") && !taken.contains(&own), "{own}");
    Ok(())
}

/// What docs/operations.md says to type.
fn the_operator_waits(cluster: &mut Cluster) -> Result<()> {
    let all = (MACHINES.len() + REAL.len() + usize::from(HOLLOW)).to_string();
    let arguments = ["--for", "nodes,network", "--nodes", &all, "--timeout", "2m"];
    let said = cluster.kgen_wait(&arguments)?.ok()?;
    ensure!(!said.contains("NOT YET"), "{said}");
    Ok(())
}

/// F20, P15: the masters' agents keep its Secret until then and not after, and
/// a machine that comes too late says so.
fn a_token_ends_with_its_time(cluster: &mut Cluster, document: &str) -> Result<()> {
    let exists = |cluster: &Cluster| -> Result<bool> {
        let secret = "bootstrap-token-zzzzzz";
        let arguments = [
            "--namespace=kube-system",
            "get",
            "secret",
            secret,
            "--ignore-not-found",
            "--output=name",
        ];
        Ok(!cluster.kubectl(&arguments, "")?.ok()?.is_empty())
    };
    let expires = OffsetDateTime::now_utc() + time::Duration::seconds(25);
    let expires = expires.replace_nanosecond(0)?.format(&Rfc3339)?;
    let data = |text: &str| STANDARD.encode(text);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "bootstrap-token-zzzzzz", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": data("zzzzzz"),
            "token-secret": data("0123456789abcdef"),
            "expiration": data(&expires),
            "usage-bootstrap-authentication": data("true"),
            "auth-extra-groups": data("system:bootstrappers:knode"),
        },
    });
    let path = "/etc/knode/objects/late-token.yaml";
    cluster
        .node("master")?
        .write_file(path, object.to_string().as_bytes())?;
    wait::until("the token's Secret", SOON, || {
        Ok(exists(cluster)?.then_some(()))
    })?;
    wait::until("the end of the token's Secret", SOON, || {
        Ok((!exists(cluster)?).then_some(()))
    })?;
    let document = Document::new(document);
    let machine = Hollow::new(&document, "too-late", address(cluster, FIRST - 1))?;
    machine.edit(NODE_CONFIG, |text| {
        let mut config: Value = serde_yaml::from_str(text)?;
        config["bootstrap"]["expires"] = json!(expires);
        Ok(config.to_string())
    })?;
    machine.edit(BOOTSTRAP, |text| {
        let token = text.split("token: ").nth(1);
        let token = token.and_then(|rest| rest.split_whitespace().next());
        let token = token.context("no token")?.trim_matches('"');
        Ok(text.replace(token, "zzzzzz.0123456789abcdef"))
    })?;
    let Err(error) = join(cluster.network(), vec![machine.joining()]) else {
        return Err(anyhow!("it joined with a token that had expired"));
    };
    let told = format!("{error:#}");
    ensure!(
        told.contains("the token of the pool workers was good until") && told.contains(&expires),
        "{told}"
    );
    let code = error.downcast_ref::<knode::error::Error>();
    let code = code.map(|error| error.code().to_string());
    ensure!(code.as_deref() == Some("E-BOOTSTRAP-TOKEN"), "{code:?}");
    // Its file is still there: not made again.
    let step = cluster.wait_for_step("master", "objects", SOON)?;
    ensure!(!exists(cluster)?, "{step:#}");
    Ok(())
}
