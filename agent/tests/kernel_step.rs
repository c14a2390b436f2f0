//! The step `kernel` where any port may be taken by an outgoing connection (F22), in a network
//! namespace of its own.

mod common;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};

use common::{Namespace, sh};
use knode::machine::Machine;
use knode::status::Status;
use knode::steps;
use knode::sys::root::Root;
use units::NodeConfig;

/// Opens connections until every port that the kernel gives is taken; says which.
fn take_all_ports(server: SocketAddr) -> BTreeSet<u16> {
    let mut open = Vec::new();
    while let Ok(stream) = TcpStream::connect(server) {
        open.push(stream);
    }
    let port = |stream: &TcpStream| stream.local_addr().expect("connected").port();
    open.iter().map(port).collect()
}

#[test]
fn f22_no_outgoing_connection_takes_a_services_port() {
    Namespace::new().block_on(|| async {
        // A machine that speaks to so many that it was given all ports; its operator reserved one.
        sh("sysctl -qw net.ipv4.ip_local_port_range='10240 10263' \
            net.ipv4.ip_local_reserved_ports=10240");
        let server = TcpListener::bind("127.0.0.1:9000").expect("a port");
        let before = take_all_ports(server.local_addr().expect("bound"));
        assert!(before.contains(&10250), "the fault is none: {before:?}");
        // Connections that were closed keep their ports for a minute, to that server.
        let other = TcpListener::bind("127.0.0.2:9000").expect("a port");

        let sample = include_str!("../../units/testdata/node-v1.yaml");
        let config: NodeConfig = serde_yaml::from_str(sample).expect("the sample");
        let steps = steps::of(&config);
        let step = steps.iter().find(|step| step.name() == "kernel");
        // The kernel's settings are those of this namespace.
        let root = Root::new("/");
        let folder = tempfile::tempdir().expect("a folder");
        let status = Status::new(Root::new(folder.path()), ["kernel"]);
        let machine = Machine::new(config, "node-1".parse().expect("a name"), root, status);
        step.expect("there")
            .converge(&machine)
            .await
            .expect("converged");

        let taken = take_all_ports(other.local_addr().expect("bound"));
        for port in [10240, 10248, 10249, 10250, 10256] {
            assert!(!taken.contains(&port), "{port} was taken: {taken:?}");
            let bound = TcpListener::bind(("127.0.0.3", port));
            assert!(bound.is_ok(), "a service cannot listen on {port}");
        }
        assert!(taken.contains(&10241), "all is reserved: {taken:?}");
    });
}
