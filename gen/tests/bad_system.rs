//! Bad input of the operating system's side: each a clear error with its
//! position, nothing written, and no secret shown.

mod common;

use common::{CERTIFICATE, CLUSTER, Folder, PUBLIC_KEY};

/// What kgen says of settings that it has to refuse.
fn refused(settings: &str) -> String {
    let folder = Folder::with(&format!("{settings}\n{CLUSTER}"));
    folder.write("empty", "");
    folder.write("two", "correct horse\nbattery\n");
    folder.write("key", "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n");
    folder.write("ca", CERTIFICATE);
    folder.write("noshebang", "echo hunter2\n");
    let before = folder.tree();
    let mut kgen = folder.kgen();
    kgen.env("KGEN_TEST_EMPTY", "").env_remove("KGEN_TEST_NONE");
    let output = kgen.args(["--name", "node-1"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{settings}: {told}");
    assert!(output.stdout.is_empty(), "{settings} printed something");
    assert_eq!(folder.tree(), before, "{settings} wrote something");
    for secret in ["hunter2", "correct horse", "battery"] {
        assert!(!told.contains(secret), "{settings}: {told}");
    }
    told
}

#[test]
fn settings_are_refused_with_their_place_and_without_secrets() {
    let other_type = PUBLIC_KEY.replacen("ssh-ed25519", "ssh-rsa", 1);
    let cut = &PUBLIC_KEY[..60];
    let cases: &[(&str, &[&str])] = &[
        // Proxy.
        (
            "proxy: {}",
            &["[cluster.yaml:1:8]", "proxy: neither http nor https"],
        ),
        (
            "proxy: {htp: 'http://a'}",
            &["proxy.htp: unknown key", "did you mean \"http\"?"],
        ),
        (
            "proxy: {http: 'ftp://u:hunter2@p'}",
            &[
                "[cluster.yaml:1:15]",
                "proxy.http: is not the URL of a proxy",
            ],
        ),
        (
            "proxy: {http: 'http://u:hunter2 x@p'}",
            &["is not the URL of a proxy"],
        ),
        (
            "proxy: {http: 'http://u:hunter2@p/path'}",
            &["is not the URL of a proxy"],
        ),
        (
            "proxy: {http: 'http://p:x'}",
            &["is not the URL of a proxy"],
        ),
        // A mistake beside a secret does not show it either.
        (
            "proxy: {http: 'http://u:hunter2@p:1', noProxy: ['a b']}",
            &["[cluster.yaml:1:49]", "\"a b\" is no host"],
        ),
        // References.
        (
            "proxy: {http: '@none'}",
            &["[cluster.yaml:1:15]", "reading none: No such file"],
        ),
        ("proxy: {http: '@'}", &["the name of a file is missing"]),
        ("proxy: {http: '@..'}", &["is not a file"]),
        (
            "proxy: {http: '@empty'}",
            &["proxy.http: is empty, or not one line"],
        ),
        ("proxy: {http: '@two'}", &["not one line of text"]),
        (
            "proxy: {http: 'env:KGEN_TEST_NONE'}",
            &["the environment has no variable KGEN_TEST_NONE"],
        ),
        (
            "proxy: {http: 'env:KGEN_TEST_EMPTY'}",
            &["is empty, or not one line"],
        ),
        ("proxy: {http: 'env:A B'}", &["name of a variable"]),
        // Time.
        ("ntp: {}", &["ntp.servers: missing"]),
        (
            "ntp: {servers: [A_B]}",
            &["[cluster.yaml:1:17]", "neither an address nor a DNS name"],
        ),
        // ssh.
        ("ssh: {}", &["ssh.authorizedKeys: missing"]),
        (
            "ssh: {authorizedKeys: ['@key']}",
            &["[cluster.yaml:1:24]", "is a private key"],
        ),
        ("ssh: {authorizedKeys: ['hunter2 AAAA']}", &["type of key"]),
        (
            "ssh: {authorizedKeys: ['ssh-rsa']}",
            &["is not a public key"],
        ),
        (
            &format!("ssh: {{authorizedKeys: ['{other_type}']}}"),
            &["of another type, or was cut"],
        ),
        (&format!("ssh: {{authorizedKeys: ['{cut}']}}"), &["was cut"]),
        (
            "ssh: {authorizedKeys: ['@empty']}",
            &["there is no key in it"],
        ),
        (
            "ssh: {user: Bob, authorizedKeys: []}",
            &["[cluster.yaml:1:13]", "not the name of an account"],
        ),
        (
            "ssh: {user: operator, authorizedKeys: []}",
            &[
                "[cluster.yaml:1:13]",
                "nobody can log in as",
                "write another",
            ],
        ),
        // Names.
        (
            "hostAliases: [{ip: a, hostnames: [b]}]",
            &["[cluster.yaml:1:20]", "\"a\" is not an address"],
        ),
        (
            "hostAliases: [{ip: 10.0.0.1, hostnames: []}]",
            &["hostAliases[0].hostnames: there is none"],
        ),
        (
            "hostAliases: [{ip: 10.0.0.1, hostnames: [localhost]}]",
            &["loopback's own name"],
        ),
        (
            "hostAliases: [{ip: 10.0.0.1, hostnames: [10.0.0.2]}]",
            &["not a DNS name"],
        ),
        // Registries.
        ("registries: [{}]", &["registries[0].host: missing"]),
        (
            "registries: [{host: 'https://a'}]",
            &["[cluster.yaml:1:21]", "is not HOST or HOST:PORT"],
        ),
        ("registries: [{host: 'a:0'}]", &["is not HOST or HOST:PORT"]),
        (
            "registries: [{host: '../a'}]",
            &["is not HOST or HOST:PORT"],
        ),
        (
            "registries: [{host: a}, {host: a}]",
            &["registries[1]: a is registries[0] too"],
        ),
        (
            "registries: [{host: a, mirrors: [{url: 'https://u:hunter2@m'}]}]",
            &["has a name or password in it, and would be shown"],
        ),
        (
            "registries: [{host: a, mirrors: [{url: 'oci://m'}]}]",
            &["not an http or https address"],
        ),
        (
            "registries: [{host: a, mirrors: [{url: 'https://m', capabilities: [fly]}]}]",
            &["use pull, resolve or push"],
        ),
        (
            "registries: [{host: a, login: {username: u}}]",
            &["login.password: missing"],
        ),
        (
            "registries: [{host: a, login: {username: 'u:v', password: hunter2}}]",
            &["login.username: is empty, or has a colon"],
        ),
        (
            "registries: [{host: a, login: {username: u, password: [hunter2]}}]",
            &["expected one value, found a list"],
        ),
        (
            "registries: [{host: a, ca: '@key'}]",
            &["not one or more certificates"],
        ),
        (
            "registries: [{host: a, ca: hunter2}]",
            &["not one or more certificates"],
        ),
        (
            "registries: [{host: _default, login: {username: u, password: hunter2}}]",
            &["would be sent to every registry"],
        ),
        // Artifacts.
        (
            "artifacts: {versions: {etcd: 3.5.0}}",
            &[
                "[cluster.yaml:1:30]",
                "no lock names etcd 3.5.0 for amd64",
                "pinned: 3.6.14",
            ],
        ),
        (
            "artifacts: {versions: {etc: 3.5.0}}",
            &["did you mean \"etcd\"?"],
        ),
        (
            "artifacts: {mirrors: ['https://u:hunter2@m']}",
            &["and would be shown"],
        ),
        // Files.
        (
            "files: [{path: etc/a, content: a}]",
            &["[cluster.yaml:1:16]", "not the absolute path"],
        ),
        (
            "files: [{path: /etc/../a, content: a}]",
            &["not the absolute path"],
        ),
        (
            "files: [{path: /etc/, content: a}]",
            &["not the absolute path"],
        ),
        (
            "files: [{path: /run/a, content: a}]",
            &["/run is empty after every boot"],
        ),
        (
            "files: [{path: /etc/a}]",
            &["[cluster.yaml:1:9]", "neither content nor source"],
        ),
        (
            "files: [{path: /etc/a, content: a, source: b}]",
            &["both content and source"],
        ),
        (
            "files: [{path: /etc/a, source: none}]",
            &["reading none: No such file"],
        ),
        (
            "files: [{path: /etc/a, mode: '0999', content: a}]",
            &["[cluster.yaml:1:30]", "octal digits"],
        ),
        (
            "files: [{path: /etc/a, mode: '0644', content: '@two'}]",
            &["lets others read a secret"],
        ),
        (
            "files: [{path: /etc/a, owner: 'a b', content: a}]",
            &["not the name of an account"],
        ),
        (
            "files: [{path: /etc/a, content: a}, {path: /etc/a, content: b}]",
            &["files[1]: /etc/a is files[0] too"],
        ),
        (
            "files: [{path: /etc/knode/node.yaml, content: a}]",
            &[
                "[cluster.yaml:1:9]",
                "files[0]: /etc/knode/node.yaml is written by kgen or knode",
            ],
        ),
        (
            "files: [{path: /etc/hosts, content: a}]",
            &["/etc/hosts is written by"],
        ),
        (
            "roles: {node: {files: [{path: /etc/kubernetes/kubelet.yaml, content: a}]}}",
            &["roles.node.files[0]: /etc/kubernetes/kubelet.yaml is written by"],
        ),
        (
            "files: [{path: /etc/kubernetes, content: a}]",
            &["files[0]: /etc/kubernetes is the folder of /etc/kubernetes/"],
        ),
        (
            "files: [{path: /etc/knode.d, content: a}, {path: /etc/knode.d/a, content: a}]",
            &["files[1]: /etc/knode.d/a: /etc/knode.d is a file"],
        ),
        ("roles: {boss: {}}", &["roles.boss: unknown key"]),
        // Units.
        (
            "units: [{name: a, start: true}]",
            &["[cluster.yaml:1:16]", "not the name of a unit"],
        ),
        (
            "units: [{name: a.network, start: true}]",
            &["not the name of a unit"],
        ),
        ("units: [{name: a.service}]", &["nothing is done with it"]),
        (
            "units: [{name: a.service, enable: true, content: '[Service]'}]",
            &["[cluster.yaml:1:35]", "the unit has no [Install]"],
        ),
        (
            "units: [{name: a.service, content: '@two'}]",
            &["everybody may read a unit"],
        ),
        (
            "units: [{name: kubelet.service, content: '[Service]'}]",
            &["/etc/systemd/system/kubelet.service is written by"],
        ),
        (
            "units: [{name: kubelet.service, start: true}]",
            &["kubelet.service is kgen's own"],
        ),
        (
            "units: [{name: kubelet.service, dropIns: [{name: a, content: b}]}]",
            &["not the name of a drop-in"],
        ),
        // Packages and hooks.
        (
            "packages: ['a b']",
            &["[cluster.yaml:1:12]", "not the name of a package"],
        ),
        ("packages: ['-y']", &["not the name of a package"]),
        (
            "hooks: {beforeKnode: '@noshebang'}",
            &["[cluster.yaml:1:22]", "is not a script"],
        ),
        (
            "hooks: {afterReady: 'echo hunter2'}",
            &["is not a script", "#!/bin/sh"],
        ),
        ("hooks: {afterKnode: x}", &["hooks.afterKnode: unknown key"]),
    ];
    for (settings, parts) in cases {
        let told = refused(settings);
        for part in *parts {
            assert!(told.contains(part), "{settings}: {part} is not in\n{told}");
        }
    }
}

/// What is typed inline is hidden in the lines that a finding shows.
#[test]
fn secrets_are_hidden_in_the_lines_around_a_mistake() {
    let told = refused(
        "registries:\n- host: a\n  login:\n    username: u\n    password: hunter2\n  skipVerify: maybe",
    );
    assert!(told.contains("neither true nor false"), "{told}");
    assert!(told.contains("password: *******\n"), "{told}");
}
