//! kgen and knode as their users get them: static, from the release profile.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command::run;

/// The two programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The generator.
    pub kgen: PathBuf,
    /// The agent.
    pub knode: PathBuf,
}

impl Programs {
    /// Builds what is not built yet. `$KNODE_TEST_PROFILE` names another cargo
    /// profile than `release`, for a quicker round while one works on them.
    pub fn build() -> Result<Self> {
        let profile = env::var("KNODE_TEST_PROFILE").unwrap_or_else(|_| "release".to_owned());
        let compiler = run(Command::new(or("RUSTC", "rustc")).arg("-vV"))?;
        let host = compiler
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("the compiler names no host")?;
        // A target that is named keeps the flags away from build scripts.
        let flags = format!(
            "CARGO_TARGET_{}_RUSTFLAGS",
            host.to_uppercase().replace('-', "_")
        );
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |folder| root.join(folder));
        run(Command::new(or("CARGO", "cargo"))
            .current_dir(&root)
            .args(["build", "--package=kgen", "--package=knode", "--locked"])
            .args(["--profile", &profile, "--target", host])
            .env(flags, "-C target-feature=+crt-static")
            .env("CARGO_TARGET_DIR", &target))?;
        let folder = target
            .join(host)
            .join(if profile == "dev" { "debug" } else { &profile });
        let programs = Self {
            kgen: folder.join("kgen"),
            knode: folder.join("knode"),
        };
        for program in [&programs.kgen, &programs.knode] {
            ensure!(program.is_file(), "cargo made no {}", program.display());
        }
        Ok(programs)
    }
}

fn or(variable: &str, default: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| default.into())
}
