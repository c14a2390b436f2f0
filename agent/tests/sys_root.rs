//! `sys::root` against real file systems.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::apart;
use knode::sys::Changed;
use knode::sys::root::{Kind, Root};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};

fn folder() -> (tempfile::TempDir, Root) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Root::new(folder.path());
    (folder, root)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path)
        .expect("there")
        .permissions()
        .mode()
        & 0o7777
}

#[test]
fn paths_stay_below_the_root() {
    let root = Root::new("/tmp/r");
    for (path, expected) in [
        ("/etc/hosts", "/tmp/r/etc/hosts"),
        ("etc/./hosts", "/tmp/r/etc/hosts"),
        ("/../../etc/../x", "/tmp/r/x"),
        ("/", "/tmp/r"),
    ] {
        assert_eq!(root.path(path), Path::new(expected), "{path}");
    }
    assert_eq!(Root::default().path("etc/hosts"), Path::new("/etc/hosts"));
}

#[test]
fn file_is_written_once_and_again_when_content_or_mode_differ() {
    let (folder, root) = folder();
    let path = folder.path().join("a.conf");
    assert_eq!(
        root.write_atomic("/a.conf", b"one", 0o640)
            .expect("written"),
        Changed::Yes
    );
    let first = fs::metadata(&path)
        .expect("there")
        .modified()
        .expect("a time");
    assert_eq!(
        root.write_atomic("/a.conf", b"one", 0o640)
            .expect("compared"),
        Changed::No
    );
    assert_eq!(
        fs::metadata(&path)
            .expect("there")
            .modified()
            .expect("a time"),
        first,
        "it was touched"
    );
    assert_eq!(
        root.write_atomic("/a.conf", b"two", 0o640)
            .expect("written"),
        Changed::Yes
    );
    assert_eq!(
        root.write_atomic("/a.conf", b"two", 0o600)
            .expect("written"),
        Changed::Yes
    );
    assert_eq!(
        (root.read("/a.conf").expect("read"), mode(&path)),
        (b"two".to_vec(), 0o600)
    );
    let stat = root.stat("/a.conf").expect("an answer").expect("there");
    assert_eq!((stat.kind, stat.mode, stat.len), (Kind::File, 0o600, 3));
    assert_eq!(
        root.list("/").expect("a list").len(),
        1,
        "something was left behind"
    );
}

#[test]
fn umask_takes_nothing_away_and_gives_nothing() {
    apart(|| {
        for mask in [0o077, 0o777, 0o000] {
            umask(Mode::from_bits_truncate(mask));
            let (folder, root) = folder();
            for wanted in [0o600, 0o644, 0o755, 0o400] {
                let name = format!("/{wanted:o}");
                assert_eq!(
                    root.write_atomic(&name, b"x", wanted).expect("written"),
                    Changed::Yes
                );
                assert_eq!(
                    mode(&folder.path().join(&name[1..])),
                    wanted,
                    "umask {mask:o}"
                );
            }
            root.create_dir("/dir", 0o711).expect("made");
            assert_eq!(mode(&folder.path().join("dir")), 0o711, "umask {mask:o}");
        }
    });
}

#[test]
fn readers_see_the_old_or_the_new_file_and_never_half_of_one() {
    let (_folder, root) = folder();
    let contents = [vec![b'a'; 300_000], vec![b'b'; 200_000]];
    root.write_atomic("/f", &contents[0], 0o600)
        .expect("written");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seen = root.read("/f").expect("always there");
                    assert!(contents.contains(&seen), "{} bytes", seen.len());
                }
            });
        }
        // Two writers at once do not disturb each other, either.
        let writers: Vec<_> = contents
            .iter()
            .map(|content| {
                let root = &root;
                scope.spawn(move || {
                    for _ in 0..50 {
                        root.write_atomic("/f", content, 0o600).expect("written");
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(outcomes.iter().all(Result::is_ok));
    });
    assert_eq!(root.list("/").expect("a list").len(), 1);
}

#[test]
fn f14_full_disk_leaves_the_old_file_and_is_recognised() {
    apart(|| {
        let (folder, root) = folder();
        mount(
            Some("none"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=256k"),
        )
        .expect("a small disk");
        root.write_atomic("/f", b"old", 0o600).expect("written");
        let room = root.filesystem("/").expect("an answer");
        assert!(
            room.available_bytes > 0 && room.available_bytes <= 256 * 1024,
            "{room:?}"
        );
        assert!(!room.read_only && !room.noexec && room.available_inodes.is_some());

        let error = root
            .write_atomic("/f", &[0; 1_000_000], 0o600)
            .expect_err("no room");
        assert!(error.is_out_of_space(), "{error:?}");
        assert_eq!(root.read("/f").expect("still there"), b"old");
        assert_eq!(
            root.list("/").expect("a list").len(),
            1,
            "half a file was left behind"
        );
        root.write_atomic("/f", b"new", 0o600)
            .expect("there is room again");
    });
}

#[test]
fn f15_read_only_and_noexec_are_told() {
    apart(|| {
        let (folder, root) = folder();
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
        mount(
            Some("none"),
            folder.path(),
            Some("tmpfs"),
            flags,
            None::<&str>,
        )
        .expect("a disk");
        let filesystem = root.filesystem("/").expect("an answer");
        assert!(filesystem.read_only && filesystem.noexec);
        let error = root.write_atomic("/f", b"x", 0o600).expect_err("read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    });
}

#[test]
fn link_is_replaced_by_the_file_and_not_written_through() {
    let (folder, root) = folder();
    fs::write(folder.path().join("precious"), "keep").expect("written");
    assert_eq!(
        root.symlink_atomic("precious", "/f").expect("linked"),
        Changed::Yes
    );
    assert_eq!(
        root.symlink_atomic("precious", "/f").expect("compared"),
        Changed::No
    );
    assert_eq!(
        root.read_link("/f").expect("an answer").as_deref(),
        Some(Path::new("precious"))
    );
    assert_eq!(root.read("/f").expect("followed"), b"keep");
    // Same content and mode by way of the link: a file is asked for all the same.
    let same = mode(&folder.path().join("precious"));
    assert_eq!(
        root.write_atomic("/f", b"keep", same).expect("written"),
        Changed::Yes
    );
    assert_eq!(root.read_link("/f").expect("an answer"), None);
    assert_eq!(
        root.symlink_atomic("elsewhere", "/f").expect("linked"),
        Changed::Yes
    );
    assert!(
        !root.exists("/f").expect("an answer"),
        "a dangling link exists"
    );
    assert_eq!(
        root.stat("/f").expect("an answer").expect("there").kind,
        Kind::Symlink
    );
    assert_eq!(
        fs::read(folder.path().join("precious")).expect("there"),
        b"keep"
    );
}

#[test]
fn folders_are_made_corrected_listed_and_removed() {
    let (folder, root) = folder();
    assert_eq!(
        root.create_dir("/a/b/c", 0o700).expect("made"),
        Changed::Yes
    );
    assert_eq!(
        root.create_dir("/a/b/c", 0o700).expect("there"),
        Changed::No
    );
    assert_eq!(
        root.create_dir("/a/b/c", 0o750).expect("corrected"),
        Changed::Yes
    );
    assert_eq!(mode(&folder.path().join("a/b/c")), 0o750);
    root.write_atomic("/a/z", b"", 0o644).expect("written");
    root.symlink_atomic("z", "/a/l").expect("linked");
    let names: Vec<_> = root
        .list("/a")
        .expect("a list")
        .into_iter()
        .map(|e| (e.name, e.kind))
        .collect();
    assert_eq!(
        names,
        [
            ("b".into(), Kind::Dir),
            ("l".into(), Kind::Symlink),
            ("z".into(), Kind::File)
        ]
    );
    assert_eq!(
        root.create_dir("/a/z", 0o700).expect_err("a file").kind(),
        std::io::ErrorKind::NotADirectory
    );

    assert_eq!(root.remove("/a/l").expect("removed"), Changed::Yes);
    assert!(
        root.exists("/a/z").expect("an answer"),
        "the link was followed"
    );
    assert_eq!(root.remove("/a/l").expect("gone"), Changed::No);
    assert_eq!(root.remove_tree("/a").expect("removed"), Changed::Yes);
    assert_eq!(root.remove_tree("/a").expect("gone"), Changed::No);
    assert!(root.list("/a").expect_err("gone").is_not_found());
    assert_eq!(root.read_if_exists("/a/z").expect("an answer"), None);
}

#[test]
fn errors_name_what_was_done_and_where_and_keep_the_reason_apart() {
    let root = Root::new("/nonexistent-root");
    let error = root
        .write_atomic("/etc/x", b"", 0o600)
        .expect_err("no such folder");
    assert_eq!(error.to_string(), "writing /nonexistent-root/etc/x");
    assert!(error.is_not_found());
    let source = std::error::Error::source(&error)
        .expect("a reason")
        .to_string();
    assert!(source.contains("No such file"), "{source}");
    assert!(root.write_atomic("/", b"", 0o600).is_err());
}

#[test]
fn kernel_setting_is_written_only_when_it_differs() {
    let namespace = common::Namespace::new();
    namespace.run(|| {
        let root = Root::default();
        // These belong to the network namespace of the thread that asks.
        assert_eq!(root.sysctl("net.ipv4.ip_forward").expect("readable"), "0");
        assert_eq!(
            root.set_sysctl("net.ipv4.ip_forward", "1").expect("set"),
            Changed::Yes
        );
        assert_eq!(
            root.set_sysctl("net.ipv4.ip_forward", "1").expect("there"),
            Changed::No
        );
        assert_eq!(root.sysctl("net/ipv4/ip_forward").expect("readable"), "1");

        assert_eq!(
            root.set_sysctl("net.ipv4.ip_local_port_range", "40000 50000")
                .expect("set"),
            Changed::Yes
        );
        assert_eq!(
            root.set_sysctl("net.ipv4.ip_local_port_range", "40000  50000")
                .expect("there"),
            Changed::No
        );
        assert_eq!(
            root.sysctl("net.ipv4.ip_local_port_range")
                .expect("readable"),
            "40000\t50000"
        );

        common::sh("ip link add eth0.7 type veth peer name x");
        assert_eq!(
            root.set_sysctl("net/ipv4/conf/eth0.7/forwarding", "0")
                .expect("set"),
            Changed::Yes
        );

        let error = root
            .set_sysctl("net.ipv4.no_such_thing", "1")
            .expect_err("no such setting");
        assert!(error.is_not_found());
        assert!(!Path::new("/proc/sys/net/ipv4/no_such_thing").exists());
        assert!(root.set_sysctl("net.ipv4.ip_forward", "many").is_err());
    });
}

#[test]
fn kernel_setting_in_a_test_folder_is_an_ordinary_file() {
    let (folder, root) = folder();
    root.create_dir("/proc/sys/vm", 0o755).expect("made");
    fs::write(
        folder.path().join("proc/sys/vm/overcommit_memory"),
        "10000\n",
    )
    .expect("written");
    assert_eq!(
        root.set_sysctl("vm.overcommit_memory", "1").expect("set"),
        Changed::Yes
    );
    assert_eq!(root.sysctl("vm.overcommit_memory").expect("readable"), "1");
}
