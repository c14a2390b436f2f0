//! The store and what comes into it, whatever way it is packed.

mod mirror;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use knode::error::Code;
use knode::sys::store::sha256;
use mirror::{Answer, Fixture, Mirror, Then, content, plain};
use units::node_config::{Artifact, ArtifactFile, Packing};

fn sample(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    std::fs::read(folder.join(name)).unwrap()
}

/// A mirror of all samples, by their names.
async fn samples() -> Mirror {
    Mirror::start(|asked| {
        let mut bytes = sample(
            asked
                .path
                .trim_start_matches('/')
                .trim_end_matches("?damaged"),
        );
        if asked.path.ends_with("damaged") {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x55;
        }
        Answer::good(&bytes, "\"1\"", asked)
    })
    .await
}

fn packed(mirror: &Mirror, name: &str, packing: Packing, members: &[&str]) -> Artifact {
    let file = |member: &&str| ArtifactFile {
        member: packing.is_archive().then(|| (*member).to_owned()),
        path: format!("/opt/{member}"),
    };
    Artifact {
        name: name.to_owned(),
        version: "1".to_owned(),
        urls: vec![mirror.url(name)],
        digest: sha256(&sample(name)),
        size: Some(sample(name).len() as u64),
        packing,
        files: members.iter().map(file).collect(),
    }
}

#[tokio::test]
async fn good_bytes_are_stored_and_linked() {
    let mirror = Mirror::start(|asked| Answer::good(&content(), "\"1\"", asked)).await;
    let fixture = Fixture::new();
    let artifact = plain("tool", vec![mirror.url("x")]);
    fixture.fetch(&artifact).await.unwrap();
    let store = fixture.store();
    assert!(store.has(&artifact).unwrap() && store.verify(&artifact, true).unwrap());
    assert!(store.link(&artifact).unwrap());
    assert!(!store.link(&artifact).unwrap(), "linked twice");
    assert_eq!(fixture.entries(), [artifact.digest.hex()]);
    assert_eq!(fixture.stored(&artifact, "tool"), content());
    let stored = fixture
        .folder
        .path()
        .join("opt/knode/store")
        .join(artifact.digest.hex())
        .join("tool");
    let mode = stored.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let link = fixture.folder.path().join("opt/bin/tool");
    let target = link.read_link().unwrap();
    assert!(target.ends_with(artifact.digest.hex() + "/tool"));
}

/// P21: the tools of every format have packed the samples.
#[tokio::test]
async fn p21_every_packing_is_unpacked() {
    let mirror = samples().await;
    let fixture = Fixture::new();
    for (name, packing) in [
        ("a", Packing::Plain),
        ("a.gz", Packing::Gz),
        ("a.xz", Packing::Xz),
        ("a.zst", Packing::Zst),
        ("two.tar", Packing::Tar),
        ("two.tar.gz", Packing::TarGz),
        ("two.tar.xz", Packing::TarXz),
        ("two.tar.zst", Packing::TarZst),
    ] {
        let artifact = packed(&mirror, name, packing, &["bin/a"]);
        fixture.fetch(&artifact).await.unwrap();
        assert_eq!(fixture.stored(&artifact, "a"), sample("a"), "{name}");
        assert!(fixture.store().verify(&artifact, true).unwrap(), "{name}");
    }
    let covered = Packing::ALL.len();
    assert_eq!(fixture.entries().len(), covered);
}

/// F1: a damaged archive is told by its checksum, whatever the unpacker says,
/// and one whose checksum is right by what is wrong with it.
#[tokio::test]
async fn f1_damaged_greedy_and_incomplete_archives_are_named_and_leave_nothing() {
    let mirror = samples().await;
    for (name, packing) in [
        ("a.gz", Packing::Gz),
        ("a.xz", Packing::Xz),
        ("a.zst", Packing::Zst),
        ("two.tar.gz", Packing::TarGz),
        ("two.tar.xz", Packing::TarXz),
        ("two.tar.zst", Packing::TarZst),
    ] {
        let fixture = Fixture::new();
        let mut artifact = packed(&mirror, name, packing, &["bin/a"]);
        artifact.urls = vec![mirror.url(name) + "?damaged"];
        let error = fixture.fetch(&artifact).await.unwrap_err();
        assert_eq!(error.code(), Code::FetchHash, "{name}: {}", error.story());
        fixture.until_empty().await;
    }
    let fixture = Fixture::new();
    for (name, packing, member, why) in [
        ("two.tar.gz", Packing::TarGz, "bin/c", "bin/c"),
        ("greedy.xz", Packing::Xz, "a", "memory"),
        ("greedy.zst", Packing::Zst, "a", "indow"),
        ("a", Packing::Gz, "a", "unpacking"),
        ("a", Packing::Xz, "a", "unpacking"),
        ("a", Packing::Zst, "a", "unpacking"),
        ("a", Packing::Tar, "a", "unpacking"),
    ] {
        let artifact = packed(&mirror, name, packing, &[member]);
        let error = fixture.fetch(&artifact).await.unwrap_err();
        let story = error.story();
        assert_eq!(error.code(), Code::FetchUnpack, "{name}: {story}");
        assert!(story.contains(why), "{name}: {story}");
        fixture.until_empty().await;
    }
}

/// F1, F2: whatever a mirror does wrong has its own code, and leaves nothing.
#[tokio::test]
async fn f1_bad_answers_are_named_and_leave_nothing() {
    let mirror = Mirror::start(|asked| match asked.path.as_str() {
        "/wrong" => Answer::whole(&vec![0; 3_000_000]),
        "/short" => Answer::whole(&content()[..1000]),
        "/empty" => Answer::whole(&[]),
        "/unsized" => Answer {
            promised: None,
            ..Answer::whole(&content()[..1000])
        },
        "/endless" => Answer {
            promised: None,
            ..Answer::whole(&[content(), content()].concat())
        },
        "/cut" => Answer::whole(&content()).cut(1000, Then::Close),
        "/stall" => Answer::whole(&content()).cut(1000, Then::Hang),
        _ => Answer::status(404),
    })
    .await;
    for (path, code) in [
        ("wrong", Code::FetchHash),
        ("short", Code::FetchSize),
        ("empty", Code::FetchSize),
        ("unsized", Code::FetchSize),
        ("endless", Code::FetchSize),
        ("missing", Code::FetchHttp),
        ("cut", Code::FetchSize),
        ("stall", Code::FetchStall),
    ] {
        let fixture = Fixture::new();
        let artifact = plain("tool", vec![mirror.url(path)]);
        let error = fixture.fetch(&artifact).await.unwrap_err();
        assert_eq!(error.code(), code, "{path}: {}", error.story());
        assert!(!fixture.store().has(&artifact).unwrap(), "{path}");
        fixture.until_empty().await;
    }
}

/// F12, F13: what is in the store is known again without reading it, hashed
/// when it looks different, and fetched again when it is.
#[tokio::test]
async fn f13_a_file_that_changed_in_the_store_is_noticed() {
    let mirror = samples().await;
    let fixture = Fixture::new();
    let artifact = packed(&mirror, "two.tar.gz", Packing::TarGz, &["bin/a", "bin/b"]);
    fixture.fetch(&artifact).await.unwrap();
    let store = fixture.store();
    let place = fixture.folder.path().join("opt/knode/store");
    let file = place.join(artifact.digest.hex()).join("a");
    let record = place.join(artifact.digest.hex()).join(".verified.json");
    let before = std::fs::read(&record).unwrap();

    // A copy: another inode and time, the same bytes. The record is renewed.
    std::fs::write(&file, sample("a")).unwrap();
    assert!(store.verify(&artifact, false).unwrap());
    assert_ne!(std::fs::read(&record).unwrap(), before);
    // Zeros instead of bytes, as after a power loss.
    let mut zeros = sample("a");
    zeros[100..].fill(0);
    std::fs::write(&file, &zeros).unwrap();
    assert!(!store.verify(&artifact, false).unwrap());
    std::fs::write(&file, b"").unwrap();
    assert!(!store.verify(&artifact, false).unwrap());
    fixture.fetch(&artifact).await.unwrap();
    assert!(store.verify(&artifact, true).unwrap());
    assert_eq!(fixture.entries(), [artifact.digest.hex()]);

    // Bits that rot behind the file's back show only when it is read.
    let time = file.metadata().unwrap().modified().unwrap();
    zeros.truncate(sample("a").len());
    std::fs::write(&file, &zeros).unwrap();
    let opened = std::fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(time).unwrap();
    assert!(store.verify(&artifact, false).unwrap());
    assert!(!store.verify(&artifact, true).unwrap());
    // A record that cannot be read vouches for nothing.
    std::fs::write(&record, "{").unwrap();
    assert!(!store.verify(&artifact, false).unwrap());
}

/// F14: old versions go when the new ones are there; never the last ones, nor
/// what a link leads to.
#[tokio::test]
async fn f14_old_versions_are_collected_and_the_last_ones_are_not() {
    let mirror = samples().await;
    let fixture = Fixture::new();
    let version = |name: &str, packing| packed(&mirror, name, packing, &["bin/a"]);
    let all = [
        version("a", Packing::Plain),
        version("a.gz", Packing::Gz),
        version("a.xz", Packing::Xz),
        version("a.zst", Packing::Zst),
    ];
    for artifact in &all {
        fixture.fetch(artifact).await.unwrap();
    }
    let collect = |artifact: &Artifact| {
        fixture.store().link(artifact).unwrap();
        fixture
            .store()
            .collect(std::slice::from_ref(artifact))
            .unwrap()
    };
    // Somebody's own link keeps the first one.
    let own = fixture.folder.path().join("opt/cni/bin/mine");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    let kept = format!("/opt/knode/store/{}/a", all[0].digest.hex());
    std::os::unix::fs::symlink(kept, own).unwrap();

    let removed = collect(&all[1]);
    assert_eq!(removed.len(), 2, "{removed:?}");
    fixture.fetch(&all[2]).await.unwrap();
    assert!(
        collect(&all[2]).is_empty(),
        "the one before is the way back"
    );
    assert!(collect(&all[2]).is_empty());
    fixture.fetch(&all[3]).await.unwrap();
    assert_eq!(collect(&all[3]), [all[1].digest.hex()]);
    let mut left = fixture.entries();
    left.sort();
    let mut wanted = [0, 2, 3].map(|index: usize| all[index].digest.hex());
    wanted.sort();
    assert_eq!(left, wanted);
}

/// Another process's unfinished work is left alone; a dead one's is not.
#[tokio::test]
async fn only_what_nobody_works_on_is_swept() {
    let fixture = Fixture::new();
    let incoming = fixture.store().receive(&plain("tool", Vec::new())).unwrap();
    let left = fixture.folder.path().join("opt/knode/store/.partial-left");
    std::fs::create_dir(&left).unwrap();
    fixture.store().sweep().unwrap();
    assert_eq!(fixture.entries().len(), 1);
    assert!(!left.exists());
    drop(incoming);
    fixture.until_empty().await;
}
