//! Identities that machines get, approve and renew by themselves: a pool's
//! machine joins by its token, masters approve what it serves with, and
//! certificates near their end are renewed while everything goes on running.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use knode::sys::http::Pem;
use knode::sys::kubeconfig::{User, with_user};
use knode::sys::pki;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::cluster::{Cluster, Machine};
use tests::command::run;
use tests::scenario::with_kubernetes;
use tests::wait;
use time::OffsetDateTime;

const MACHINES: [Machine; 2] = [
    Machine::new("master", "master"),
    Machine::new("node-1", "node"),
];
const POOLED: &str = "pooled-1";
const POOLED_ADDRESS: u8 = 21;
const SECOND: &str = "pooled-2";
const SECOND_ADDRESS: u8 = 22;
const RENAMED: &str = "pooled-3";
const BOOT: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(90);
const PKI: &str = "/etc/kubernetes/pki";
const ROTATED: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

#[test]
fn identities() -> Result<()> {
    with_kubernetes("identities", || Cluster::new(&MACHINES), whole_way)
}

fn whole_way(cluster: &mut Cluster) -> Result<()> {
    a_pooled_machine_joins_by_its_token(cluster)?;
    what_it_serves_with_was_approved(cluster)?;
    a_second_machine_with_its_name_is_refused_until_it_has_another(cluster)?;
    a_request_for_anothers_names_is_left_alone(cluster)?;
    names_resolve_without_dns(cluster)?;
    objects_come_and_go_with_their_files(cluster)?;
    f24_an_identity_that_expired_while_off_is_bootstrapped_anew(cluster)?;
    f6_certificates_near_their_end_are_renewed_while_all_runs(cluster)?;
    renewed_certificates_survive_what_the_document_writes_again(cluster)?;
    a_named_machine_says_that_its_certificate_expired(cluster)?;
    f6_a_clock_that_is_behind_is_named_and_mended(cluster)
}

/// P15, P60: nobody listed this machine.
fn a_pooled_machine_joins_by_its_token(cluster: &mut Cluster) -> Result<()> {
    let settings = cluster.path("cluster.yaml");
    let mut text = fs::read_to_string(&settings)?;
    text.push_str(
        "pools:\n- {name: workers, labels: {example.com/pool: workers}}\n\
         - {name: late, registration: kubelet, labels: {example.com/pool: late}}\n",
    );
    fs::write(&settings, text)?;
    let document = cluster
        .kgen(&["--pool", "workers", "--format", "cloud-init"])?
        .ok()?;
    // Before its masters: it waits.
    cluster.boot_unnamed(POOLED, POOLED_ADDRESS, POOLED, document.as_bytes())?;
    cluster.boot("master")?;
    cluster.boot("node-1")?;
    for name in [POOLED, "master", "node-1"] {
        cluster.import_images(name, BOOT)?;
        cluster.wait_until_ready(name, BOOT)?;
    }
    let node = cluster.get(&["node", POOLED])?;
    ensure!(
        node["metadata"]["labels"]["example.com/pool"] == "workers",
        "{node:#}"
    );
    let said = cluster.step(POOLED, "bootstrap")?;
    eprintln!("{POOLED}: {}", said["detail"]);
    let machine = cluster.node(POOLED)?;
    let secrets = machine.sh(&format!(
        "stat -L -c '%a %n' {ROTATED} /etc/kubernetes/bootstrap-kubelet.conf"
    ))?;
    ensure!(
        secrets.lines().all(|line| line.starts_with("600 ")),
        "{secrets}"
    );
    ensure!(
        !machine.exists("/var/lib/knode/kube-apiserver-client-kubelet.key")?,
        "the pending key is still there"
    );
    let journal = machine.journal("knode.service")?;
    ensure!(!journal.contains("PRIVATE KEY"), "a key in the journal");
    let token = document
        .split("token: ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    if let Some(token) = token {
        ensure!(!journal.contains(token), "the token in the journal");
    }
    Ok(())
}

/// The API server trusts kubelets by the cluster's authority alone, so logs and
/// exec work only when the serving certificate was approved and signed.
fn what_it_serves_with_was_approved(cluster: &mut Cluster) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "nodeName": POOLED,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "web", "image": "knode.test/web:1", "imagePullPolicy": "Never"}],
        },
    });
    wait::until("the pod accepted", BOOT, || {
        let applied = cluster.kubectl(&["apply", "--filename=-"], &pod.to_string())?;
        Ok(applied.success().then_some(()))
    })?;
    wait::until("logs of a pod on the pooled machine", BOOT, || {
        let logs = cluster.kubectl(&["logs", "web"], "")?.ok()?;
        Ok(logs.contains("listening on").then_some(()))
    })?;
    let shown = cluster
        .kubectl(
            &["exec", "web", "--", "/web", "get", "http://127.0.0.1:8080/"],
            "",
        )?
        .ok()?;
    ensure!(shown.contains("hostname web"), "{shown}");
    let requests = cluster.get(&["csr"])?;
    let served = requests["items"].as_array().into_iter().flatten();
    let approved = served
        .filter(|r| r["spec"]["signerName"] == "kubernetes.io/kubelet-serving")
        .filter(|r| r["spec"]["username"] == format!("system:node:{POOLED}"))
        .any(|r| r["status"]["conditions"][0]["reason"] == "KnodeApproved");
    ensure!(approved, "{requests:#}");
    Ok(())
}

/// P33, P60, F7: two machines with one host name; the second one's kubelet
/// registers itself, once it has a name of its own.
fn a_second_machine_with_its_name_is_refused_until_it_has_another(
    cluster: &mut Cluster,
) -> Result<()> {
    let document = cluster
        .kgen(&["--pool", "late", "--format", "cloud-init"])?
        .ok()?;
    cluster.boot_unnamed(SECOND, SECOND_ADDRESS, POOLED, document.as_bytes())?;
    wait::until("E-NODE-NAME", BOOT, || {
        let failure = cluster.step(SECOND, "bootstrap")?["failure"].clone();
        let says = failure["code"] == "E-NODE-NAME"
            && failure["message"]
                .as_str()
                .is_some_and(|m| m.contains("10.99.0.21"));
        Ok(says.then_some(()))
    })
    .with_context(|| {
        format!(
            "{:#}",
            cluster.status(SECOND).ok().flatten().unwrap_or_default()
        )
    })?;
    let address = |node: &Value| node["status"]["addresses"][0]["address"].clone();
    let first = cluster.get(&["node", POOLED])?;
    ensure!(
        address(&first) == "10.99.0.21",
        "its Node was taken: {first:#}"
    );
    cluster.node(SECOND)?.sh(&format!(
        "hostnamectl set-hostname {SECOND}; systemctl restart --no-block knode.service"
    ))?;
    cluster.import_images(SECOND, BOOT)?;
    cluster.wait_until_ready(SECOND, BOOT)?;
    let second = cluster.get(&["node", SECOND])?;
    ensure!(address(&second) == "10.99.0.22", "{second:#}");
    ensure!(
        second["metadata"]["labels"]["example.com/pool"] == "late",
        "{second:#}"
    );
    let registered = cluster.step(SECOND, "register")?;
    ensure!(registered["state"] == "done", "{registered:#}");
    f7_a_machine_that_is_renamed_gets_another_identity(cluster)?;
    // It leaves the others their processors.
    cluster.node(SECOND)?.poweroff()
}

/// F7: its certificate is for the name that it had.
fn f7_a_machine_that_is_renamed_gets_another_identity(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node(SECOND)?;
    let before = node.read_file(ROTATED)?;
    node.sh(&format!(
        "hostnamectl set-hostname {RENAMED}; systemctl restart --no-block knode.service"
    ))?;
    wait::until("a Node of the new name", BOOT, || {
        let status = cluster.status(SECOND)?.unwrap_or_default();
        Ok((status["node"] == RENAMED && status["ready"] == true).then_some(()))
    })?;
    let node = cluster.get(&["node", RENAMED])?;
    ensure!(
        node["status"]["addresses"][0]["address"] == "10.99.0.22",
        "{node:#}"
    );
    let after = cluster.node(SECOND)?.read_file(ROTATED)?;
    ensure!(after != before, "it has the old name's certificate");
    Ok(())
}

/// A kubelet that was taken over asks for the API server's names.
fn a_request_for_anothers_names_is_left_alone(cluster: &mut Cluster) -> Result<()> {
    let key = pki::new_key()?;
    let request = pki::Request {
        common_name: format!("system:node:{POOLED}"),
        organizations: vec!["system:nodes".to_owned()],
        dns: vec![POOLED.to_owned(), "kubernetes.default.svc".to_owned()],
        addresses: vec!["10.99.0.21".parse()?],
    };
    let body = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "taken-over"},
        "spec": {
            "request": base64(&request.sign(&key)?),
            "signerName": "kubernetes.io/kubelet-serving",
            "usages": ["digital signature", "server auth"],
        },
    });
    let url = "https://10.99.0.11:6443/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let asked = cluster.node(POOLED)?.exec_within(
        &[
            "curl",
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--cacert",
            &format!("{PKI}/ca.crt"),
            "--cert",
            ROTATED,
            "--key",
            ROTATED,
            "--header",
            "Content-Type: application/json",
            "--data-binary",
            "@-",
            url,
        ],
        body.to_string().as_bytes(),
        SOON,
    )?;
    asked.ok()?;
    let journal = |cluster: &mut Cluster| cluster.node("master")?.journal("knode.service");
    wait::until("the master's word on it", SOON, || {
        let told = journal(cluster)?;
        Ok((told.contains("taken-over") && told.contains("kubernetes.default.svc")).then_some(()))
    })?;
    let request = cluster.get(&["csr", "taken-over"])?;
    ensure!(request["status"]["conditions"].is_null(), "{request:#}");
    let told = journal(cluster)?
        .matches("taken-over is left alone")
        .count();
    ensure!(told == 1, "told {told} times");
    cluster
        .kubectl(&["delete", "csr", "taken-over"], "")?
        .ok()?;
    Ok(())
}

/// P9: knode's block of /etc/hosts, by hand here: kgen's side has tests of its own.
fn names_resolve_without_dns(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    let before = node.read_file("/etc/hosts")?;
    let config = node.read_file("/etc/knode/node.yaml")?;
    if !config.contains("hostAliases:") {
        let aliases =
            format!("hostAliases:\n- ip: 10.99.0.11\n  hostnames: [the-master]\n{config}");
        node.write_file("/etc/knode/node.yaml", aliases.as_bytes())?;
    }
    node.sh("systemctl restart --no-block knode.service")?;
    wait::until("the block", SOON, || {
        Ok(node
            .read_file("/etc/hosts")?
            .contains("# END knode")
            .then_some(()))
    })?;
    if !config.contains("hostAliases:") {
        let found = node.sh("getent hosts the-master")?;
        ensure!(found.contains("10.99.0.11"), "{found}");
        ensure!(node.read_file("/etc/hosts")?.starts_with(&before));
        node.write_file("/etc/hosts", before.as_bytes())?;
        wait::until("the block again", SOON, || {
            Ok(node
                .read_file("/etc/hosts")?
                .contains("the-master")
                .then_some(()))
        })?;
        node.write_file("/etc/knode/node.yaml", config.as_bytes())?;
        node.sh("systemctl restart --no-block knode.service")?;
        wait::until("the block's end", SOON, || {
            Ok((node.read_file("/etc/hosts")? == before).then_some(()))
        })?;
    }
    cluster.wait_until_ready("node-1", BOOT)
}

/// P43: what a master's folder has is in the cluster, and what left it is not.
fn objects_come_and_go_with_their_files(cluster: &mut Cluster) -> Result<()> {
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: '1'}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
         metadata: {name: kept}\nrules: []\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: before}\ndata: {a: '1'}\n";
    let exists = |cluster: &Cluster, what: &[&str]| -> Result<bool> {
        let arguments = [&["get", "--ignore-not-found", "--output=name"], what].concat();
        Ok(!cluster.kubectl(&arguments, "")?.ok()?.is_empty())
    };
    cluster
        .kubectl(&["create", "configmap", "before", "--from-literal=a=0"], "")?
        .ok()?;
    let folder = "/etc/knode/objects";
    let master = cluster.node("master")?;
    master.sh(&format!("mkdir -p {folder}"))?;
    master.write_file(&format!("{folder}/own.yaml"), own.as_bytes())?;
    wait::until("the objects", SOON, || {
        let there =
            exists(cluster, &["configmap", "kept"])? && exists(cluster, &["clusterrole", "kept"])?;
        Ok(there.then_some(()))
    })?;
    cluster
        .kubectl(
            &[
                "patch",
                "configmap",
                "kept",
                "--patch",
                "{\"data\": {\"a\": \"2\"}}",
            ],
            "",
        )?
        .ok()?;
    let value = |cluster: &Cluster, name: &str| -> Result<Value> {
        Ok(cluster.get(&["configmap", name])?["data"]["a"].clone())
    };
    ensure!(
        value(cluster, "before")? == "1",
        "it is changed as the file says"
    );
    wait::until("the change undone", SOON, || {
        Ok((value(cluster, "kept")? == "1").then_some(()))
    })?;
    cluster
        .node("master")?
        .sh(&format!("rm {folder}/own.yaml"))?;
    wait::until("the objects' end", SOON, || {
        let there =
            exists(cluster, &["configmap", "kept"])? || exists(cluster, &["clusterrole", "kept"])?;
        Ok((!there).then_some(()))
    })?;
    ensure!(
        exists(cluster, &["configmap", "before"])?,
        "it was there before, and is not ours to remove"
    );
    ensure!(exists(cluster, &["namespace", "kube-system"])?);
    Ok(())
}

/// F24: a machine that was off for longer than its certificate was good.
fn f24_an_identity_that_expired_while_off_is_bootstrapped_anew(
    cluster: &mut Cluster,
) -> Result<()> {
    let authority = cluster.path("pki").join("ca");
    let node = cluster.node(POOLED)?;
    let before = node.read_file(ROTATED)?;
    // The link's file, as the machine sees it.
    let file = node.sh(&format!("readlink -f {ROTATED}"))?;
    node.poweroff()?;
    let then = OffsetDateTime::now_utc() - time::Duration::days(400);
    let (mut expired, key) = older(&authority, before.as_bytes(), then)?;
    expired.extend(key.0);
    fs::write(
        node.disk().join(file.trim().trim_start_matches('/')),
        &expired,
    )?;
    node.start()?;
    cluster.wait_until_ready(POOLED, BOOT)?;
    let said = cluster.step(POOLED, "bootstrap")?;
    let after = cluster.node(POOLED)?.read_file(ROTATED)?;
    let new = after != before && after.as_bytes() != expired;
    ensure!(new && after.contains("PRIVATE KEY"), "{said:#}");
    let detail = said["detail"].as_str().unwrap_or_default();
    ensure!(detail.starts_with("got system:node:"), "{detail}");
    Ok(())
}

/// F6, B13, P17: eleven months later.
fn f6_certificates_near_their_end_are_renewed_while_all_runs(cluster: &mut Cluster) -> Result<()> {
    let processes = |cluster: &mut Cluster, name: &str, units: &[&str]| -> Result<Vec<String>> {
        let node = cluster.node(name)?;
        let units = units.iter();
        units
            .map(|unit| node.sh(&format!("systemctl show --property=MainPID {unit}")))
            .collect()
    };
    let pairs = [
        "apiserver",
        "apiserver-kubelet-client",
        "apiserver-etcd-client",
        "front-proxy-client",
        "etcd/server",
        "etcd/peer",
        "etcd/healthcheck-client",
        "kubelet",
    ];
    let kubeconfigs = ["controller-manager", "scheduler", "kube-proxy"];
    let stay = ["kube-apiserver", "etcd", "kubelet", "containerd"];
    let restart = ["kube-controller-manager", "kube-scheduler", "kube-proxy"];
    let (stayed, restarted) = (
        processes(cluster, "master", &stay)?,
        processes(cluster, "master", &restart)?,
    );
    age(cluster, "master", &pairs, &kubeconfigs, 300)?;
    age(cluster, "node-1", &["kubelet"], &["kube-proxy"], 300)?;

    for (name, certificates) in [("master", 11), ("node-1", 2)] {
        let told = wait::until(&format!("{name}: certificates renewed"), BOOT, || {
            ensure!(
                cluster.kubectl(&["get", "--raw", "/readyz"], "")?.success(),
                "the API server does not answer"
            );
            let step = cluster.step(name, "certificates")?;
            let detail = step["detail"].as_str().unwrap_or_default().to_owned();
            Ok((step["state"] == "done" && detail.contains("renewed")).then_some(detail))
        })
        .with_context(|| {
            format!(
                "{:#}",
                cluster.status(name).ok().flatten().unwrap_or_default()
            )
        })?;
        eprintln!("{name}: {told}");
        let renewed = told.split("renewed ").nth(1).unwrap_or_default();
        ensure!(renewed.split(", ").count() == certificates, "{told}");
        cluster.wait_until_ready(name, BOOT)?;
    }
    ensure!(
        processes(cluster, "master", &stay)? == stayed,
        "restarted, though it reads its files again by itself"
    );
    for (before, after) in restarted
        .iter()
        .zip(processes(cluster, "master", &restart)?)
    {
        ensure!(*before != after, "not restarted: {after}");
    }
    // Judged by another implementation than the one that made them.
    let pki = cluster.path("pki");
    for pair in pairs {
        let authority = match pair {
            "front-proxy-client" => "front-proxy-ca.crt",
            "apiserver-etcd-client" => "etcd/ca.crt",
            etcd if etcd.starts_with("etcd/") => "etcd/ca.crt",
            _ => "ca.crt",
        };
        let node = cluster.node("master")?;
        let certificate = node.read_file(&format!("{PKI}/{pair}.crt"))?;
        let mode = node.sh(&format!("stat -c %a {PKI}/{pair}.key"))?;
        ensure!(mode.trim() == "600", "{pair}: {mode}");
        let file = cluster.path("checked.crt");
        fs::write(&file, certificate)?;
        let mut verify = Command::new("openssl");
        verify
            .args(["verify", "-x509_strict", "-CAfile"])
            .arg(pki.join(authority))
            .arg(&file);
        run(&mut verify)?;
        let mut ends = Command::new("openssl");
        // 300 days.
        ends.args(["x509", "-noout", "-checkend", "25920000", "-in"])
            .arg(&file);
        run(&mut ends).with_context(|| format!("{pair} is not new"))?;
    }
    // What they answer with, not only what is on their disks.
    for (server, what) in [
        ("10.99.0.11:6443", "API server"),
        ("10.99.0.11:10250", "the master's kubelet"),
        ("10.99.0.12:10250", "node-1's kubelet"),
        ("10.99.0.11:2379", "etcd"),
    ] {
        wait::until(&format!("{what} serving with the new one"), BOOT, || {
            let mut client = cluster.network().command("sh");
            client.args([
                "-c",
                &format!(
                    "openssl s_client -connect {server} </dev/null 2>/dev/null \
                 | openssl x509 -noout -checkend 25920000"
                ),
            ]);
            run(&mut client).map(Some)
        })?;
    }
    let proxy = cluster
        .node("node-1")?
        .read_file("/etc/kubernetes/kube-proxy.conf")?;
    ensure!(
        proxy.contains(ROTATED) && !proxy.contains("-key-data"),
        "{proxy}"
    );
    // The API server closes its connections to kubelets when it sees its new
    // certificate; a request that was just being sent is to be sent again.
    wait::until("logs with the new certificates", SOON, || {
        cluster.kubectl(&["logs", "web"], "")?.ok().map(Some)
    })?;
    Ok(())
}

/// coreos-cloudinit writes the document's files again at every boot; here the
/// test does.
fn renewed_certificates_survive_what_the_document_writes_again(
    cluster: &mut Cluster,
) -> Result<()> {
    let path = format!("{PKI}/kubelet.crt");
    let node = cluster.node("node-1")?;
    let renewed = node.read_file(&path)?;
    let old = node.read_file("/root/old/kubelet.crt")?;
    let key = node.read_file("/root/old/kubelet.key")?;
    let rotated = node.sh(&format!("readlink -f {ROTATED}"))?;
    node.poweroff()?;
    // F24: a kubelet would not start with it; the document's identity is good.
    fs::write(
        node.disk().join(rotated.trim().trim_start_matches('/')),
        "cut",
    )?;
    for (name, text) in [("crt", old), ("key", key)] {
        let path = node
            .disk()
            .join(format!("etc/kubernetes/pki/kubelet.{name}"));
        fs::write(path, text)?;
    }
    node.start()?;
    cluster.wait_until_ready("node-1", BOOT)?;
    let now = cluster.node("node-1")?.read_file(&path)?;
    ensure!(now == renewed, "the renewed one is not back");
    Ok(())
}

/// A named machine has no token: it says what is wrong, and what to do.
fn a_named_machine_says_that_its_certificate_expired(cluster: &mut Cluster) -> Result<()> {
    let node = cluster.node("node-1")?;
    node.sh("systemctl stop kubelet.service; rm -r /var/lib/kubelet/pki")?;
    age(cluster, "node-1", &[], &["kubelet"], 400)?;
    wait::until("E-IDENTITY-CERT", SOON, || {
        let step = cluster.step("node-1", "identity")?;
        let failure = &step["failure"];
        let says = failure["code"] == "E-IDENTITY-CERT"
            && failure["message"]
                .as_str()
                .is_some_and(|m| m.contains("expired on"));
        Ok(says.then_some(()))
    })
}

/// F6: a clock that stands before the certificate's first day; once it is right, all is well.
fn f6_a_clock_that_is_behind_is_named_and_mended(cluster: &mut Cluster) -> Result<()> {
    // The certificate is moved, since machines on one computer have one clock.
    age(cluster, "node-1", &[], &["kubelet"], -2)?;
    let failure = wait::until("E-CLOCK", SOON, || {
        let failure = cluster.step("node-1", "identity")?["failure"].clone();
        Ok((failure["code"] == "E-CLOCK").then_some(failure))
    })?;
    let message = failure["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains(" h ") && message.contains("before the kubelet's certificate begins"),
        "{message}"
    );
    age(cluster, "node-1", &[], &["kubelet"], 0)?;
    cluster.wait_until_ready("node-1", BOOT)
}

/// Makes certificates of a machine so many days older, as if it had been
/// rendered then, and starts knode anew.
fn age(
    cluster: &mut Cluster,
    name: &str,
    pairs: &[&str],
    kubeconfigs: &[&str],
    days: i64,
) -> Result<()> {
    let then = OffsetDateTime::now_utc() - time::Duration::days(days);
    let pki = cluster.path("pki");
    let node = cluster.node(name)?;
    let mut config = node.read_file("/etc/knode/node.yaml")?;
    let mut changes: Vec<(String, Vec<u8>)> = Vec::new();
    for stem in pairs {
        let authority = match *stem {
            "front-proxy-client" => "front-proxy-ca",
            "apiserver-etcd-client" => "etcd/ca",
            etcd if etcd.starts_with("etcd/") => "etcd/ca",
            _ => "ca",
        };
        let path = format!("{PKI}/{stem}");
        let old = node.read_file(&format!("{path}.crt"))?;
        let (certificate, key) = older(&pki.join(authority), old.as_bytes(), then)?;
        node.write_file(&format!("/root/old/{stem}.crt"), &certificate)?;
        node.write_file(&format!("/root/old/{stem}.key"), &key.0)?;
        changes.push((format!("{path}.crt"), certificate));
        changes.push((format!("{path}.key"), key.0));
    }
    for stem in kubeconfigs {
        let path = format!("/etc/kubernetes/{stem}.conf");
        let text = node.read_file(&path)?;
        let read = knode::sys::kubeconfig::Kubeconfig::parse(&text)?;
        let User::Embedded { certificate, .. } = read.user else {
            anyhow::bail!("{path} has no certificate");
        };
        let (certificate, key) = older(&pki.join("ca"), &certificate, then)?;
        let user = User::Embedded { certificate, key };
        changes.push((path, with_user(&text, &user)?.0));
    }
    for (path, bytes) in changes {
        let hex = |bytes: &[u8]| -> String {
            Sha256::digest(bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        };
        let old = hex(node.read_file(&path)?.as_bytes());
        ensure!(config.contains(&old), "{path} is not in the manifest");
        config = config.replace(&old, &hex(&bytes));
        node.write_file(&path, &bytes)?;
    }
    node.write_file("/etc/knode/node.yaml", config.as_bytes())?;
    node.sh("systemctl restart --no-block knode.service")?;
    Ok(())
}

/// A certificate as its authority would have issued it then.
fn older(
    authority: &std::path::Path,
    certificate: &[u8],
    then: OffsetDateTime,
) -> Result<(Vec<u8>, Pem)> {
    let bundle = fs::read(authority.with_extension("crt"))?;
    let key = Pem(fs::read(authority.with_extension("key"))?);
    Ok(pki::reissue("it", certificate, &bundle, &key, then)?)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
