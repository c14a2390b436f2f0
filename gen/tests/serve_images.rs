//! `kgen serve` and images with kimage's catalogue beside them. (P53)

mod common;

use std::fs;

use common::Folder;
use common::served::{Served, out};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use units::types::to_hex;

const KERNEL: &str = "a kernel\n";
const INITRD: &str = "an initrd\n";
const KNODE: &str = "0a";

fn built(text: &str) -> Value {
    json!({"size": text.len(), "sha256": to_hex(&Sha256::digest(text))})
}

/// Images and their catalogue, in a folder of `out`.
fn images(folder: &Folder, beside: &str) {
    fs::create_dir_all(folder.path(beside)).unwrap();
    folder.write(&format!("{beside}/vmlinuz"), KERNEL);
    folder.write(&format!("{beside}/initrd.img"), INITRD);
    let catalogue = json!({"version": 1, "suite": "trixie", "architecture": "amd64",
        "snapshot": "2026-09-12T07:55:41Z", "kernel": "6.12.48", "packages": {},
        "knode": {"size": 1, "sha256": KNODE},
        "files": {"vmlinuz": built(KERNEL), "initrd.img": built(INITRD), "disk.raw": built("")}});
    folder.write(&format!("{beside}/catalogue.json"), &catalogue.to_string());
}

/// Names the knode of documents in the index.
fn named(folder: &Folder, knode: &Value) {
    let index = folder.read("out/pxe/machines.json");
    let mut index: Value = serde_json::from_str(&index).unwrap();
    index["knode"] = knode.clone();
    folder.write("out/pxe/machines.json", &index.to_string());
}

/// What is said when nothing is served.
fn refused(folder: &Folder, args: &[&str]) -> String {
    let args = [&["serve", "--listen", "127.0.0.1:0"], args].concat();
    let output = folder.kgen().args(args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(!told.contains("http://"), "{told}");
    told.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn images_that_were_built_are_told() {
    let folder = out(1, 0);
    for (beside, args) in [("out/pxe", &[][..]), ("images", &["--images", "images"])] {
        images(&folder, beside);
        named(&folder, &json!({"amd64": [KNODE, "0b"]}));
        let served = Served::start(&folder, args);
        let first = served.said.lines().next().unwrap();
        assert_eq!(
            first,
            format!(
                "kgen: initrd.img (0.0 MB) and vmlinuz (0.0 MB) as {beside}/catalogue.json says, \
                 Linux 6.12.48 for amd64"
            )
        );
        assert!(
            served.said.contains("nobody downloads one"),
            "{}",
            served.said
        );
        assert_eq!(served.get("/vmlinuz").text(), KERNEL);
        // It is for whoever serves, not for machines.
        assert_eq!(served.get("/catalogue.json").status, 404);
        // Machines would download the one that their documents name.
        drop(served);
        named(&folder, &json!({"amd64": ["0b"], "arm64": [KNODE]}));
        let served = Served::start(&folder, args);
        let told = served.said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            told.contains("is not the one that documents name"),
            "{told}"
        );
        assert!(told.contains("kimage build --knode"), "{told}");
        // Where an older kgen rendered, nobody knows.
        drop(served);
        named(&folder, &json!({}));
        let served = Served::start(&folder, args);
        assert!(!served.said.contains("knode"), "{}", served.said);
    }
}

#[test]
fn images_of_another_build_are_not_served() {
    let folder = out(1, 0);
    images(&folder, "out/pxe");
    let cure = "copy the images and catalogue.json of one build together";
    for (file, text, part) in [
        ("vmlinuz", "a kernel", "it has 8 bytes, and had 9"),
        ("initrd.img", "AN INITRD\n", "its sha256 is "),
    ] {
        images(&folder, "out/pxe");
        folder.write(&format!("out/pxe/{file}"), text);
        let told = refused(&folder, &[]);
        let place = format!("out/pxe/{file} is not as out/pxe/catalogue.json says");
        for part in [&place, part, cure] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    // Both are told at once.
    for file in ["vmlinuz", "initrd.img"] {
        fs::remove_file(folder.path(&format!("out/pxe/{file}"))).unwrap();
    }
    let told = refused(&folder, &[]);
    assert_eq!(told.matches("it is not there").count(), 2, "{told}");
    folder.write("out/pxe/catalogue.json", "{");
    let told = refused(&folder, &[]);
    assert!(
        told.contains("out/pxe/catalogue.json: is no catalogue") && told.contains(cure),
        "{told}"
    );
    // Documents are another matter: they may be given again.
    folder.run(&["serve", "--again", "node-0"]);
    // Without a catalogue machines wait for what is not there.
    fs::remove_file(folder.path("out/pxe/catalogue.json")).unwrap();
    let served = Served::start(&folder, &[]);
    let waits = "out/pxe/vmlinuz is not there yet; machines wait for it";
    assert!(served.said.contains(waits), "{}", served.said);
}

#[test]
fn images_of_ones_own_beside_built_ones_are_served_unchecked() {
    let folder = out(1, 0);
    images(&folder, "out/pxe");
    let index = folder.read("out/pxe/machines.json");
    folder.write(
        "out/pxe/machines.json",
        &index.replace("vmlinuz", "linux-own"),
    );
    folder.write("out/pxe/linux-own", "mine\n");
    let served = Served::start(&folder, &[]);
    let told = served.said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("out/pxe/catalogue.json does not know out/pxe/linux-own"),
        "{told}"
    );
    assert_eq!(served.get("/linux-own").text(), "mine\n");
}
