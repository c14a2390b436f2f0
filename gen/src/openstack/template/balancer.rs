//! Octavia before the API servers. Its own checks go over HTTPS to what an API
//! server thinks of itself.

use serde_json::{Map, Value, json};

use super::{add, resource};
use crate::openstack::{Balancer, Deployment};

/// The load balancer, and every master behind it.
pub fn resources(
    d: &Deployment,
    balancer: &Balancer,
    subnet: &Value,
    resources: &mut Map<String, Value>,
) {
    let name = d.named("api");
    let from: Vec<String> = balancer.from.iter().map(ToString::to_string).collect();
    for (resource_name, kind, properties) in [
        (
            "api",
            "LoadBalancer",
            json!({"name": name, "vip_subnet": subnet, "vip_address": balancer.address.to_string()}),
        ),
        (
            "api_listener",
            "Listener",
            json!({
                "name": name,
                "loadbalancer": resource("api"),
                "protocol": "TCP",
                "protocol_port": balancer.port,
                "allowed_cidrs": from
            }),
        ),
        (
            "api_pool",
            "Pool",
            json!({
                "name": name,
                "listener": resource("api_listener"),
                "protocol": "TCP",
                "lb_algorithm": "ROUND_ROBIN"
            }),
        ),
        (
            "api_monitor",
            "HealthMonitor",
            json!({
                "pool": resource("api_pool"),
                "type": "HTTPS",
                "url_path": "/readyz",
                "delay": 5,
                "timeout": 3,
                "max_retries": 2
            }),
        ),
    ] {
        let kind = format!("OS::Octavia::{kind}");
        add(resources, resource_name, &kind, properties);
    }
    for (master, address) in &balancer.masters {
        add(
            resources,
            &format!("api_member_{}", master.replace(['-', '.'], "_")),
            "OS::Octavia::PoolMember",
            json!({
                "pool": resource("api_pool"),
                "address": address.to_string(),
                "protocol_port": balancer.backend_port,
                "subnet": subnet
            }),
        );
    }
}
