//! Makes a static knode smaller: its relocations are packed (DT_RELR, a tenth
//! of the room), where the C library that is linked in can read them.

use std::process::Command;

/// The first glibc whose static programs can (its NEWS).
const GLIBC: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "crt-static");
    let is_glibc = variable("CARGO_CFG_TARGET_ENV") == "gnu";
    // Only of this machine's own library is the version known.
    let is_native = variable("HOST") == variable("TARGET");
    if is_static && is_glibc && is_native && glibc().is_some_and(|version| version >= GLIBC) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf")
        .arg("GNU_LIBC_VERSION")
        .output()
        .ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
