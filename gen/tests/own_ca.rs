//! The operator's own authorities: used as they are, or refused with what to
//! do. openssl makes them, and judges what they have signed. (P12, P16)

mod common;

use std::process::{Command, Output};

use common::{CLUSTER, Document, Folder, refused_in};
use kgen::cluster::Cluster;
use kgen::pki::{AltName, leaves_of, of_machine};
use kgen::report::Source;
use kgen::settings;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A script that makes an authority, in a folder with a cluster.yaml.
fn made_by(script: &str) -> Folder {
    let folder = Folder::with(CLUSTER);
    let script = format!("mkdir -m 700 -p pki/etcd; umask 077; {script}");
    let output = Command::new("sh")
        .args(["-ec", &script])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", text(&output));
    folder
}

const EC: &str = "openssl ecparam -name prime256v1 -genkey -noout -out";

/// An authority that signs itself, with more to say.
fn root(options: &str) -> String {
    format!(
        "{EC} pki/ca.key; openssl req -x509 -new -key pki/ca.key -subj '/O=Example/CN=Own' \
         -out pki/ca.crt {options}"
    )
}

/// root.crt → pki/ca.crt, which may sign leaves only, and its key.
fn intermediate() -> String {
    format!(
        "{EC} root.key; openssl req -x509 -new -key root.key -subj '/CN=Root' -days 900 \
         -addext keyUsage=critical,keyCertSign -out root.crt; \
         {EC} pki/ca.key; openssl req -new -key pki/ca.key -subj '/O=Example/CN=Below' -out ca.csr; \
         printf 'basicConstraints=critical,CA:TRUE,pathlen:0\\nkeyUsage=critical,keyCertSign\\n\
         subjectKeyIdentifier=hash\\nauthorityKeyIdentifier=keyid\\n' > ext; \
         openssl x509 -req -in ca.csr -CA root.crt -CAkey root.key -CAcreateserial -days 800 \
         -extfile ext -out pki/ca.crt"
    )
}

fn verify(folder: &Folder, args: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict"])
        .args(args)
        .current_dir(folder.path(""))
        .output()
        .expect("openssl, which these tests need (Debian: openssl)");
    (output.status.success(), text(&output))
}

/// P12: the chain, the purpose, and every name and address, of every leaf of
/// every role, whether the authority is ours or the operator's.
#[test]
fn every_leaf_of_every_role_holds_for_every_name_it_is_for() {
    let settings = format!(
        "endpoint: api.example.com\nnetwork: {{podCIDRs: [10.244.0.0/16, 'fd00:1::/48'], \
         serviceCIDRs: [10.96.0.0/16, 'fd00:2::/112']}}\napiServer: {{certSANs: [203.0.113.7]}}\n{}",
        CLUSTER
            .replace("10.0.0.11", "[10.0.0.11, 'fd00::b']")
            .replace("address: [", "addresses: [")
    );
    let checked = settings::load(&Source::new("cluster.yaml", settings.as_str())).unwrap();
    let cluster = Cluster::new(&checked);
    for (own, extra) in [("true", &[][..]), (&*intermediate(), &["-partial_chain"])] {
        let folder = made_by(own);
        folder.write("cluster.yaml", &settings);
        folder.run(&["render", "-o", "out"]);
        let (mut certificates, mut names) = (0, 0);
        for machine in &cluster.machines {
            for leaf in leaves_of(&cluster, machine) {
                let file = format!("pki/nodes/{}/{}.crt", machine.name, leaf.stem());
                let authority = format!("pki/{}.crt", leaf.authority().stem());
                let profile = of_machine(leaf, &cluster, machine);
                let mut base = vec!["-CAfile", authority.as_str()];
                base.extend(extra);
                for (purpose, is) in [("sslserver", profile.server), ("sslclient", profile.client)]
                {
                    let args = [&base[..], &["-purpose", purpose, &file]].concat();
                    let (holds, told) = verify(&folder, &args);
                    assert_eq!(holds, is, "{file} as {purpose}: {told}");
                }
                for name in &profile.alt_names {
                    let (flag, name) = match name {
                        AltName::Dns(name) => ("-verify_hostname", name.clone()),
                        AltName::Address(address) => ("-verify_ip", address.to_string()),
                    };
                    let args = [&base[..], &[flag, &name, &file]].concat();
                    let (holds, told) = verify(&folder, &args);
                    assert!(holds, "{file} as {name}: {told}");
                    names += 1;
                }
                let other = [&base[..], &["-verify_hostname", "other.example.com", &file]].concat();
                let (holds, _) = verify(&folder, &other);
                // A certificate without names is checked by nobody for one.
                assert!(!holds || profile.alt_names.is_empty(), "{file}");
                certificates += 1;
            }
        }
        assert_eq!((certificates, names), (18, 28), "{own}");
    }
}

#[test]
fn an_intermediate_signs_and_what_is_above_it_is_not_believed() {
    for with_chain in [false, true] {
        let folder = made_by(&intermediate());
        let alone = folder.read("pki/ca.crt");
        let given = if with_chain {
            alone.clone() + &folder.read("root.crt")
        } else {
            alone.clone()
        };
        folder.write("pki/ca.crt", &given);
        folder.run(&["render", "-o", "out"]);
        assert_eq!(folder.read("pki/ca.crt"), given);
        let document = Document::parse(&folder.user_data(&["--role", "master"]));
        let blocks = |text: &str| text.matches("BEGIN CERTIFICATE").count();
        // Whatever else the root has signed is not let in.
        let believed = document.text("/etc/kubernetes/pki/ca.crt");
        assert_eq!(blocks(&believed), 1);
        folder.write("believed.crt", &believed);
        let leaf = "pki/nodes/node-1/kubelet-client.crt";
        let args = ["-partial_chain", "-CAfile", "believed.crt", leaf];
        assert!(verify(&folder, &args).0);
        // And to those who know the root it is a whole chain, of length 0.
        let args = ["-CAfile", "root.crt", "-untrusted", "believed.crt", leaf];
        let (holds, told) = verify(&folder, &args);
        assert!(holds, "{told}");
        let before = folder.tree();
        folder.run(&["render", "-o", "out"]);
        assert_eq!(folder.tree(), before);
    }
}

#[test]
fn what_cannot_be_an_authority_is_refused() {
    let swapped = format!(
        "{}; cat root.crt pki/ca.crt > x; cp x pki/ca.crt; cp root.key pki/ca.key",
        intermediate()
    );
    for (script, why) in [
        (
            root("-days 9 -addext basicConstraints=critical,CA:FALSE"),
            "basicConstraints CA",
        ),
        (
            root("-days 9 -addext keyUsage=critical,digitalSignature"),
            "keyUsage keyCertSign",
        ),
        (
            root("-days 9 -addext extendedKeyUsage=serverAuth"),
            "may not sign certificates of servers and of clients",
        ),
        (
            format!("{}; {EC} pki/ca.key", root("-days 9")),
            "pki/ca.key does not belong to pki/ca.crt",
        ),
        (
            "openssl genrsa -out pki/ca.key 1024; openssl req -x509 -new -key pki/ca.key \
             -subj /CN=Weak -days 9 -out pki/ca.crt"
                .to_owned(),
            "has an RSA key of 1024 bits",
        ),
        (swapped, "CN=Root is not signed by O=Example, CN=Below"),
        (format!("{EC} pki/ca.key"), "pki/ca.crt: is missing"),
        (
            "echo hello > pki/ca.crt".to_owned(),
            "there is no certificate in it",
        ),
    ] {
        let folder = made_by(&script);
        let told = refused_in(&folder);
        assert!(told.contains(why), "{script}: {told}");
    }
}

/// Every kind of key works, or the command that makes it work is told.
#[test]
fn keys_that_cannot_be_read_are_refused_with_the_command_that_converts() {
    for (script, why) in [
        (
            "openssl ec -in pki/ca.key -aes256 -passout pass:x -out k; cp k pki/ca.key",
            "the key is encrypted; decrypt it: openssl pkey -in OLD -out NEW",
        ),
        (
            "openssl pkcs8 -topk8 -in pki/ca.key -passout pass:x -out k; cp k pki/ca.key",
            "the key is encrypted; decrypt it: openssl pkey -in OLD -out NEW",
        ),
        (
            "openssl pkey -in pki/ca.key -outform DER | base64 -w0 > k; cp k pki/ca.key",
            "openssl pkey -inform DER -in OLD -out NEW",
        ),
        (
            "openssl ecparam -name secp521r1 -genkey -noout -out pki/ca.key; openssl req -x509 \
             -new -key pki/ca.key -subj /CN=Large -days 9 -out pki/ca.crt",
            "ECDSA P-256 and P-384",
        ),
    ] {
        let folder = made_by(&format!("{}; {script}", root("-days 9")));
        let before = folder.tree();
        let output = folder
            .kgen()
            .args(["render", "-o", "out"])
            .output()
            .unwrap();
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{script}: {told}");
        assert!(told.contains("pki/ca.key: "), "{told}");
        assert!(told.contains(why), "{script}: {told}");
        assert!(!told.contains("BEGIN"), "{told}");
        assert_eq!(folder.tree(), before);
    }
}

/// P16: the key stays with whoever signs; what is signed already is enough for
/// machines that sign nothing.
#[test]
fn without_the_authoritys_key_what_is_signed_already_is_used() {
    let folder = made_by(&root("-days 400"));
    folder.run(&["render", "-o", "out"]);
    let all = ["node-1", "node-2"].map(|name| folder.user_data(&["--name", name]));
    std::fs::remove_file(folder.path("pki/ca.key")).unwrap();
    assert_eq!(
        ["node-1", "node-2"].map(|name| folder.user_data(&["--name", name])),
        all
    );
    folder.run(&["kubeconfig"]);
    let output = folder.kgen().args(["--name", "master"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("pki/ca.key: is missing"),
        "{}",
        text(&output)
    );
}

/// Names of which an authority may not sign any are told beforehand.
#[test]
fn name_constraints_are_told() {
    let folder = made_by(&root(
        "-days 400 -addext 'nameConstraints=critical,permitted;DNS:example.com'",
    ));
    let told = text(&folder.run(&["--name", "node-1"]));
    assert!(told.contains("pki/ca.crt has name constraints"), "{told}");
}
