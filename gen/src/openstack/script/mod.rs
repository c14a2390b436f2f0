//! The same as scripts of the openstack client: `up` and `down`.
//!
//! Every step looks first, so that `up` can be run again after any failure.
//! What is made has the cluster's tag, and nothing without it is touched.

use super::{Balancer, Deployment, Network};
use crate::azure::script::quoted;

/// What both begin with.
const SHEBANG: &str = "#!/usr/bin/env bash\n";

/// Makes all of it. `refused` says why Heat would not take the template with
/// its documents, if it would not.
pub fn up(d: &Deployment, refused: Option<&str>) -> String {
    let mut text = format!(
        "{SHEBANG}# Makes the cluster {} on OpenStack, or what of it is missing. Written by kgen render.\n",
        d.cluster
    );
    text.push_str(&variables(d));
    let address = d.api_floating_ip.map(|a| a.to_string());
    let volume = d.volume_gb.map(|gb| gb.to_string());
    for (name, value) in [
        ("image", Some(d.image.as_str())),
        ("volume", volume.as_deref()),
        ("key", d.key_name.as_deref()),
        ("external", d.external.as_deref()),
        ("api_floating_ip", address.as_deref()),
        ("stack_refused", refused),
    ] {
        assign(&mut text, name, value.unwrap_or_default());
    }
    text.push_str(include_str!("up-begin"));
    text.push_str(include_str!("up-stack"));
    network(d, &mut text);
    groups(d, &mut text);
    machines(d, &mut text);
    if let Some(balancer) = &d.balancer {
        api(balancer, &mut text);
    }
    if d.api_floating_ip.is_some() {
        part(&mut text, "The API server's address outside.");
        if d.balancer.is_some() {
            let port = "openstack loadbalancer show \"$balancer\" -f value -c vip_port_id";
            line(&mut text, &format!("api_port=$({port})"));
        }
        text.push_str("openstack floating ip set --port \"$api_port\" \"$api_floating_ip\"\n");
    }
    text.push_str("\nrunning\nsay \"All machines run.\"\n");
    text
}

/// Takes all of it away.
pub fn down(d: &Deployment) -> String {
    let mut text = format!(
        "{SHEBANG}# Deletes the cluster {} on OpenStack, with its machines. Written by kgen render.\n",
        d.cluster
    );
    text.push_str(&variables(d));
    let foreign = match &d.network {
        Network::Made {
            router: Some(router),
            ..
        } => router.as_str(),
        _ => "",
    };
    assign(&mut text, "foreign_router", foreign);
    let balancer = if d.balancer.is_some() { "yes" } else { "no" };
    assign(&mut text, "balancer", balancer);
    let groups = d.server_groups.iter();
    let groups: Vec<String> = groups
        .map(|(role, _)| quoted(&d.named(role.as_str())))
        .collect();
    line(&mut text, &format!("server_groups=({})", groups.join(" ")));
    text.push_str(include_str!("down"));
    text
}

fn variables(d: &Deployment) -> String {
    let mut text = String::new();
    assign(&mut text, "cluster", &d.cluster);
    assign(&mut text, "tag", &d.tag());
    text
}

fn assign(text: &mut String, name: &str, value: &str) {
    line(text, &format!("{name}={}", quoted(value)));
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn part(text: &mut String, comment: &str) {
    line(text, &format!("\n# {comment}"));
}

fn network(d: &Deployment, text: &mut String) {
    let (cidr, dynamic, dns, router) = match &d.network {
        Network::Existing { network, subnet } => {
            part(text, "The network, which is there.");
            for (kind, name) in [("network", network), ("subnet", subnet)] {
                let name = quoted(name);
                line(
                    text,
                    &format!("{kind}=$(openstack {kind} show {name} -f value -c id)"),
                );
            }
            return;
        }
        Network::Made {
            cidr,
            dynamic,
            dns_servers,
            router,
        } => (cidr, dynamic, dns_servers, router),
    };
    part(text, "The network.");
    line(text, "ensure \"$cluster\" network\nnetwork=$id");
    let mut create =
        format!("ensure \"$cluster\" subnet --network \"$network\" --subnet-range {cidr}");
    if let Some((first, last)) = dynamic {
        create.push_str(&format!(
            " \\\n    --allocation-pool start={first},end={last}"
        ));
    }
    for server in dns {
        create.push_str(&format!(" --dns-nameserver {server}"));
    }
    line(text, &format!("{create}\nsubnet=$id"));
    match router {
        Some(router) => line(text, &format!("router={}", quoted(router))),
        None => {
            line(text, "ensure \"$cluster\" router\nrouter=$id");
            if d.external.is_some() {
                let gateway = "openstack router set --external-gateway \"$external\" \"$router\"";
                line(text, gateway);
            }
        }
    }
    line(
        text,
        "joined=$(openstack port list --router \"$router\" --fixed-ip \"subnet=$subnet\" -f value -c ID)\n\
         [ -n \"$joined\" ] || openstack router add subnet \"$router\" \"$subnet\"",
    );
}

fn groups(d: &Deployment, text: &mut String) {
    part(text, "Who may come in.");
    for group in &d.groups {
        let name = group.name;
        line(
            text,
            &format!("ensure \"$cluster-{name}\" 'security group'\n{name}_group=$id"),
        );
        let mut rules = format!("rules \"${name}_group\"");
        for rule in &group.rules {
            let port = rule
                .port
                .map_or_else(|| "any".to_owned(), |p| p.to_string());
            rules.push_str(&format!(" {}", quoted(&format!("{port} {}", rule.from))));
        }
        line(text, &rules);
    }
}

fn machines(d: &Deployment, text: &mut String) {
    for (role, policy) in &d.server_groups {
        part(
            text,
            &format!("Machines with the role {role} are kept apart."),
        );
        let name = quoted(&d.named(role.as_str()));
        line(
            text,
            &format!(
                "apart_{role}=$(id_of {name} ID Name server group list)\n\
                 if [ -z \"$apart_{role}\" ]; then\n    \
                 apart_{role}=$(openstack --os-compute-api-version 2.15 server group create \
                 --policy {policy} {name} -f value -c id)\nfi"
            ),
        );
    }
    part(text, "Machines.");
    let first_master = d.first_master().map(|server| server.name.as_str());
    for server in &d.servers {
        let address = server.address.map(|a| a.to_string()).unwrap_or_default();
        let apart = d.server_groups.iter().any(|(role, _)| *role == server.role);
        let mut call = "machine".to_owned();
        for word in [
            &server.name,
            server.role.as_str(),
            &server.document,
            &server.flavor,
            &address,
            server.zone.as_deref().unwrap_or_default(),
        ] {
            call.push_str(&format!(" {}", quoted(word)));
        }
        if apart {
            call.push_str(&format!(" \"$apart_{}\"", server.role));
        } else {
            call.push_str(" ''");
        }
        call.push_str(if server.floating { " yes" } else { " no" });
        for pair in &server.pairs {
            call.push_str(&format!(" {pair}"));
        }
        line(text, &call);
        let leads_here = d.api_floating_ip.is_some() && d.balancer.is_none();
        if leads_here && first_master == Some(&server.name) {
            line(text, "api_port=$id");
        }
    }
}

/// Octavia's own checks go over HTTPS to what the API server thinks of itself.
fn api(balancer: &Balancer, text: &mut String) {
    let (address, port, backend) = (balancer.address, balancer.port, balancer.backend_port);
    let mut from = String::new();
    for net in &balancer.from {
        from.push_str(&format!(" --allowed-cidr {net}"));
    }
    part(text, "The load balancer before the API servers.");
    line(
        text,
        &format!(
            r#"balancer=$(id_of "$cluster-api" id name loadbalancer list)
if [ -z "$balancer" ]; then
    say "load balancer $cluster-api"
    balancer=$(openstack loadbalancer create --name "$cluster-api" --vip-subnet-id "$subnet" \
        --vip-address {address} --wait -f value -c id)
fi
listener=$(id_of "$cluster-api" id name loadbalancer listener list --loadbalancer "$balancer")
if [ -z "$listener" ]; then
    listener=$(openstack loadbalancer listener create --name "$cluster-api" --protocol TCP \
        --protocol-port {port}{from} --wait -f value -c id "$balancer")
else
    openstack loadbalancer listener set{from} --wait "$listener"
fi
pool=$(id_of "$cluster-api" id name loadbalancer pool list --loadbalancer "$balancer")
if [ -z "$pool" ]; then
    pool=$(openstack loadbalancer pool create --name "$cluster-api" --listener "$listener" \
        --protocol TCP --lb-algorithm ROUND_ROBIN --wait -f value -c id)
fi
monitor=$(id_of "$cluster-api" id name loadbalancer healthmonitor list)
if [ -z "$monitor" ]; then
    openstack loadbalancer healthmonitor create --name "$cluster-api" --type HTTPS --url-path /readyz \
        --delay 5 --timeout 3 --max-retries 2 --wait -f value -c id "$pool" >/dev/null
fi"#
        ),
    );
    for (name, master) in &balancer.masters {
        let name = quoted(name);
        line(
            text,
            &format!(
                r#"member=$(id_of {name} id name loadbalancer member list "$pool")
if [ -z "$member" ]; then
    openstack loadbalancer member create --name {name} --subnet-id "$subnet" --address {master} \
        --protocol-port {backend} --wait -f value -c id "$pool" >/dev/null
fi"#
            ),
        );
    }
}
