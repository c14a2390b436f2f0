//! Which Debian packages are in an image.

use crate::cli::{Architecture, Kernel};

/// What a node needs beside its kernel. No SSH server: a document that wants one
/// installs it.
const NODE: [&str; 30] = [
    // The machine.
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "kmod",
    "procps",
    "initramfs-tools",
    "busybox-static",
    "zstd",
    // Its document, and a disk that grows.
    "cloud-init",
    "cloud-guest-utils",
    "e2fsprogs",
    "fdisk",
    // Downloads.
    "ca-certificates",
    "curl",
    // Containers and their network; what the kubelet and kube-proxy call.
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iproute2",
    "iputils-ping",
    "nftables",
    "iptables",
    "conntrack",
    "ethtool",
    "socat",
    "mount",
    "util-linux",
    "netbase",
];

/// What is installed, without what that depends on.
pub(crate) fn list(architecture: Architecture, kernel: Kernel) -> Vec<String> {
    let flavour = match kernel {
        Kernel::Generic => "",
        Kernel::Cloud => "cloud-",
    };
    let image = format!("linux-image-{flavour}{}", architecture.name());
    let node = NODE.iter().map(|name| (*name).to_owned());
    node.chain([image]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_one_asked_for() {
        let last = |kernel| list(Architecture::Amd64, kernel).pop();
        assert_eq!(last(Kernel::Generic).as_deref(), Some("linux-image-amd64"));
        assert_eq!(
            last(Kernel::Cloud).as_deref(),
            Some("linux-image-cloud-amd64")
        );
    }

    #[test]
    fn nobody_logs_in_from_outside() {
        let packages = list(Architecture::Amd64, Kernel::Generic);
        assert!(!packages.iter().any(|name| name.contains("ssh")));
    }
}
