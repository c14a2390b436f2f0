//! Makes a static knode smaller: its relocations are packed (DT_RELR, a tenth
//! of the room), where the C library that is linked in can read them; and what
//! only an unwinder reads, an eighth of the program, is left out of a release,
//! where a panic aborts.

use std::process::Command;

/// The first glibc whose static programs can (its NEWS).
const GLIBC: (u32, u32) = (2, 36);

/// What is added to the linker's own script; GNU ld and lld read it.
const NO_UNWINDING: &str = "no-unwinding.ld";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={NO_UNWINDING}");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_static = variable("CARGO_CFG_TARGET_FEATURE")
        .split(',')
        .any(|feature| feature == "crt-static");
    let is_glibc = variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if is_static && is_glibc && variable("PROFILE") == "release" {
        let folder = variable("CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/{NO_UNWINDING}");
    }
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
