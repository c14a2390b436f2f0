//! Real machines to test kgen and knode on.
//!
//! A [`network::Network`] is a cluster's own network namespace with a bridge in it. A
//! [`node::Node`] is a machine on that bridge: a container with a real systemd as PID 1
//! that the real cloud-init sets up from user-data, on an overlay over one shared
//! [`rootfs`]. An [`artifact_server::ArtifactServer`] on the bridge serves downloads and
//! can be told to stall, cut, lie and throttle. [`image`] makes the container images,
//! since no registry can be reached.
//!
//! Every part is a guard: dropping it ends its processes, mounts and interfaces. What a
//! killed test leaves behind is found by its dead owner and removed when the next test
//! makes its first network ([`scope`]).
//!
//! | Variable | Meaning | Default |
//! |---|---|---|
//! | `KNODE_TEST_CACHE` | what is built once: root file system, artifacts, images | `/var/cache/knode-tests` |
//! | `KNODE_TEST_DIR` | disks of the running nodes; not on tmpfs or overlay | `/var/tmp/knode-tests` |
//! | `KNODE_TEST_EVIDENCE` | where every node leaves its logs; unset: only when a test panics | `$KNODE_TEST_DIR/evidence` |
//! | `KNODE_TEST_MIRROR` | Debian mirror | the one in the machine's apt sources |
//! | `KNODE_TEST_SKIPS` | file that gets a line for each skipped test | none |
//! | `KUBE_BIN_DIR` | Kubernetes' server binaries | `/opt/kubernetes/bin` |
//! | `KUBE_BIN_DIR_OLD` | those of an older version | `/opt/kubernetes/previous/bin` |
//! | `COREOS_CLOUDINIT` | the real coreos-cloudinit, a static binary | none |

pub mod artifact_server;
pub mod artifacts;
pub mod boot_images;
pub mod cache;
pub mod cgroup;
pub mod cloud_init;
pub mod cluster;
pub mod command;
mod container;
mod disk;
pub mod document;
mod evidence;
mod fault;
pub mod image;
pub mod killer;
pub mod kube;
pub mod network;
pub mod node;
pub mod programs;
pub mod qemu;
pub mod registry;
pub mod report;
pub mod rootfs;
pub mod scenario;
pub mod scope;
mod sysctl;
pub mod wait;
