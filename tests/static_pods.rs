//! A master whose control plane runs as static pods of its kubelet, and a node, on real
//! systemd, containerd and Kubernetes; the images are packed here from the very programs
//! that other tests run as services (P36).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, Machine};
use tests::image::Image;
use tests::kube::Binaries;
use tests::scenario::with_kubernetes;
use tests::{artifacts, wait};

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
];
const PODS: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
const BOOT: Duration = Duration::from_secs(180);

#[test]
fn static_pods() -> Result<()> {
    with_kubernetes(
        "static_pods",
        || Cluster::new(&MACHINES),
        |cluster| {
            cluster.configure("controlPlane: static-pods\n")?;
            whole_way(cluster, &Binaries::find()?)
        },
    )
}

fn whole_way(cluster: &mut Cluster, kube: &Binaries) -> Result<()> {
    cluster.boot("master")?;
    cluster.boot("node-1")?;
    a_pod_without_its_image_is_named(cluster)?;
    cluster.import_images("master", BOOT)?;
    for image in images(kube)? {
        cluster.node("master")?.import(&image)?;
    }
    cluster.import_images("node-1", BOOT)?;
    for machine in MACHINES {
        cluster.wait_until_ready(machine.name, BOOT)?;
    }
    the_node_is_as_the_settings_say(cluster)?;
    all_pods_are_ready(cluster)?;
    nothing_runs_as_a_service(cluster)?;
    a_pod_runs(cluster)?;
    what_dies_comes_back(cluster)?;
    a_reboot_needs_nobody(cluster)
}

/// What the manifests ask for, from the programs of the harness.
fn images(kube: &Binaries) -> Result<Vec<Image>> {
    let registry = "registry.k8s.io";
    let etcd = artifacts::etcd()?.version;
    let mut images = vec![Image::etcd(&format!("{registry}/etcd:{etcd}-0"))?];
    for name in &PODS[1..] {
        let reference = format!("{registry}/{name}:v{}", kube.version());
        images.push(Image::of_program(&reference, &kube.program(name))?);
    }
    Ok(images)
}

/// No registry can be reached: knode says which pod does not come up, by its code.
fn a_pod_without_its_image_is_named(cluster: &mut Cluster) -> Result<()> {
    wait::until("E-STATIC-POD", BOOT, || {
        let step = cluster.step("master", "etcd")?;
        let told = step.to_string();
        Ok((told.contains("E-STATIC-POD") && told.contains("no container etcd")).then_some(()))
    })
    .with_context(|| {
        format!(
            "{:#}",
            cluster.status("master").ok().flatten().unwrap_or_default()
        )
    })
}

/// The kubelet was there before the API server, and yet the Node is knode's.
fn the_node_is_as_the_settings_say(cluster: &mut Cluster) -> Result<()> {
    let master = cluster.get(&["node", "master"])?;
    ensure!(
        master["spec"]["podCIDR"] == "10.244.0.0/24",
        "{:#}",
        master["spec"]
    );
    let taint = &master["spec"]["taints"][0];
    ensure!(
        taint["key"] == "node-role.kubernetes.io/control-plane",
        "{:#}",
        master["spec"]
    );
    wait::until("role label and what the kubelet adds", BOOT, || {
        let metadata = cluster.get(&["node", "master"])?["metadata"].clone();
        let label = |name: &str| metadata["labels"].get(name).is_some();
        let attach = "volumes.kubernetes.io/controller-managed-attach-detach";
        let all = label("node-role.kubernetes.io/control-plane")
            && label("kubernetes.io/arch")
            && metadata["annotations"].get(attach).is_some();
        Ok(all.then_some(()))
    })?;
    let arguments = cluster
        .node("master")?
        .read_file("/run/knode/kubelet.env")?;
    ensure!(!arguments.contains("register-node"), "{arguments}");
    Ok(())
}

fn all_pods_are_ready(cluster: &mut Cluster) -> Result<()> {
    wait::until("the control plane's pods Ready", BOOT, || {
        let pods = cluster.get(&["--namespace=kube-system", "pods"])?;
        let ready = |name: &str| {
            let mut items = pods["items"].as_array().into_iter().flatten();
            items.any(|pod| {
                pod["metadata"]["name"] == format!("{name}-master")
                    && pod["status"]["containerStatuses"][0]["ready"] == true
                    && pod["spec"]["priorityClassName"] == "system-node-critical"
            })
        };
        Ok(PODS.iter().all(|name| ready(name)).then_some(()))
    })
}

fn nothing_runs_as_a_service(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("master")?;
    for name in PODS {
        let unit = node.sh(&format!(
            "systemctl show --property=LoadState,ActiveState {name}.service"
        ))?;
        ensure!(unit.contains("LoadState=not-found"), "{name}: {unit}");
        let program = format!("/opt/kubernetes/bin/{name}");
        ensure!(!node.exists(&program)?, "{program} was downloaded");
    }
    let open = node.sh("find /etc/kubernetes/manifests -type f ! -perm 0600; \
         find /var/lib/etcd /var/log/kubernetes -maxdepth 0 ! -perm 0700; \
         stat --format=%n /var/log/kubernetes/audit.log >/dev/null")?;
    ensure!(open.is_empty(), "more open than it has to be: {open}");
    let failed = node.failed_units()?;
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}

fn a_pod_runs(cluster: &mut Cluster) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1"},
        // No node is named: the scheduler finds it.
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"},
            ],
        },
    });
    wait::until("a pod accepted", BOOT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &pod.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    wait::until("web-1 running", BOOT, || {
        let pod = cluster.get(&["pod", "web-1"])?;
        let running = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok((running && pod["spec"]["nodeName"] == "node-1").then_some(()))
    })?;
    let logs = cluster.kubectl(&["logs", "web-1"], "")?.ok()?;
    ensure!(logs.contains("listening on"), "{logs}");
    Ok(())
}

fn what_dies_comes_back(cluster: &mut Cluster) -> Result<()> {
    let attempts = |cluster: &mut Cluster| -> Result<Value> {
        let pod = cluster.get(&["--namespace=kube-system", "pod", "kube-scheduler-master"])?;
        Ok(pod["status"]["containerStatuses"][0].clone())
    };
    let before = attempts(cluster)?;
    let node = cluster.node("master")?;
    node.sh("kill -KILL $(pidof kube-scheduler)")?;
    wait::until("another scheduler", BOOT, || {
        let now = attempts(cluster)?;
        let another = now["containerID"] != before["containerID"];
        Ok((another && now["ready"] == true).then_some(()))
    })
}

/// F12: the kubelet starts first again, and nothing is downloaded twice.
fn a_reboot_needs_nobody(cluster: &mut Cluster) -> Result<()> {
    let asked = cluster.server.log().len();
    cluster.node("master")?.reboot()?;
    cluster.wait_until_ready("master", BOOT)?;
    all_pods_are_ready(cluster)?;
    ensure!(
        cluster.server.log().len() == asked,
        "downloaded again: {:?}",
        cluster.server.log()
    );
    Ok(())
}
