//! Which programs a machine needs, and where they are in what is published.

use units::node_config::{Packing, RuntimeSource};
use units::paths;
use units::types::Role;

/// A program of a Kubernetes release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binary {
    /// Its name, also that of its entry in a lock.
    pub name: &'static str,
    /// Whether the machine cannot do without.
    pub required: bool,
}

/// An artifact that is published by itself, with its own version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// The name of its entry in a lock.
    pub name: &'static str,
    /// Whether the machine cannot do without.
    pub required: bool,
    /// Where its programs go.
    pub folder: &'static str,
    /// The programs that are taken from an archive.
    pub programs: &'static [&'static str],
}

impl Package {
    /// The path of a program in the archive.
    pub fn member(&self, program: &str, version: &str, arch: &str) -> String {
        match self.name {
            "etcd" => format!("etcd-v{version}-linux-{arch}/{program}"),
            "containerd" => format!("bin/{program}"),
            _ => program.to_owned(),
        }
    }

    /// Whether the package can come packed like this: a single program can
    /// come plain.
    pub fn takes(&self, packing: Packing) -> bool {
        packing.is_archive() || self.programs.len() == 1
    }
}

const fn needed(name: &'static str) -> Binary {
    Binary {
        name,
        required: true,
    }
}

/// The programs of a master whose control plane comes as images.
pub const WITHOUT_CONTROL_PLANE: &[Binary] = &[
    needed("kubelet"),
    needed("kube-proxy"),
    Binary {
        name: "kubectl",
        required: false,
    },
];

/// The programs of a Kubernetes release that a role runs; kubectl is there for
/// whoever looks after the control plane.
pub fn binaries(role: Role) -> &'static [Binary] {
    const MASTER: &[Binary] = &[
        needed("kube-apiserver"),
        needed("kube-controller-manager"),
        needed("kube-scheduler"),
        needed("kubelet"),
        needed("kube-proxy"),
        Binary {
            name: "kubectl",
            required: false,
        },
    ];
    const NODE: &[Binary] = &[needed("kubelet"), needed("kube-proxy")];
    match role {
        Role::Master => MASTER,
        Role::Node => NODE,
        Role::Etcd => &[],
    }
}

/// The archive of a Kubernetes release for a role, and its folder of programs.
pub fn archive(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Master | Role::Etcd => ("kubernetes-server", "kubernetes/server/bin"),
        Role::Node => ("kubernetes-node", "kubernetes/node/bin"),
    }
}

/// The other packages of a machine.
pub fn packages(role: Role, etcd: bool, runtime: RuntimeSource) -> Vec<Package> {
    let bin = paths::KUBERNETES_BIN;
    let mut packages = Vec::new();
    if etcd {
        packages.push(Package {
            name: "etcd",
            required: true,
            folder: bin,
            programs: &["etcd", "etcdctl", "etcdutl"],
        });
    }
    if !role.runs_kubelet() {
        return packages;
    }
    if runtime == RuntimeSource::Artifact {
        packages.push(Package {
            name: "containerd",
            required: true,
            folder: bin,
            programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        });
        packages.push(Package {
            name: "runc",
            required: true,
            folder: bin,
            programs: &["runc"],
        });
    }
    packages.push(Package {
        name: "cni-plugins",
        required: true,
        folder: paths::CNI_BIN,
        programs: &["bridge", "host-local", "loopback", "portmap"],
    });
    packages
}
