//! `kgen validate`: the settings, Ignition's documents, and any document's size.

mod common;

use std::fs;
use std::io::Write as _;

use common::linter::{accepted, doubted, refused, validate};
use common::{CLUSTER, Folder, lock};

#[test]
fn what_kgen_renders_is_valid_in_every_language() {
    let odd = format!(
        "runtime: {{source: distribution}}\napiServer: {{extraArgs: {{x: '$private_ipv4 50%'}}}}\n{CLUSTER}"
    );
    for settings in [CLUSTER, &odd] {
        let folder = Folder::with(settings);
        for format in ["coreos", "cloud-init", "ignition"] {
            folder.run(&["render", "-o", format, "--format", format]);
            for name in ["master", "node-1", "etcd-1"] {
                let path = format!("{format}/{name}/user-data");
                let output = folder.run(&["validate", "--strict", &path]);
                let told = String::from_utf8(output.stdout).unwrap();
                assert_eq!(told, format!("{path}: valid for {format}\n"));
                assert!(output.stderr.is_empty());
            }
        }
    }
}

fn ignition_file(file: &str) -> String {
    format!("{{\"ignition\":{{\"version\":\"3.3.0\"}},\"storage\":{{\"files\":[{{{file}}}]}}}}")
}

fn ignition_unit(text: &str) -> String {
    format!(
        "{{\"ignition\":{{\"version\":\"3.3.0\"}},\"systemd\":{{\"units\":[{{\"name\":\"a.service\",\"contents\":\"{text}\"}}]}}}}"
    )
}

#[test]
fn ignition_documents() {
    let file = |more: &str| ignition_file(&format!("\"path\":\"/a\",\"overwrite\":true{more}"));
    let at = "1:53";
    accepted(&file(
        ",\"mode\":420,\"contents\":{\"source\":\"data:,a%0A\"}",
    ));
    refused(&file(",\"mode\":644"), at, "write 420 for 644");
    refused(&file(",\"mode\":\"0644\""), at, "modes are decimal numbers");
    refused(&file(",\"mode\":70000"), at, "not a number up to 4095");
    refused(&file(",\"modes\":420"), "1:83", "modes: unknown key");
    doubted(
        &ignition_file("\"path\":\"/a\""),
        at,
        "overwrite is not true",
    );
    refused(
        &file("").replace("/a", "/run/a"),
        at,
        "not the machine's own",
    );
    doubted(&file("").replace("/a", "/usr/a"), at, "read-only");
    let contents = |contents: &str| file(&format!(",\"contents\":{{{contents}}}"));
    let hash = "\"verification\":{\"hash\":\"sha256-00\"}";
    refused(
        &contents(&format!("\"source\":\"data:,a\",{hash}")),
        "1:94",
        "its sha256 is another",
    );
    refused(
        &contents("\"source\":\"data:,a\",\"compression\":\"gzip\""),
        "1:94",
        "not in gzip",
    );
    refused(
        &contents("\"source\":\"data:;base64,!\""),
        "1:94",
        "not a data URL",
    );
    doubted(
        &contents("\"source\":\"http://a/b\""),
        "1:94",
        "without verification.hash",
    );
    accepted(&contents(&format!("\"source\":\"http://a/b\",{hash}")));
    doubted(
        &file("").replace("3.3.0", "3.5.0"),
        "1:1",
        "not understood by older systems",
    );
    refused(
        &file("").replace("3.3.0", "2.3.0"),
        "1:1",
        "not one of 3.0.0",
    );
    refused("{\"storage\":{}}", "1:1", "ignition.version is missing");
    refused("{\"ignition\":,}", "1:13", "not valid JSON");
    doubted(
        &ignition_unit("[Unit]\\nConditionFileIsExecutable=/a\\n"),
        at,
        "hides",
    );
    refused(
        &ignition_unit("[Match]\\n").replace("a.service", "a.network"),
        at,
        "no unit",
    );
    refused(
        &ignition_unit("[Service]\\nExecStart=/a 5%\\n"),
        at,
        "no specifier",
    );
    let why = "a.service: is enabled, but has no [Install]";
    let ignition = ignition_unit("[Service]\\nExecStart=/bin/a\\n")
        .replace("\"name\"", "\"enabled\":true,\"name\"");
    refused(&ignition, "1:53", why);
}

#[test]
fn documents_that_do_not_get_through() {
    let document = format!("#cloud-config\n# {}\nhostname: a\n", "x".repeat(20_000));
    accepted(&document);
    let (status, told) = validate(&document, &["--platform", "aws"]);
    assert_eq!(status, 2, "{told}");
    assert!(
        told.contains("doc: counts 20,029 bytes on aws, which takes 16,384"),
        "{told}"
    );
    assert!(told.contains("compressed with gzip it fits"), "{told}");
    let folder = Folder::empty();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(document.as_bytes()).unwrap();
    fs::write(folder.path("doc"), gzip.finish().unwrap()).unwrap();
    let told = folder.user_data(&["validate", "doc", "--platform", "aws"]);
    assert_eq!(told, "doc: valid for cloud-init on aws\n");
    let output = folder
        .kgen()
        .args(["validate", "doc", "--platform", "digitalocean"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn findings_never_show_the_document() {
    // The line, and those around it, may be a key's.
    let document = "#cloud-config\nwrite-files: [hunter2]\npassword: hunter2\na: [hunter2\n";
    let (_, told) = validate(document, &[]);
    assert!(!told.contains("hunter2"), "{told}");
    let (_, told) = validate("{\"ignition\":\"hunter2\" x}", &[]);
    assert!(!told.contains("hunter2"), "{told}");
    let folder = Folder::with(CLUSTER);
    let master = folder.user_data(&["--role", "master", "--format", "ignition"]);
    let (status, told) = validate(&master.replace("\"mode\":384", "\"mode\":600"), &[]);
    assert_eq!(status, 2);
    assert!(told.len() < 10_000, "{}", told.len());
}

#[test]
fn settings_are_validated_without_a_trace() {
    let folder = Folder::with(CLUSTER);
    let before = folder.tree();
    assert_eq!(
        folder.user_data(&["validate"]),
        "cluster.yaml: valid, 4 machines\n"
    );
    assert_eq!(folder.tree(), before);
    let run = |args: &[&str]| {
        let output = folder.kgen().args(args).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), told)
    };
    folder.write(
        "cluster.yaml",
        &format!("nme: x\nnetwork: {{mtu: 1}}\n{CLUSTER}"),
    );
    let (status, told) = run(&["validate"]);
    assert_eq!(status, 2);
    assert!(
        told.contains("nme: unknown key") && told.contains("network.mtu"),
        "{told}"
    );
    // A lock that lacks something, and a platform that takes less.
    folder.write(
        "cluster.yaml",
        &format!("kubernetesVersion: 1.35.0\n{CLUSTER}"),
    );
    let (status, told) = run(&["validate"]);
    assert!(status == 2 && told.contains("1.35.0 for amd64"), "{told}");
    folder.write("cluster.yaml", CLUSTER);
    let (status, told) = run(&["validate", "--platform", "aws"]);
    assert!(
        status == 2 && told.contains("user-data of node-1"),
        "{told}"
    );
}

#[test]
fn warnings_are_told_and_fatal_when_strict() {
    let masters = "nodes:\n- {name: a, role: master, address: 10.0.0.1}\n\
        - {name: b, role: master, address: 10.0.0.2}\n- {name: c, role: master, address: 10.0.0.3}\n";
    for (settings, why) in [
        (
            format!("balancer: false\n{masters}"),
            "endpoint: is one of 3 masters",
        ),
        (
            format!("endpoint: 10.0.0.2\n{masters}"),
            "endpoint: is one of 3 masters",
        ),
        (
            format!("network: {{metadataGuard: false}}\n{CLUSTER}"),
            "network.metadataGuard",
        ),
        (
            format!("runtime: {{source: distribution}}\n{CLUSTER}"),
            "containerd 2.0",
        ),
    ] {
        let folder = Folder::with(&settings);
        for args in [&["validate"][..], &["render", "-o", "out"]] {
            let output = folder.run(args);
            let told = String::from_utf8(output.stderr).unwrap();
            assert!(
                told.contains("⚠ cluster.yaml: ") && told.contains(why),
                "{told}"
            );
        }
        let output = folder
            .kgen()
            .args(["validate", "--strict"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{settings}");
    }
    // A balancer on each machine is a way to all of them.
    for settings in [
        format!("endpoint: api.example.com\n{masters}"),
        masters.to_owned(),
        format!("endpoint: 10.0.0.2\nbalancer: true\n{masters}"),
    ] {
        let folder = Folder::with(&settings);
        folder.write(
            "kgen.lock",
            &lock(&"00".repeat(32), &[("amd64", "http://a/k")]),
        );
        folder.run(&["validate", "--strict"]);
    }
}
