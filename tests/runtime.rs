//! The container runtime on a real master: images from a registry that lets in
//! whom the settings name, by containerd 1.7 of the distribution and by a
//! containerd 2 that the machine fetched.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::image::Image;
use tests::registry::Registry;
use tests::scenario::with_kubernetes;
use tests::{artifacts, report, rootfs, wait};

const MASTER: &str = "master";
const MACHINES: [Machine; 1] = [Machine::new(MASTER, "master")];
const LIMIT: Duration = Duration::from_secs(240);
const PORT: u16 = 5000;
const REGISTRY: &str = "10.99.0.1:5000";
/// Nobody resolves it: its images can only come from the mirror.
const MIRRORED: &str = "images.example.test";
const PASSWORD: &str = "correct-horse";
const MIRROR_PASSWORD: &str = "battery-staple";

/// P20, P40, F4: by what Debian has, whose configuration is of version 2.
#[test]
fn p20_images_come_with_a_login_and_from_a_mirror() -> Result<()> {
    const NAME: &str = "p20_images_come_with_a_login_and_from_a_mirror";
    with_kubernetes(
        NAME,
        || Cluster::new(&MACHINES),
        |cluster| scenario(cluster, "1."),
    )
}

/// The same by a containerd that was fetched with the other artifacts, whose
/// configuration is of version 3.
#[test]
fn p40_a_fetched_containerd_2_runs_the_node() -> Result<()> {
    const NAME: &str = "p40_a_fetched_containerd_2_runs_the_node";
    let (containerd, runc) = match artifacts::containerd_2() {
        Ok(found) => found,
        Err(reason) => {
            report::skip(NAME, &format!("no containerd 2: {reason:#}"));
            return Ok(());
        }
    };
    with_kubernetes(
        NAME,
        || Cluster::new(&MACHINES),
        |cluster| {
            cluster.add_artifact("containerd", &containerd)?;
            cluster.add_artifact("runc", &runc)?;
            let path = cluster.path("cluster.yaml");
            let mut wanted = "source: artifact".to_owned();
            if !rootfs::may_lower_oom_scores()? {
                // On such a machine nobody may, and runc gives up where it cannot.
                wanted.push_str(
                "\n  config: {plugins: {io.containerd.cri.v1.runtime: {restrict_oom_score_adj: true}}}",
            );
            }
            let text = fs::read_to_string(&path)?;
            ensure!(text.contains("source: distribution"), "{text}");
            fs::write(&path, text.replace("source: distribution", &wanted))?;
            scenario(cluster, "2.")
        },
    )
}

fn scenario(cluster: &mut Cluster, version: &str) -> Result<()> {
    let registry = Registry::start(cluster.network(), PORT)?;
    ensure!(registry.host() == REGISTRY, "{}", registry.host());
    registry.let_in("puller", PASSWORD);
    registry.let_in("mirror", MIRROR_PASSWORD);
    let web = Image::web()?;
    registry.add("private/web:1", &web)?;
    registry.add("team/web:1", &web)?;
    registry.add("team/web:2", &web)?;
    settings(cluster, &registry)?;
    cluster.boot(MASTER)?;
    let step = cluster.wait_for_step(MASTER, "runtime", LIMIT)?;
    let running = format!("containerd {version}");
    let detail = step["detail"].as_str().unwrap_or_default().replace('v', "");
    ensure!(
        detail.contains(&running),
        "{running} does not run: {step:#}"
    );
    // Only what holds a pod's namespaces comes otherwise.
    let pause = Image::pause()?;
    let import = ["ctr", "--namespace=k8s.io", "images", "import", "-"];
    let archive = fs::read(pause.archive())?;
    let node = cluster.node(MASTER)?;
    node.exec_within(&import, &archive, LIMIT)?.ok()?;
    cluster.wait_until_ready(MASTER, LIMIT)?;
    the_configuration_is_of_its_version(cluster, version)?;
    logins_are_for_root_alone(cluster)?;
    the_registry_s_login_is_used(cluster, &registry)?;
    the_mirror_s_login_is_used(cluster, &registry)?;
    a_wrong_login_is_refused(cluster, &registry)
}

fn settings(cluster: &Cluster, registry: &Registry) -> Result<()> {
    for (name, text) in [
        ("registry-ca.crt", registry.authority()),
        ("password", PASSWORD),
        ("mirror-password", MIRROR_PASSWORD),
    ] {
        fs::write(cluster.path(name), text)?;
    }
    cluster.configure(&format!(
        "registries:\n\
         - host: \"{REGISTRY}\"\n  ca: \"@registry-ca.crt\"\n  \
           login: {{username: puller, password: \"@password\"}}\n\
         - host: {MIRRORED}\n  mirrors:\n  - url: https://{REGISTRY}\n    \
           ca: \"@registry-ca.crt\"\n    \
           login: {{username: mirror, password: \"@mirror-password\"}}\n"
    ))
}

fn the_configuration_is_of_its_version(cluster: &mut Cluster, version: &str) -> Result<()> {
    let text = cluster
        .node(MASTER)?
        .read_file("/etc/kubernetes/containerd.toml")?;
    let schema = match version {
        "2." => "version = 3\n",
        _ => "version = 2\n",
    };
    ensure!(text.contains(schema), "{text}");
    Ok(())
}

fn logins_are_for_root_alone(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(MASTER)?;
    let hosts = format!("/etc/containerd/certs.d/{MIRRORED}/hosts.toml");
    let found = node.sh(&format!(
        "stat --format='%a %U:%G' /var/lib/kubelet/config.json {hosts}"
    ))?;
    ensure!(found == "600 root:root\n600 root:root\n", "{found}");
    // Nor is a password anywhere that others could see.
    let said = node.exec(&["sh", "-c", &format!(
        "journalctl --output=cat | grep -c -e {PASSWORD} -e {MIRROR_PASSWORD}; \
         cat /run/knode/status.json /etc/knode/node.yaml | grep -c -e {PASSWORD} -e {MIRROR_PASSWORD}"
    )])?;
    ensure!(
        said.stdout == "0\n0\n",
        "a password was told: {}",
        said.stdout
    );
    Ok(())
}

/// A pod on the master whose image is asked for at every start.
fn pod(cluster: &Cluster, name: &str, image: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": MASTER,
            "tolerations": [{"operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "web", "image": image, "imagePullPolicy": "Always"}],
        },
    });
    wait::until(&format!("{name} accepted"), LIMIT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &pod.to_string())?;
        Ok(applied.success().then_some(()))
    })
}

fn container(cluster: &Cluster, name: &str) -> Result<Value> {
    let pod = cluster.get(&["pod", name])?;
    Ok(pod["status"]["containerStatuses"][0].clone())
}

fn runs(cluster: &Cluster, name: &str, image: &str) -> Result<()> {
    pod(cluster, name, image)?;
    wait::until(&format!("{name} running"), LIMIT, || {
        Ok((container(cluster, name)?["ready"] == true).then_some(()))
    })
    .with_context(|| format!("{:#}", container(cluster, name).unwrap_or_default()))
}

/// Who asked for the images of a folder, and was let in.
fn users(registry: &Registry, folder: &str) -> Vec<String> {
    let path = format!("/v2/{folder}/");
    let log = registry.log().into_iter();
    let served = log.filter(|asked| asked.path.starts_with(&path) && asked.status.is_success());
    let mut users: Vec<String> = served.filter_map(|asked| asked.user).collect();
    users.sort();
    users.dedup();
    users
}

fn the_registry_s_login_is_used(cluster: &Cluster, registry: &Registry) -> Result<()> {
    runs(cluster, "private", &format!("{REGISTRY}/private/web:1"))?;
    ensure!(
        users(registry, "private") == ["puller"],
        "{:?}",
        registry.log()
    );
    Ok(())
}

fn the_mirror_s_login_is_used(cluster: &Cluster, registry: &Registry) -> Result<()> {
    runs(cluster, "mirrored", &format!("{MIRRORED}/team/web:1"))?;
    ensure!(
        users(registry, "team") == ["mirror"],
        "{:?}",
        registry.log()
    );
    let told = format!("ns={MIRRORED}");
    let named = registry.log().into_iter().any(|asked| asked.query == told);
    ensure!(named, "{:?}", registry.log());
    Ok(())
}

/// Both logins, once the registry knows others.
fn a_wrong_login_is_refused(cluster: &Cluster, registry: &Registry) -> Result<()> {
    registry.let_in("puller", "another");
    registry.let_in("mirror", "another");
    for (name, image) in [
        ("private-refused", format!("{REGISTRY}/private/web:1")),
        ("mirrored-refused", format!("{MIRRORED}/team/web:2")),
    ] {
        pod(cluster, name, &image)?;
        wait::until(&format!("{name} refused"), LIMIT, || {
            let waiting = &container(cluster, name)?["state"]["waiting"];
            let reason = waiting["reason"].as_str().unwrap_or_default();
            Ok(["ErrImagePull", "ImagePullBackOff"]
                .contains(&reason)
                .then_some(()))
        })
        .with_context(|| format!("{:#}", container(cluster, name).unwrap_or_default()))?;
    }
    for user in ["puller", "mirror"] {
        let refused = registry
            .log()
            .into_iter()
            .any(|asked| asked.user.as_deref() == Some(user) && asked.status.as_u16() == 401);
        ensure!(refused, "{user} was not refused: {:?}", registry.log());
    }
    Ok(())
}
