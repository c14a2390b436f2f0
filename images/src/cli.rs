//! Flags.

use std::env;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::builder;
use crate::error::Result;

/// Builds boot images for Kubernetes nodes from Debian packages, with knode inside.
#[derive(Debug, Parser)]
#[command(name = "kimage", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build images and their catalogue into a folder
    Build(Build),
}

/// What to build, from what, and where to.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// The folder that gets the images and catalogue.json; files of the same names are
    /// replaced when all of it is built
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Which images: vmlinuz and initrd.img for PXE, disk.raw, disk.qcow2
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "netboot,raw,qcow2"
    )]
    pub kind: Vec<Kind>,

    /// The machines' architecture, as Debian calls it
    #[arg(long, default_value = "amd64")]
    pub arch: Architecture,

    /// The Debian release
    #[arg(long, default_value = "trixie")]
    pub suite: String,

    /// Which of Debian's kernels: generic has drivers for real machines; cloud is smaller,
    /// with those of virtual machines
    #[arg(long, default_value = "generic")]
    pub kernel: Kernel,

    /// The static knode [default: that of the release profile in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    pub knode: Option<PathBuf>,

    /// A Debian mirror, or a whole line of sources.list; may be given more than once
    /// [default: the mirror of this machine's apt]
    #[arg(long, value_name = "URL")]
    pub mirror: Vec<String>,

    /// Take an index that is past its date, as those of snapshots of a mirror are
    #[arg(long)]
    pub allow_expired: bool,

    /// A folder that keeps downloaded packages for the next build
    #[arg(long, value_name = "DIR")]
    pub packages: Option<PathBuf>,

    /// The size of the disk image in MiB; machines with larger disks use all of them
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub disk_size: u64,
}

impl Build {
    /// The knode that goes into the images.
    pub fn knode(&self) -> PathBuf {
        self.knode.clone().unwrap_or_else(|| {
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            PathBuf::from(target).join("x86_64-unknown-linux-gnu/release/knode")
        })
    }
}

/// An image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Kernel and initrd that run from RAM.
    Netboot,
    /// A disk, byte for byte.
    Raw,
    /// A disk for QEMU and OpenStack.
    Qcow2,
}

/// An architecture that images are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86_64.
    Amd64,
}

impl Architecture {
    /// Debian's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
        }
    }
}

/// One of Debian's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// With drivers for real machines.
    Generic,
    /// With those of virtual machines alone.
    Cloud,
}

impl Cli {
    /// Does what was asked for.
    ///
    /// # Errors
    ///
    /// Those of [`builder::build`].
    pub fn run(&self) -> Result<()> {
        match &self.command {
            Command::Build(build) => builder::build(build),
        }
    }
}
