//! openssl, the judge of every certificate.

use std::process::{Command, Output};

use super::Folder;

/// Runs openssl in the folder: whether it succeeded, and what it printed.
pub fn openssl(folder: &Folder, args: &[&str]) -> (bool, String) {
    let output = Command::new("openssl")
        .args(args)
        .current_dir(folder.path(""))
        .output()
        .expect("openssl, which these tests need (Debian: openssl)");
    (output.status.success(), text(&output))
}

/// What a program printed, its errors last.
pub fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap()
}

/// Runs `kgen certs`.
pub fn certs(folder: &Folder, args: &[&str]) -> Output {
    folder.kgen().arg("certs").args(args).output().unwrap()
}
