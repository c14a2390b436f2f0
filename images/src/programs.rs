//! Running Debian's tools: one way to do it, and errors that say what they said.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use crate::cli::Kind;
use crate::error::{Error, Result, file, of_program};
use crate::progress::Progress;

/// Programs that every build runs, and their packages.
const ALWAYS: [(&str, &str); 3] = [
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-query", "dpkg"),
    ("setpriv", "util-linux"),
];

/// Those for the netboot image.
const NETBOOT: [(&str, &str); 2] = [("mksquashfs", "squashfs-tools"), ("cpio", "cpio")];

/// Those for a disk.
const DISK: [(&str, &str); 8] = [
    ("sfdisk", "fdisk"),
    ("mke2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("dumpe2fs", "e2fsprogs"),
    ("mkfs.vfat", "dosfstools"),
    ("mcopy", "mtools"),
    ("grub-mkimage", "grub-common grub-pc-bin grub-efi-amd64-bin"),
    ("mmd", "mtools"),
];

/// For qcow2.
const QCOW2: [(&str, &str); 1] = [("qemu-img", "qemu-utils")];

/// All that is needed is there, and the right to make files of every owner.
pub(crate) fn check(kinds: &[Kind]) -> Result<()> {
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let mut needed = ALWAYS.to_vec();
    if kinds.contains(&Kind::Netboot) {
        needed.extend(NETBOOT);
    }
    if kinds.iter().any(|kind| *kind != Kind::Netboot) {
        needed.extend(DISK);
    }
    if kinds.contains(&Kind::Qcow2) {
        needed.extend(QCOW2);
    }
    let absent: Vec<_> = needed
        .iter()
        .filter(|(name, _)| find(name).is_none())
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    let names = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
        let mut all: Vec<&str> = absent.iter().map(|pair| pick(pair)).collect();
        all.dedup();
        all.join(" ")
    };
    Err(Error::Program {
        programs: names(|pair| pair.0),
        packages: names(|pair| pair.1),
    })
}

/// Where a program is. Debian keeps those of administrators out of users' paths.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
}

/// A program that ends when we do, with nothing of this machine's language or clock in
/// what it makes.
pub(crate) fn program(name: &str, epoch: i64) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(find(name).unwrap_or_else(|| name.into()))
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        // What e2fsprogs had before it knew the one above.
        .env("E2FSPROGS_FAKE_TIME", epoch.to_string());
    command
}

/// Runs a program to its end and returns its standard output.
pub(crate) fn run(command: &mut Command, progress: &Progress) -> Result<String> {
    run_with(command, None, progress)
}

/// The same with a file as its standard input.
pub(crate) fn run_with(
    command: &mut Command,
    input: Option<&Path>,
    progress: &Progress,
) -> Result<String> {
    let name = name(command);
    let stdin = match input {
        Some(path) => Stdio::from(File::open(path).map_err(file("reading", path))?),
        None => Stdio::null(),
    };
    let failed = |doing: &str| {
        let doing = format!("{doing} {name}");
        move |source| Error::File { doing, source }
    };
    let mut stdout = tempfile::tempfile().map_err(failed("making a file for"))?;
    let mut child = command
        .stdin(stdin)
        .stdout(stdout.try_clone().map_err(failed("making a file for"))?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed("starting"))?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line.map_err(failed("listening to"))?;
            let line = String::from_utf8_lossy(&line);
            progress.line(&line);
            said.push_str(&line);
            said.push('\n');
        }
    }
    let status = child.wait().map_err(failed("waiting for"))?;
    if !status.success() {
        return Err(of_program(&name, status.to_string(), &said));
    }
    let mut text = String::new();
    stdout.rewind().map_err(failed("reading the output of"))?;
    stdout
        .read_to_string(&mut text)
        .map_err(failed("reading the output of"))?;
    Ok(text)
}

/// The program's name, without its folder and what runs it.
fn name(command: &Command) -> String {
    let program = match command.get_program() {
        own if own == "setpriv" => command.get_args().nth(3).unwrap_or(own),
        other => other,
    };
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_itself() {
        assert_eq!(name(&program("sh", 0)), "sh");
        assert_eq!(name(&Command::new("/usr/bin/apt-get")), "apt-get");
    }

    #[test]
    fn what_a_program_said_is_in_the_failure() {
        let mut sh = program("sh", 5);
        sh.args(["-c", "echo told; echo wrong $SOURCE_DATE_EPOCH >&2; exit 3"]);
        let error = run(&mut sh, &Progress::new())
            .expect_err("status 3")
            .to_string();
        assert_eq!(
            error,
            "E-IMAGE-FAILED: sh ended with exit status: 3: wrong 5"
        );
        let mut sh = program("sh", 5);
        let told = run(sh.args(["-c", "echo told"]), &Progress::new()).expect("status 0");
        assert_eq!(told, "told\n");
    }
}
