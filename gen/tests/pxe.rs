//! What is rendered for machines that boot from the network: iPXE's scripts,
//! dnsmasq's configuration, and what cloud-init asks for. (P53)

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Folder, PUBLIC_KEY, refused_with};

const DHCP: &str =
    "dhcp: {interface: eth0, network: 10.0.0.0/24, range: 10.0.0.100-10.0.0.199, router: 10.0.0.1}";

/// A master and a node; `pxe` and `more` go into it.
fn settings(pxe: &str, more: &str) -> String {
    format!(
        "name: demo\nserviceAccountKey: ecdsa-p256\nformat: cloud-init\nplatform: pxe\n\
         ssh: {{authorizedKeys: ['{PUBLIC_KEY}']}}\n\
         pxe: {{server: 'http://10.0.0.5:8080', {pxe}}}\n{more}\
         nodes:\n\
         - {{name: m, role: master, address: 10.0.0.10, mac: '52:54:00:00:00:0A'}}\n\
         - {{name: n, role: node, address: 10.0.0.11, mac: 52-54-00-00-00-0b}}\n"
    )
}

fn rendered(settings: &str) -> Folder {
    let folder = Folder::with(settings);
    common::beside(&folder);
    folder.run(&["render", "-o", "out"]);
    folder
}

#[test]
fn every_machine_has_its_script_and_its_seed() {
    let folder = rendered(&settings("cmdline: console=ttyS0 quiet", ""));
    let boot = folder.read("out/pxe/boot.ipxe");
    assert!(boot.starts_with("#!ipxe\n"), "{boot}");
    assert!(
        boot.contains("chain --autofree http://10.0.0.5:8080/${netX/mac:hexhyp}.ipxe"),
        "{boot}"
    );
    for (name, mac) in [("m", "52-54-00-00-00-0a"), ("n", "52-54-00-00-00-0b")] {
        let script = folder.read(&format!("out/pxe/{mac}.ipxe"));
        let kernel = format!(
            "\nkernel http://10.0.0.5:8080/vmlinuz initrd=initrd.img \
             ds=nocloud;s=http://10.0.0.5:8080/{mac}/ console=ttyS0 quiet || goto again\n"
        );
        assert!(script.contains(&kernel), "{script}");
        let initrd = "\ninitrd --name initrd.img http://10.0.0.5:8080/initrd.img || goto again\n";
        assert!(script.contains(initrd), "{script}");
        let seed = |file: &str| folder.read(&format!("out/pxe/{mac}/{file}"));
        assert_eq!(
            seed("user-data"),
            folder.read(&format!("out/{name}/user-data"))
        );
        let meta = seed("meta-data");
        assert!(
            meta.starts_with(&format!("instance-id: demo-{name}-"))
                && meta.ends_with(&format!("\nlocal-hostname: {name}\n")),
            "{meta}"
        );
        assert!(seed("network-config").contains(&mac.replace('-', ":")));
        assert_eq!(seed("vendor-data"), "");
    }
    for (path, (_, mode)) in folder.tree() {
        if path.starts_with("out/pxe") {
            let expected = if path.ends_with('/') { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{path}");
        }
    }
    // A static web server's folder has nothing of dnsmasq's where nobody asked.
    assert!(!folder.path("out/pxe/dnsmasq.conf").exists());
    // The same again is the same.
    let before = folder.tree();
    folder.run(&["render", "-o", "out"]);
    assert_eq!(folder.tree(), before);
    let diff = folder.run(&["diff", "-o", "out"]);
    assert_eq!(String::from_utf8(diff.stdout).unwrap(), "");
}

#[test]
fn each_language_has_its_own_words_for_the_kernel() {
    for (format, words) in [
        (
            "cloud-init",
            "ds=nocloud;s=https://boot/a/52-54-00-00-00-0a/ ",
        ),
        (
            "coreos",
            "cloud-config-url=https://boot/a/52-54-00-00-00-0a/user-data ",
        ),
        (
            "ignition",
            "ignition.firstboot ignition.platform.id=metal flatcar.first_boot=1 \
             ignition.config.url=https://boot/a/52-54-00-00-00-0a/user-data ",
        ),
    ] {
        let text = settings("documents: 'https://boot/a/'", "");
        let text = text.replace("format: cloud-init", &format!("format: {format}"));
        let folder = rendered(&text);
        let script = folder.read("out/pxe/52-54-00-00-00-0a.ipxe");
        assert!(script.contains(words), "{script}");
        assert!(script.contains("kernel http://10.0.0.5:8080/vmlinuz initrd=initrd.img "));
    }
}

#[test]
fn processors_boot_their_own_kernels() {
    let text = settings("images: {amd64: {kernel: linux-1}}", "")
        .replace("role: node,", "role: node, arch: arm64,");
    let folder = Folder::with(&text);
    common::beside(&folder);
    folder.write(
        "kgen.lock",
        &common::lock(
            &"0123456789abcdef".repeat(4),
            &[
                ("amd64", "http://10.0.0.1/knode"),
                ("arm64", "http://10.0.0.1/knode-arm64"),
            ],
        ),
    );
    let output = folder
        .kgen()
        .args(["render", "-o", "out"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let script = |mac: &str| folder.read(&format!("out/pxe/{mac}.ipxe"));
    let amd64 = script("52-54-00-00-00-0a");
    assert!(amd64.contains("/linux-1 initrd=initrd.img "), "{amd64}");
    let arm64 = script("52-54-00-00-00-0b");
    assert!(
        arm64.contains("/vmlinuz-arm64 initrd=initrd-arm64.img "),
        "{arm64}"
    );
    let index = folder.read("out/pxe/machines.json");
    for file in ["linux-1", "initrd.img", "vmlinuz-arm64", "initrd-arm64.img"] {
        assert!(index.contains(file), "{index}");
    }
}

#[test]
fn nodes_with_one_document_have_each_a_seed() {
    let folder = rendered(&settings("", "nodeDocuments: by-hostname\n"));
    let document = folder.read("out/node/user-data");
    assert_eq!(folder.read("out/pxe/52-54-00-00-00-0b/user-data"), document);
    let meta = folder.read("out/pxe/52-54-00-00-00-0b/meta-data");
    assert!(meta.ends_with("local-hostname: n\n"), "{meta}");
}

#[test]
fn what_was_rendered_for_other_cards_goes() {
    let folder = rendered(&settings("", ""));
    folder.write("out/pxe/52-54-00-00-00-0b/note", "mine\n");
    folder.write("out/pxe/vmlinuz", "a kernel\n");
    folder.write("out/pxe/served.jsonl", "");
    let text = folder.read("cluster.yaml").replace("00-0b", "00-0c");
    folder.write("cluster.yaml", &text);
    let diff = folder.kgen().args(["diff", "-o", "out"]).output().unwrap();
    let told = String::from_utf8(diff.stdout).unwrap();
    assert!(told.contains("pxe/52-54-00-00-00-0b.ipxe: goes"), "{told}");
    folder.run(&["render", "-o", "out"]);
    let tree = folder.tree();
    let old: Vec<&String> = tree.keys().filter(|path| path.contains("00-0b")).collect();
    assert_eq!(
        old,
        [
            "out/pxe/52-54-00-00-00-0b/",
            "out/pxe/52-54-00-00-00-0b/note"
        ]
    );
    for path in [
        "out/pxe/vmlinuz",
        "out/pxe/served.jsonl",
        "out/pxe/52-54-00-00-00-0c.ipxe",
    ] {
        assert!(folder.path(path).exists(), "{path}");
    }
}

/// dnsmasq itself reads what is written for it, and would not read nonsense.
#[test]
fn dnsmasq_takes_its_configuration() {
    if Command::new("dnsmasq")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        common::skip(
            "dnsmasq_takes_its_configuration",
            "dnsmasq is not installed",
        );
        return;
    }
    let test = |folder: &Folder| {
        let conf = folder.path("out/pxe/dnsmasq.conf");
        let mut dnsmasq = Command::new("dnsmasq");
        let argument = format!("--conf-file={}", conf.display());
        let output = dnsmasq.arg("--test").arg(argument).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let proxy = "dhcp: {interface: eth0, network: 10.0.0.0/24}";
    let full = DHCP.replace("router:", "dns: [10.0.0.53, 10.0.0.54], router:");
    for (dhcp, expected) in [
        (
            DHCP,
            &[
                "dhcp-range=10.0.0.100,10.0.0.199,255.255.255.0,12h",
                "dhcp-host=52:54:00:00:00:0a,10.0.0.10,m,infinite",
                "dhcp-boot=tag:!ipxe,tag:bios,undionly.kpxe",
                "dhcp-boot=tag:ipxe,http://10.0.0.5:8080/boot.ipxe",
                "dhcp-option=option:router,10.0.0.1",
            ][..],
        ),
        (
            &full,
            &["dhcp-option=option:dns-server,10.0.0.53,10.0.0.54"],
        ),
        (
            proxy,
            &[
                "dhcp-range=10.0.0.0,proxy,255.255.255.0",
                "pxe-service=tag:!ipxe,x86PC,\"iPXE\",undionly.kpxe",
                "dhcp-boot=tag:ipxe,http://10.0.0.5:8080/boot.ipxe",
            ],
        ),
    ] {
        let folder = rendered(&settings(dhcp, ""));
        let text = folder.read("out/pxe/dnsmasq.conf");
        for line in expected {
            assert!(text.lines().any(|l| l == *line), "{line}\n{text}");
        }
        let (good, told) = test(&folder);
        assert!(good && told.contains("syntax check OK"), "{told}\n{text}");
        fs::write(
            folder.path("out/pxe/dnsmasq.conf"),
            text.replace("dhcp-range=", "dhcp-rnge="),
        )
        .unwrap();
        assert!(!test(&folder).0, "nonsense was taken");
    }
}

#[test]
fn network_cards_that_cannot_be_meant() {
    let with = |mac: &str| settings("", "").replace("52-54-00-00-00-0b", mac);
    refused_with(
        &with("52:54:00:00:00"),
        &[
            "[cluster.yaml:9:",
            "nodes[1].mac: \"52:54:00:00:00\" is not the address of a network card",
        ],
    );
    refused_with(
        &with("01:00:5e:00:00:01"),
        &["nodes[1].mac: 01:00:5e:00:00:01 is the address of a group"],
    );
    refused_with(
        &with("52:54:00:00:00:0a"),
        &[
            "[cluster.yaml:9:",
            "nodes[1].mac: 52:54:00:00:00:0a is nodes[0].mac too",
        ],
    );
    refused_with(
        &settings("", "").replace(", mac: 52-54-00-00-00-0b", ""),
        &[
            "[cluster.yaml:9:",
            "nodes[1].mac: missing",
            "write the address of the network card",
        ],
    );
}

#[test]
fn command_lines_that_would_be_cut_off() {
    let length = |settings: &str| {
        let folder = rendered(settings);
        let script = folder.read("out/pxe/52-54-00-00-00-0a.ipxe");
        let line = script
            .lines()
            .find(|line| line.starts_with("kernel "))
            .unwrap();
        let words = line.splitn(3, ' ').nth(2).unwrap();
        words.strip_suffix(" || goto again").unwrap().len()
    };
    let with = |count: usize| settings(&format!("cmdline: '{}'", "a".repeat(count)), "");
    let own = length(&with(1)) - 1;
    let room = 2046 - own;
    assert_eq!(length(&with(room)), 2046);
    refused_with(
        &with(room + 1),
        &[
            "[cluster.yaml:6:",
            "pxe.cmdline: with it the kernel's command line has 2047 bytes",
            "2046",
        ],
    );
    for wrong in ["a=\"b\"", "a ; b", "a && b", "a=${mac}", "a # b", "ä"] {
        refused_with(
            &settings(&format!("cmdline: '{wrong}'"), ""),
            &["[cluster.yaml:6:", "pxe.cmdline: "],
        );
    }
}

#[test]
fn addresses_that_are_somebody_elses() {
    let at = |address: &str| {
        settings(DHCP, "").replace("address: 10.0.0.11", &format!("address: {address}"))
    };
    refused_with(
        &at("10.0.0.1"),
        &[
            "[cluster.yaml:9:",
            "nodes[1].address: 10.0.0.1 is the router's (pxe.dhcp.router)",
        ],
    );
    refused_with(
        &at("10.0.0.5"),
        &["nodes[1].address: 10.0.0.5 is the server's (pxe.server)"],
    );
    refused_with(
        &at("10.1.0.1"),
        &["nodes[1].address: 10.1.0.1 is not within 10.0.0.0/24 (pxe.dhcp.network)"],
    );
    refused_with(
        &at("10.0.0.255"),
        &["nodes[1].address: 10.0.0.255 is the network's own address"],
    );
    let range = |range: &str| settings(&DHCP.replace("10.0.0.100-10.0.0.199", range), "");
    refused_with(
        &range("10.0.0.1-10.0.0.9"),
        &[
            "pxe.dhcp.range: 10.0.0.1 in it is the router's",
            "10.0.0.5 in it is the server's",
        ],
    );
    refused_with(&range("10.0.0.9-10.0.0.1"), &["is not FIRST-LAST"]);
    refused_with(
        &range("10.0.0.9-10.0.1.1"),
        &["pxe.dhcp.range: 10.0.1.1 is not within"],
    );
}

#[test]
fn other_values_that_cannot_be_meant() {
    for (pxe, part) in [
        (
            "images: {amd64: {kernel: ../vmlinuz}}",
            "is not the name of a file",
        ),
        (
            "images: {amd64: {kernel: initrd.img}}",
            "is called initrd.img, as the kernel of amd64 is",
        ),
        (
            "images: {amd64: {kernel: boot.ipxe}}",
            "cannot be called boot.ipxe",
        ),
        (
            "documents: 'boot:80'",
            "pxe.documents: \"boot:80\" is not http://",
        ),
        ("kernel: vmlinuz", "pxe.kernel: unknown key"),
        ("dhcp: {interface: eth0}", "pxe.dhcp.network: missing"),
        (
            "dhcp: {interface: 'eth 0', network: 10.0.0.0/24}",
            "pxe.dhcp.interface",
        ),
        ("dhcp: {interface: eth0, network: 10.0.0.0/31}", "too small"),
        (
            "dhcp: {interface: eth0, network: 'fd00::/64'}",
            "machines boot over IPv4",
        ),
    ] {
        refused_with(&settings(pxe, ""), &[part]);
    }
    // Nothing is made of it where something else hands out documents.
    let folder = Folder::with(&settings("", "").replace("platform: pxe", "platform: generic"));
    common::beside(&folder);
    let output = folder.run(&["render", "-o", "out"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing is made of it"));
    assert!(!folder.path("out/pxe").exists());
}
