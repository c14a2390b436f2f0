//! Three languages, one machine: the documents bring the same, and Ignition
//! itself makes of its document what was meant. (B1)

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;

use common::landing::Landing;
use common::{CLUSTER, Folder, lock, skip};
use sha2::{Digest as _, Sha256};

/// Where Debian keeps Ignition, which nobody types.
const IGNITION: &str = "/usr/lib/dracut/modules.d/30ignition/ignition";
const VALIDATE: &str = "/usr/bin/ignition-validate";

/// What needs care somewhere: addresses that would be replaced, other
/// languages' quotes, long lines, bytes that are not ASCII.
const ODD: &str = "\
runtime: {source: distribution}
apiServer: {extraArgs: {x: '$private_ipv4 50% \"q\" é \\'}}
kubelet: {config: {a: \"$private_ipv4 {{ x }}\", b: 'yes', c: \"MIME-Version: 1\", d: \"?#%41\"}}
nodes:
- {name: 'off', role: master, address: 10.0.0.10}
- {name: '1234', role: node, address: 10.0.0.11, labels: {a: 'no'}}
";

fn ignition(folder: &Folder, name: &str) -> String {
    folder.user_data(&["--name", name, "--format", "ignition"])
}

#[test]
fn the_three_languages_bring_the_same() {
    let long = format!(
        "apiServer: {{extraArgs: {{x: '{}'}}}}\n{CLUSTER}",
        "y".repeat(3000)
    );
    for (settings, names) in [
        (CLUSTER, &["master", "node-1", "etcd-1"][..]),
        (ODD, &["off", "1234"]),
        (&long, &["master"]),
    ] {
        let folder = Folder::with(settings);
        for name in names {
            let [coreos, cloud_init] = ["coreos", "cloud-init"].map(|format| {
                Landing::of_cloud_config(&folder.user_data(&["--name", name, "--format", format]))
            });
            let ignition = Landing::of_ignition(&ignition(&folder, name));
            assert_eq!(coreos, cloud_init, "{name}");
            assert_eq!(coreos, ignition, "{name}");
            assert_eq!(ignition.hostname, *name);
            let [target] = ignition.enabled.iter().collect::<Vec<_>>()[..] else {
                panic!("{:?}", ignition.enabled)
            };
            assert!(target.starts_with("kubernetes-") && target.ends_with(".target"));
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = Folder::with(CLUSTER);
    for name in ["master", "node-1", "etcd-1"] {
        assert_eq!(ignition(&folder, name), ignition(&folder, name));
    }
}

#[test]
fn ignition_validate_has_nothing_to_say() {
    if !Path::new(VALIDATE).exists() {
        return skip(
            "ignition_validate_has_nothing_to_say",
            "no ignition-validate here (Debian: ignition)",
        );
    }
    for (settings, names) in [
        (CLUSTER, &["master", "node-1", "etcd-1"][..]),
        (ODD, &["off", "1234"]),
    ] {
        let folder = Folder::with(settings);
        for name in names {
            let (passed, told) = validate(&ignition(&folder, name));
            assert!(passed && told.is_empty(), "{name}: {told}");
        }
    }
    // The check itself can fail.
    let text = ignition(&Folder::with(CLUSTER), "master");
    assert!(!validate(&text.replace("\"mode\":384", "\"mode\":\"0600\"")).0);
    let (_, told) = validate(&text.replace("\"overwrite\"", "\"overwrit\""));
    assert!(told.contains("warning"), "{told}");
}

fn validate(text: &str) -> (bool, String) {
    let mut validate = Command::new(VALIDATE)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = validate.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let Output {
        status,
        stdout,
        stderr,
    } = validate.wait_with_output().unwrap();
    let told = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.success(), told)
}

/// Serves `body` to everybody for as long as the test lives; the URL.
fn serve(body: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/knode", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            assert!(read > 0);
            let length = body.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    url
}

/// Ignition's own stages, on a root of their own. What they said, if the last
/// one failed.
fn execute(folder: &Folder, document: &str) -> Result<(), String> {
    let root = folder.path("root");
    fs::create_dir_all(root.join("etc/selinux")).unwrap();
    fs::create_dir_all(folder.path("bin")).unwrap();
    // It insists on labels at the end; there are none on this root.
    folder.write(
        "root/etc/selinux/config",
        "SELINUX=disabled\nSELINUXTYPE=none\n",
    );
    folder.write("bin/setfiles", "#!/bin/sh\nexec cat >/dev/null\n");
    fs::set_permissions(
        folder.path("bin/setfiles"),
        PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    folder.write("config.ign", document);
    let path = format!(
        "{}:{}",
        folder.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    for stage in ["fetch", "files"] {
        let output = Command::new(IGNITION)
            .args([
                "-log-to-stdout",
                "-platform",
                "file",
                "-stage",
                stage,
                "-root",
            ])
            .arg(&root)
            .arg("-config-cache")
            .arg(folder.path("cache.json"))
            .arg("-state-file")
            .arg(folder.path("state"))
            .arg("-neednet")
            .arg(folder.path("neednet"))
            .env("IGNITION_CONFIG_FILE", folder.path("config.ign"))
            .env("PATH", &path)
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    Ok(())
}

#[test]
fn ignition_makes_of_it_what_was_meant() {
    let root = fs::metadata("/proc/self").is_ok_and(|meta| {
        use std::os::unix::fs::MetadataExt;
        meta.uid() == 0
    });
    if !Path::new(IGNITION).exists() || !root {
        return skip(
            "ignition_makes_of_it_what_was_meant",
            "needs root and Ignition itself (Debian: ignition)",
        );
    }
    let knode = b"not quite knode\n";
    let url = serve(knode);
    let sha256 = units::types::to_hex(&Sha256::digest(knode));
    for (settings, name) in [(CLUSTER, "master"), (CLUSTER, "etcd-1"), (ODD, "1234")] {
        let folder = Folder::with(settings);
        folder.write("kgen.lock", &lock(&sha256, &[("amd64", &url)]));
        let text = ignition(&folder, name);
        execute(&folder, &text).unwrap();
        let landing = Landing::of_cloud_config(&folder.user_data(&["--name", name]));
        let read = |path: &str| {
            let path = folder.path("root").join(path.trim_start_matches('/'));
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            (mode, fs::read(&path).unwrap())
        };
        for (path, expected) in &landing.files {
            assert_eq!(read(path), *expected, "{path}");
        }
        assert_eq!(
            read("/etc/hostname"),
            (0o644, format!("{name}\n").into_bytes())
        );
        assert_eq!(read("/opt/knode/bin/knode"), (0o755, knode.to_vec()));
        let (_, preset) = read("/etc/systemd/system-preset/20-ignition.preset");
        let enabled: String = landing
            .enabled
            .iter()
            .map(|t| format!("enable {t}\n"))
            .collect();
        assert_eq!(String::from_utf8(preset).unwrap(), enabled);
        let pki = fs::metadata(folder.path("root/etc/kubernetes/pki"));
        if let Ok(pki) = pki {
            assert_eq!(pki.permissions().mode() & 0o7777, 0o700);
        }
        // Nothing else came.
        let mut tree = folder.tree();
        tree.retain(|path, _| path.starts_with("root/") && !path.ends_with('/'));
        let own = [
            "hostname",
            "selinux/config",
            "systemd/system-preset/20-ignition.preset",
            ".ignition-result.json",
        ];
        assert_eq!(
            tree.len(),
            landing.files.len() + own.len() + 1,
            "{:?}",
            tree.keys()
        );
    }
    // Other bytes than were promised never become a program.
    let folder = Folder::with(CLUSTER);
    folder.write("kgen.lock", &lock(&"00".repeat(32), &[("amd64", &url)]));
    let told = execute(&folder, &ignition(&folder, "master")).unwrap_err();
    assert!(told.contains("hash verification failed"), "{told}");
    assert!(!folder.path("root/opt/knode/bin/knode").exists());
}

#[test]
fn knode_is_fetched_by_ignition_only_where_there_is_no_choice() {
    let sha256 = "0123456789abcdef".repeat(4);
    let one = ("amd64", "http://10.0.0.1/knode");
    for (sources, fetched) in [
        (&[one][..], true),
        (&[one, ("amd64", "http://10.0.0.2/knode")], false),
        (&[one, ("arm64", "http://10.0.0.1/knode-arm")], false),
    ] {
        let folder = Folder::with(CLUSTER);
        folder.write("kgen.lock", &lock(&sha256, sources));
        let text = ignition(&folder, "node-1");
        let remote = format!(
            "{{\"path\":\"/opt/knode/bin/knode\",\"mode\":493,\"overwrite\":true,\"contents\":\
             {{\"source\":\"http://10.0.0.1/knode\",\"verification\":{{\"hash\":\"sha256-{sha256}\"}}}}}}"
        );
        assert_eq!(text.contains(&remote), fetched, "{sources:?}");
        assert_eq!(text.contains("sha256-"), fetched);
    }
}
